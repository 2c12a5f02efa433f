"""Acceptance of a prediction service: the one at API_BASE_URL (with API_KEY if it needs one), else its own."""

import os

import httpx
import pytest

from serving.support import EXAMPLE, export_bundle, running

BANDS = {"low", "moderate", "high", "very high"}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    headers = {"x-api-key": os.environ["API_KEY"]} if "API_KEY" in os.environ else {}
    deployed = os.environ.get("API_BASE_URL")
    if deployed:
        with httpx.Client(base_url=deployed, headers=headers, timeout=10) as client:
            yield client
        return
    scratch = tmp_path_factory.mktemp("api")
    with running(export_bundle(scratch / "bundle"), scratch) as worker:
        worker.wait_for_status("ok")
        with httpx.Client(base_url=worker.url) as client:
            yield client


def test_health_names_the_model(api):
    answer = api.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["model_version"]
    assert api.get("/livez").status_code == api.get("/readyz").status_code == 200


def test_a_valid_encounter_is_scored(api):
    answer = api.post("/predict", json=dict(EXAMPLE))
    assert answer.status_code == 200
    body = answer.json()
    assert 0 <= body["probability_score"] <= 1
    assert body["prediction"] == int(body["probability_score"] >= body["threshold"])
    assert body["risk_band"] in BANDS
    assert 0 <= body["percentile"] <= 100
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["bundle_sha256"] == api.get("/health").json()["sha256"]
    assert "diag_1" not in body["missing_fields"]


def test_a_missing_value_is_scored_and_named(api):
    answer = api.post("/predict", json={**EXAMPLE, "diag_1": None})
    assert answer.status_code == 200
    assert "diag_1" in answer.json()["missing_fields"]
    assert api.post("/predict/batch", json=[{**EXAMPLE, "diag_1": None}]).json()["missing"]["diag_1"] == 1


def test_hyphens_and_underscores_mean_the_same(api):
    hyphens = {key.replace("_", "-"): value for key, value in EXAMPLE.items()}
    scores = [api.post("/predict", json=body).json()["probability_score"] for body in (dict(EXAMPLE), hyphens)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("field", sorted(EXAMPLE))
def test_a_missing_field_is_refused_by_name(api, field):
    answer = api.post("/predict", json={key: value for key, value in EXAMPLE.items() if key != field})
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", field]]


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_in_hospital", "five_days"), ("time_in_hospital", -1), ("age", "seventy"), ("insulin", "some"), ("race", 3)],
)
def test_a_wrong_value_is_refused_by_name_and_not_repeated(api, field, value):
    answer = api.post("/predict", json={**EXAMPLE, field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert f'"{value}"' not in answer.text


@pytest.mark.parametrize("body", ["", "{", "[]", "not json", '{"age": NaN}'])
def test_malformed_json_is_refused(api, body):
    assert api.post("/predict", content=body).status_code == 422


@pytest.mark.parametrize("age", ["[0-10)", "[90-100)"])
def test_the_youngest_and_the_oldest_are_scored(api, age):
    assert api.post("/predict", json={**EXAMPLE, "age": age}).status_code == 200


def test_an_unknown_race_is_scored_and_named(api):
    answer = api.post("/predict", json={**EXAMPLE, "race": "Martian"})
    assert answer.status_code == 200
    assert answer.json()["unknown_fields"] == ["race"]


def test_a_batch_is_answered_in_order_and_one_bad_encounter_loses_no_other(api):
    others = [{**EXAMPLE, "number_inpatient": number} for number in (0, 3)]
    answer = api.post("/predict/batch", json={"encounters": [others[0], {**EXAMPLE, "age": "seventy"}, others[1]]})
    assert answer.status_code == 200
    first, bad, last = answer.json()["predictions"]
    assert bad["errors"][0]["loc"] == ["body", "age"]
    singly = [api.post("/predict", json=one).json()["probability_score"] for one in others]
    assert [first["probability_score"], last["probability_score"]] == singly


def test_an_explanation_adds_up_to_the_probability(api):
    body = api.post("/explain", json=dict(EXAMPLE)).json()
    total = body["reference_probability"] + sum(part["contribution"] for part in body["contributions"])
    assert total == pytest.approx(body["probability_score"], abs=1e-9)
    assert body["probability_score"] == api.post("/predict", json=dict(EXAMPLE)).json()["probability_score"]


def test_the_model_says_where_it_comes_from(api):
    body = api.get("/model").json()
    assert body["version"] == api.get("/health").json()["model_version"]
    assert len(body["sha256"]) == 64
    assert {"threshold", "trained_at", "validation_metrics", "evaluation", "reference_encounter"} <= body.keys()


def test_every_answer_forbids_being_cached_framed_or_sniffed(api):
    for answer in (api.get("/health"), api.post("/predict", content="{"), api.get("/nowhere")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_an_unknown_path_and_a_wrong_method_are_told_so(api):
    assert api.get("/nowhere").status_code == 404
    assert api.get("/predict").status_code == 405
