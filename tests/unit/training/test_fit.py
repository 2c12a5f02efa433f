import numpy as np
import pytest
from numpy.typing import NDArray

import factories
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.errors import DataError
from health_predict.features.calibration import Calibration, log_odds
from health_predict.params import BootstrapParams, BundleParams, PreprocessorParams, SearchParams
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import (
    calibrate,
    cross_calibrated,
    fit,
    importance,
    prepare,
    recalibration,
)

TRAIN = label(select_cohort(factories.encounters(1_500, seed=41)), "lt30")
VALIDATION = label(select_cohort(factories.encounters(800, seed=42)), "lt30")


@pytest.fixture(scope="module", params=["xgboost", "logistic_regression"])
def fitted(request):
    candidate = CANDIDATES[request.param]
    prepared = prepare(candidate.encoding, TRAIN, VALIDATION, PreprocessorParams())
    return fit(
        candidate.family, candidate.default(len(TRAIN.outcomes)), prepared, SearchParams(), BundleParams.capacity
    )


def test_probabilities_are_calibrated_on_the_validation_encounters(fitted):
    proba = fitted.predict_proba(VALIDATION.encounters)
    assert proba.shape == VALIDATION.outcomes.shape
    assert proba.mean() == pytest.approx(VALIDATION.outcomes.mean(), abs=1e-3)
    refit = calibrate(log_odds(proba), VALIDATION.outcomes)
    assert (refit.intercept, refit.slope) == pytest.approx((0, 1), abs=1e-3)


def test_a_cross_calibrated_patient_does_not_calibrate_the_own_encounters(fitted):
    proba = fitted.predict_proba(VALIDATION.encounters)
    found = cross_calibrated(proba, VALIDATION, folds=5)
    for patient in VALIDATION.patients[:20]:
        own = VALIDATION.patients == patient
        other = LabelledEncounters(VALIDATION.encounters, VALIDATION.outcomes ^ own)
        assert np.array_equal(cross_calibrated(proba, other, folds=5)[own], found[own])
    assert not np.array_equal(cross_calibrated(proba, other, folds=5), found)
    assert np.abs(found - proba).max() < 0.1
    assert np.corrcoef(found, proba)[0, 1] > 0.9


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("happened", [True, False])
def test_too_little_of_one_outcome_is_told_before_anything_is_fitted(part, happened):
    some = (
        np.flatnonzero(VALIDATION.outcomes == happened)[:9].tolist()
        + np.flatnonzero(VALIDATION.outcomes != happened)[:50].tolist()
    )
    few = LabelledEncounters(VALIDATION.encounters[some], VALIDATION.outcomes[some])
    train, validation = (few, VALIDATION) if part == "training" else (TRAIN, few)
    with pytest.raises(DataError, match=f"of 59 {part} encounters") as refused:
        prepare("one_hot", train, validation, PreprocessorParams())
    assert "10 of each are needed" in str(refused.value)


def test_a_fifth_of_the_validation_encounters_is_flagged(fitted):
    flagged = fitted.predict_proba(VALIDATION.encounters) >= fitted.threshold
    assert 0.19 < flagged.mean() <= 0.20


def test_rows_keep_their_order(fitted):
    table = VALIDATION.encounters.head(50)
    assert np.array_equal(fitted.predict_proba(table.reverse())[::-1], fitted.predict_proba(table))


def test_importance_adds_up_to_one_over_engineered_features(fitted):
    shares = importance(fitted)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0
    assert {"number_inpatient", "race"} <= set(shares)
    assert not {"encounter_id", "patient_nbr"} & set(shares)


def test_calibration_finds_what_was_done_to_the_odds():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.02, 0.6, 60_000)
    y = rng.random(60_000) < truth
    distorted = 0.5 + 1.6 * log_odds(truth)
    np.testing.assert_allclose(calibrate(distorted, y).apply(distorted), truth, atol=0.02)


def risks(shift: float, slope: float) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Probabilities whose outcomes come with odds that are shifted and stretched, one encounter a patient."""
    rng = np.random.default_rng(5)
    proba = rng.uniform(0.02, 0.4, 8_000)
    y = rng.random(8_000) < Calibration(shift, slope).apply(log_odds(proba))
    return proba, y, np.arange(8_000)


@pytest.mark.parametrize(
    ("shift", "slope", "expected"),
    [(0.5, 1.0, 1.0), (0.3, 0.5, 0.5), (-1.5, -0.5, 1.0)],
    ids=["shifted", "stretched", "turned around"],
)
def test_a_recalibration_meets_the_outcomes_keeps_the_order_and_changes_no_more_than_they_show(shift, slope, expected):
    proba, y, patients = risks(shift, slope)
    found = recalibration(proba, y, patients, BootstrapParams(100))
    after = found.apply(log_odds(proba))
    assert after.mean() == pytest.approx(y.mean(), rel=1e-6)
    assert found.slope == (1.0 if expected == 1.0 else pytest.approx(expected, abs=0.1))
    assert np.array_equal(np.argsort(after), np.argsort(proba))
