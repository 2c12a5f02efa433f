"""What is missing is named for one encounter, counted for many, and warned of where it is far more than in training."""

import asyncio
import json
import os
from contextlib import closing

import pytest

from health_predict.params import MissingParams
from health_predict.serving.core.contract import INPUTS, read_encounter
from health_predict.serving.core.model import load_model
from health_predict.serving.core.service import Call, Journal, Service
from health_predict.serving.journal.log import Log
from health_predict.serving.journal.metrics import ServingMetrics
from serving.support import EXAMPLE, InProcess

WHOLE = {**EXAMPLE, "weight": "[75-100)", "payer_code": "MC", "medical_specialty": "Cardiology"}


def body(**changes):
    return json.dumps({**WHOLE, **changes}).encode()


def counter(gateway: InProcess, name: str, field: str) -> float:
    text = gateway.metrics.exposition().decode()
    start = f'health_predict_{name}{{field="{field}"}} '
    return sum(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


@pytest.fixture(scope="module")
def model(bundle_folder):
    return load_model(bundle_folder)


def test_one_encounter_names_what_it_lacks_and_the_explanation_says_the_same(gateway, bundle):
    sent = body(race=None, payer_code="?", diag_2="", weight=None)
    answer = gateway.ask("POST", "/predict", sent)[1]
    read = {name for name in ("race", "payer_code", "diag_2", "weight") if name in bundle.encoder.fields}
    assert read >= {"race", "diag_2"}
    assert set(answer["missing_fields"]) == read
    assert set(gateway.ask("POST", "/explain", sent)[1]["missing_fields"]) == read
    assert gateway.ask("POST", "/predict", body())[1]["missing_fields"] == []


def test_what_is_left_out_is_missing_and_none_of_a_test_is_not(gateway, bundle):
    left_out = json.dumps({name: value for name, value in WHOLE.items() if name != "payer_code"}).encode()
    answer = gateway.ask("POST", "/predict", left_out)[1]
    assert ("payer_code" in answer["missing_fields"]) == ("payer_code" in bundle.encoder.fields)
    assert gateway.ask("POST", "/predict", body(A1Cresult="None"))[1]["missing_fields"] == []


def test_the_service_and_the_encoder_agree_on_what_is_missing(model):
    may_be_null = [field.name for field in INPUTS if field.nullable]
    for name in may_be_null:
        encounter = read_encounter(body(**{name: None}))
        assert model.missing_fields(encounter) == model.bundle.encoder.missing_fields(encounter)


def test_a_batch_counts_what_is_missing_and_unknown_and_warns_of_a_join_that_failed(gateway, bundle):
    lost = [{**WHOLE, "diag_1": None, "diag_2": None, "diag_3": None}] * 40
    sent = [*lost, *[WHOLE] * 60, {**WHOLE, "race": "Martian"}, {**WHOLE, "age": "seventy"}]
    answer = gateway.ask("POST", "/predict/batch", json.dumps(sent).encode())[1]
    assert answer["missing"] == {"diag_1": 40, "diag_2": 40, "diag_3": 40}
    assert (answer["unknown"], answer["refused"]) == ({"race": 1}, 1)
    assert len(answer["warnings"]) == 3
    (of_first,) = [one for one in answer["warnings"] if one.startswith("diag_1 ")]
    usual = f"{bundle.missing['diag_1']:.2%}"
    assert of_first == f"diag_1 is missing in 40 of 101 encounters; it is in {usual} of the training encounters"


def test_a_batch_with_what_is_usually_missing_warns_of_nothing(gateway):
    answer = gateway.ask("POST", "/predict/batch", json.dumps([WHOLE] * 20).encode())[1]
    assert (answer["missing"], answer["unknown"], answer["warnings"]) == ({}, {}, [])
    empty = gateway.ask("POST", "/predict/batch", b"[]")[1]
    assert (empty["missing"], empty["warnings"], empty["refused"]) == ({}, [], 0)


def test_metrics_count_what_is_missing_by_field_beside_what_is_unknown(gateway):
    before = counter(gateway, "missing_values_total", "diag_3"), counter(gateway, "unknown_values_total", "race")
    gateway.ask("POST", "/predict", body(diag_3=None, race="Martian"))
    gateway.ask("POST", "/predict/batch", b"[%s,%s]" % (body(diag_3=None), body(diag_3=None, age="seventy")))
    after = counter(gateway, "missing_values_total", "diag_3"), counter(gateway, "unknown_values_total", "race")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)


async def _ask(service: Service, sent: bytes, times: int) -> None:
    for _ in range(times):
        await service.predict(sent, Call("1", "-"))


def test_single_encounters_are_judged_together_and_metrics_and_log_warn(bundle_folder, tmp_path):
    window, metrics = MissingParams().window, ServingMetrics()
    shown = []
    with closing(Log(os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY))) as log:
        service = Service(bundle_folder, metrics, log, Journal(), 10, 64 * 1024)

        async def run() -> None:
            await service.reload()
            for sent in (body(), body(diag_3=None), body()):
                await _ask(service, sent, window)
                shown.append(metrics.exposition().decode())

        asyncio.run(run())
    gauge = 'health_predict_missing_far_more_often{field="diag_3"} '
    assert gauge not in shown[0]
    assert f"{gauge}1.0" in shown[1]
    assert f"{gauge}0.0" in shown[2]
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (warning,) = [event for event in events if event["event"] == "missing_far_more_often"]
    assert warning["reason"].startswith(f"diag_3 is missing in {window} of {window} encounters")
