"""What the service answered, judged once a hospital says what became of the patients."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from health_predict.adapters.registry import BUNDLE
from health_predict.data.cohort import outcome
from health_predict.data.schema import CLINICAL, EXCLUDED_DISPOSITIONS, OUTCOME
from health_predict.evaluation.metrics import evaluate
from health_predict.params import BootstrapParams, GateParams, IntakeParams, Params
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.steps.loop.judge_answers import judge_logged_answers, record_answers
from health_predict.steps.model.evaluate import evaluate as evaluate_run
from health_predict.steps.model.promote import promote
from health_predict.store import layout
from health_predict.store.answered import AnswerLog, unjudged_answers
from health_predict.store.bundles import keep_bundle
from health_predict.store.prediction_log import PredictionLog, ScoredEncounter, pseudonym
from health_predict.store.tables import keep_table, read_json, read_table

KEY = b"0123456789abcdef"
NOW = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
def answered(store, tmp_path):
    """A store with a kept bundle, unseen encounters that it answered on two days, and their outcomes in a file."""
    bundle = store.registry.bundle(store.winner)
    keep_bundle(store.storage, store.registry.download(store.winner, BUNDLE, tmp_path))
    for table in bundle.manifest.trained_on:
        keep_table(store.storage, store.storage.read(table.key))
    encounters = read_table(store.storage, layout.INITIAL_TEST).head(1_000)
    risks = bundle.predict_proba(encounters)
    log = PredictionLog(store.storage, pytest.fail)
    for number, (row, risk) in enumerate(zip(encounters.iter_rows(named=True), risks, strict=True)):
        log.put(scored(bundle, row, float(risk), day=1 + number % 2))
    log.close(timeout=30)
    file = tmp_path / "outcomes.csv"
    encounters.select("encounter_id", OUTCOME).write_csv(file)
    return store, bundle, encounters, risks, file


def scored(bundle, row, risk, day=1, hour=8, key=KEY) -> ScoredEncounter:
    return ScoredEncounter(
        time=f"2026-05-{day:02d}T{hour:02d}:00:00.000+00:00",
        request_id="r",
        model_version="1",
        bundle_sha256=bundle.sha256,
        probability=risk,
        patient=pseudonym(row["patient_nbr"], key),
        encounter={field.name: row[field.name] for field in CLINICAL},
        encounter_pseudonym=pseudonym(row["encounter_id"], key),
    )


def judge(store, key=KEY):
    return judge_logged_answers(store.storage, store.storage, key, Params())


def test_answers_are_judged_as_the_same_risks_would_be_anywhere_else(answered):
    store, bundle, encounters, risks, file = answered
    assert judge(store).waiting == 1_000
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    found = judge(store)
    (version,) = found.versions
    assert (found.logged, found.waiting, found.seen, version.rows) == (1_000, 0, 0, 1_000)
    patients = encounters["patient_nbr"].to_numpy()
    expected = evaluate(outcome(encounters), risks, patients, bundle.manifest.threshold, BootstrapParams())
    assert version.metrics.auroc.estimate == pytest.approx(expected.auroc.estimate)
    assert version.metrics.observed_expected.estimate == pytest.approx(expected.observed_expected.estimate)
    assert version.metrics.patients == expected.patients
    assert [day.day for day in version.days] == ["2026-05-01", "2026-05-02"]
    assert sum(day.outcomes for day in version.days) == outcome(encounters).sum()
    assert np.isclose(sum(day.expected for day in version.days), risks.sum())


def test_the_last_answer_to_an_encounter_counts_and_one_without_a_number_is_counted_apart(answered):
    store, bundle, encounters, _, file = answered
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    row = encounters.row(0, named=True)
    log = PredictionLog(store.storage, pytest.fail)
    log.put(scored(bundle, row, 0.99, day=9))
    log.put(ScoredEncounter("2026-05-09", "r", "1", bundle.sha256, 0.5, None, {}))
    log.close(timeout=30)
    found = judge(store)
    assert (found.logged, found.superseded, found.anonymous) == (1_002, 1, 1)
    assert [(day.day, day.rows) for day in found.versions[0].days][-1] == ("2026-05-09", 1)


def test_without_the_key_no_outcome_finds_its_answer(answered):
    store, *_, file = answered
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    assert judge(store, b"another key of 16").waiting == 1_000


def test_encounters_that_the_version_was_trained_on_say_nothing(answered, tmp_path):
    store, bundle, _, _, _ = answered
    learnt = read_table(store.storage, layout.INITIAL_TRAIN).head(50)
    log = PredictionLog(store.storage, pytest.fail)
    for row in learnt.iter_rows(named=True):
        log.put(scored(bundle, row, 0.2))
    log.close(timeout=30)
    file = tmp_path / "learnt.csv"
    learnt.select("encounter_id", OUTCOME).write_csv(file)
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    found = judge(store)
    assert (found.seen, found.versions) == (50, ())


def test_the_log_names_neither_patient_nor_encounter(answered):
    store, _, encounters, *_ = answered
    text = b"".join(store.storage.read(key) for key in store.storage.list(layout.ONLINE_PREDICTIONS)).decode()
    for name in ("encounter_id", "patient_nbr"):
        assert f'"{name}"' not in text
        assert not any(f":{number}" in text or f'"{number}"' in text for number in encounters[name].head(100))


def test_the_command_needs_the_key_and_shows_days(answered, health_predict):
    store, *_, file = answered
    root = store.root
    assert health_predict(root, "loop", "answers").code == 15
    health_predict(root, "intake", "outcomes", "--from", str(file))
    shown = health_predict(root, "loop", "answers", HEALTH_PREDICT_PREDICTION_LOG_KEY=KEY.decode())
    assert shown.code == 0, shown.err
    assert "1,000 answers" in shown.out
    assert "2026-05-02" in shown.out


def test_encounters_that_ended_in_death_or_a_hospice_are_left_out_and_counted(answered):
    store, bundle, encounters, _, file = answered
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    before = judge(store).versions[0].rows
    log = PredictionLog(store.storage, pytest.fail)
    for row in encounters.head(20).iter_rows(named=True):
        log.put(scored(bundle, {**row, "discharge_disposition_id": EXCLUDED_DISPOSITIONS[0]}, 0.9, day=9))
    log.close(timeout=30)
    found = judge(store)
    assert (found.left_out, found.versions[0].rows) == (20, before - 20)


def test_answers_of_a_version_that_the_store_does_not_keep_are_counted_apart(answered):
    store, bundle, *_, file = answered
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    for key in store.storage.list(layout.bundle(bundle.sha256)):
        store.storage.delete(key)
    found = judge(store)
    assert (found.untraceable, found.versions) == (1_000, ())


def due(store, key=KEY):
    return unjudged_answers(store.storage, AnswerLog(store.storage, key), IntakeParams())


def test_answers_are_due_once_for_each_change_of_what_is_known_of_them(answered, tmp_path):
    store, _, encounters, _, file = answered
    assert due(store).known == 0
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    assert (due(store).known, due(store).judged) == (1_000, 0)
    judged = record_answers(store.storage, store.storage, KEY, Params())
    assert judged == judge(store)
    assert due(store).known == 0
    assert record_answers(store.storage, store.storage, KEY, Params()) is None

    other = tmp_path / "others.csv"  # outcomes of encounters that nobody asked about
    pl.DataFrame({"encounter_id": [7, 8], OUTCOME: ["NO", "<30"]}).write_csv(other)
    intake_outcomes(store.storage, IntakeParams(), "me", str(other))
    assert due(store).known == 0

    said = encounters[OUTCOME][0]
    correction = tmp_path / "correction.csv"
    correction.write_text(
        f"encounter_id,readmitted\n{encounters['encounter_id'][0]},{'NO' if said == '<30' else '<30'}\n"
    )
    intake_outcomes(store.storage, IntakeParams(), "me", str(correction))
    assert (due(store).known, due(store).judged) == (1_000, 1_000)
    record_answers(store.storage, store.storage, KEY, Params())
    assert due(store).known == 0
    assert len(store.storage.list("reports/answers/")) == 2


def test_without_the_key_nothing_is_due_and_it_is_told_how_it_would_be(answered):
    store, *_, file = answered
    assert due(store, None).hint == ""
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    found = due(store, None)
    assert (found.known, "HEALTH_PREDICT_PREDICTION_LOG_KEY" in found.hint) == (0, True)


def test_what_is_said_of_an_answered_encounter_before_its_day_does_not_count(answered):
    """Where only the day of the answer is known, it stands for the day of discharge."""
    store, *_, file = answered
    assert IntakeParams().reporting_lag == 60
    for as_of, waiting in ((date(2026, 5, 20), 1_000), (date(2026, 7, 30), 500), (date(2026, 7, 31), 0)):
        intake_outcomes(store.storage, IntakeParams(), "me", str(file), as_of, clock=lambda: NOW)
        assert judge(store).waiting == waiting


def test_the_loop_judges_answers_and_then_nothing_more_is_due(answered, health_predict):
    store, *_, file = answered
    evaluate_run(store.workspace, Params(), "tester", store.winner)
    gate = GateParams(max_subgroup_auroc_loss=2, min_subgroup_auroc=0, observed_expected=(0, 1e9))
    promote(store.workspace, gate, "tester", store.winner)
    assert health_predict(store.root, "intake", "outcomes", "--from", str(file)).code == 0
    told = health_predict(store.root, "loop", "next", "--json").json
    assert (told["action"], "HEALTH_PREDICT_PREDICTION_LOG_KEY" in told["reason"]) == (None, True)
    assert health_predict(store.root, "loop", "run", "--json").json == []
    key = {"HEALTH_PREDICT_PREDICTION_LOG_KEY": KEY.decode()}
    told = health_predict(store.root, "loop", "next", "--json", **key).json
    assert (told["action"], told["batch"], "1,000 answers" in told["reason"]) == ("judge answers", None, True)
    assert [one["action"] for one in health_predict(store.root, "loop", "run", "--json", **key).json] == [
        "judge answers"
    ]
    assert health_predict(store.root, "loop", "next", "--json", **key).json["action"] is None
    assert health_predict(store.root, "loop", "run", "--json", **key).json == []
    (kept,) = store.storage.list("reports/answers/")
    shown = health_predict(store.root, "loop", "answers", "--json", **key).json
    assert read_json(store.storage, kept) == shown


def test_answers_that_care_acted_on_are_judged_on_those_not_followed_up(answered):
    store, bundle, encounters, risks, file = answered
    what = pl.Series("followed_up", np.where(np.arange(1_000) % 3 == 0, "telephone call", "none"))
    encounters.select("encounter_id", OUTCOME).with_columns(what).write_csv(file)
    intake_outcomes(store.storage, IntakeParams(), "me", str(file))
    (version,) = judge(store).versions
    flagged = risks >= bundle.manifest.threshold
    called = (what == "telephone call").to_numpy()
    assert (version.unjudged, version.metrics.rows) == (None, (~called).sum())
    assert version.follow_up.followed_up == (called & flagged).sum()
    assert version.follow_up.not_followed_up == (~called & flagged).sum()
