"""Metrics agree with scikit-learn, intervals cover, and nothing that cannot be known becomes a number."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from health_predict.errors import DataError
from health_predict.evaluation.metrics import (
    Interval,
    Measurement,
    auroc,
    average_precision,
    compare,
    compare_auroc,
    evaluate,
)
from health_predict.params import BootstrapParams

FEW = BootstrapParams(replicates=40)
SHAPES = "outcomes, risks and patients differ in shape:"
NOBODY = "some encounters have no patient; intervals need to know whose encounter each one is"


def invented(rows: int, seed: int, decimals: int = 17):
    """Outcomes, risks that know something about them (tied where decimals are few), and returning patients."""
    rng = np.random.default_rng(seed)
    y = rng.random(rows) < 0.15
    y[:2] = (True, False)
    logit = -2.0 + 0.9 * y + rng.normal(0, 0.8, rows)
    return y, np.round(1 / (1 + np.exp(-logit)), decimals), rng.integers(0, rows // 2, rows)


@pytest.mark.parametrize("decimals", [17, 2, 1, 0])
@pytest.mark.parametrize("rows", [2, 3, 50, 3_000])
def test_rank_metrics_are_scikit_learns_ties_and_weights_included(rows, decimals):
    y, p, _ = invented(rows, seed=rows, decimals=decimals)
    weights = np.random.default_rng(1).poisson(1.0, rows).astype(float)
    weights[:2] = 1.0
    for w in (None, weights, weights + 0.3):
        assert auroc(y, p, w) == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
        assert average_precision(y, p, w) == pytest.approx(average_precision_score(y, p, sample_weight=w), abs=1e-12)


def test_rank_metrics_of_ordered_and_constant_scores():
    y = np.array([0, 0, 1, 1])
    assert auroc(y, [0.1, 0.2, 0.3, 0.4]) == average_precision(y, [0.1, 0.2, 0.3, 0.4]) == 1.0
    assert auroc(y, [0.4, 0.3, 0.2, 0.1]) == 0.0
    assert auroc(y, [7, 7, 7, 7]) == average_precision(y, [7, 7, 7, 7]) == 0.5


def test_estimates_are_scikit_learns():
    y, p, patients = invented(2_000, seed=3)
    flagged = p >= 0.2
    metrics = evaluate(y, p, patients, 0.2, FEW)
    assert metrics.auroc.estimate == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert metrics.average_precision.estimate == pytest.approx(average_precision_score(y, p), abs=1e-12)
    assert metrics.brier.estimate == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert metrics.f1.estimate == pytest.approx(f1_score(y, flagged), abs=1e-12)
    assert metrics.precision.estimate == pytest.approx(precision_score(y, flagged), abs=1e-12)
    assert metrics.recall.estimate == pytest.approx(recall_score(y, flagged), abs=1e-12)
    assert metrics.specificity.estimate == pytest.approx(recall_score(~y, ~flagged), abs=1e-12)
    assert metrics.flag_rate.estimate == pytest.approx(flagged.mean(), abs=1e-12)
    assert metrics.observed_expected.estimate == pytest.approx(y.sum() / p.sum(), abs=1e-12)
    assert (metrics.rows, metrics.outcomes, metrics.patients) == (2_000, y.sum(), len(set(patients)))
    assert metrics.calibration_slope is not None
    refitted = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(p / (1 - p))[:, None], y)
    assert metrics.calibration_slope.estimate == pytest.approx(refitted.coef_[0, 0], abs=1e-4)


def drawn(patients, y, params: BootstrapParams):
    """Weights of all rows in each resample: patients drawn with the seed, again where one class is missing."""
    owners = np.unique(patients, return_inverse=True)[1]
    people, rng, found = owners.max() + 1, np.random.default_rng(params.seed), []
    while len(found) < params.replicates:
        weights = np.bincount(rng.integers(people, size=people), minlength=people)[owners]
        if (weights @ y) and (weights @ ~y):
            found.append(weights.astype(float))
    return found


def bounds(values) -> tuple[float, float]:
    return pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9)


@pytest.mark.parametrize(("rows", "replicates"), [(300, 40), (9, 33)])
def test_intervals_are_those_of_seeded_resamples_computed_one_by_one(rows, replicates):
    y, p, patients = invented(rows, seed=12)
    params = BootstrapParams(replicates=replicates, seed=99)
    flagged, found = p >= 0.2, evaluate(y, p, patients, 0.2, params)
    slow = {
        "auroc": lambda w: roc_auc_score(y, p, sample_weight=w),
        "average_precision": lambda w: average_precision_score(y, p, sample_weight=w),
        "brier": lambda w: brier_score_loss(y, p, sample_weight=w),
        "f1": lambda w: f1_score(y, flagged, sample_weight=w, zero_division=0),
        "precision": lambda w: precision_score(y, flagged, sample_weight=w, zero_division=0),
        "recall": lambda w: recall_score(y, flagged, sample_weight=w),
        "specificity": lambda w: recall_score(~y, ~flagged, sample_weight=w),
        "flag_rate": lambda w: w @ flagged / w.sum(),
        "observed_expected": lambda w: w @ y / (w @ p),
    }
    weights = drawn(patients, y, params)
    for name, metric in slow.items():
        interval = getattr(found, name)
        assert (interval.lower, interval.upper) == bounds([metric(w) for w in weights]), name


def test_differences_are_those_of_the_same_resamples_with_their_spread():
    y, p, patients = invented(300, seed=13)
    other = np.clip(p + np.random.default_rng(3).normal(0, 0.1, 300), 0, 1)
    params = BootstrapParams(replicates=35, seed=5, level=0.9)
    found, weights = compare(y, p, other, patients, params), drawn(patients, y, params)
    for interval, metric in (
        (found.auroc, roc_auc_score),
        (found.average_precision, average_precision_score),
        (found.brier, brier_score_loss),
    ):
        values = [metric(y, p, sample_weight=w) - metric(y, other, sample_weight=w) for w in weights]
        assert (interval.lower, interval.upper) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-9)
        assert interval.error == pytest.approx(np.std(values, ddof=1), abs=1e-9)
        assert interval.estimate == pytest.approx(metric(y, p) - metric(y, other), abs=1e-12)


def calibration_of(y, logit, weights, start):
    """Intercept with slope 1, and intercept with slope; each one Newton step from `start`."""
    alone, both = start[0], np.array(start[1])
    fitted = 1 / (1 + np.exp(-(alone + logit)))
    step = weights @ (y - fitted) / (weights @ (fitted * (1 - fitted)))
    X = np.column_stack([np.ones(len(y)), logit])
    fitted = 1 / (1 + np.exp(-X @ both))
    hessian = X.T @ (X * (weights * fitted * (1 - fitted))[:, None])
    return alone + step, both + np.linalg.solve(hessian, X.T @ (weights * (y - fitted)))


def test_calibration_is_the_maximum_likelihood_one_and_its_interval_one_step_from_it():
    y, p, patients = invented(1_500, seed=14)
    params = BootstrapParams(replicates=40, seed=6)
    found, logit = evaluate(y, p, patients, 0.2, params), np.log(p / (1 - p))
    optimum = (0.0, (0.0, 1.0))
    for _ in range(50):
        optimum = calibration_of(y, logit, np.ones(len(y)), optimum)
    assert found.calibration_intercept.estimate == pytest.approx(optimum[0], abs=1e-9)
    assert found.calibration_slope.estimate == pytest.approx(optimum[1][1], abs=1e-9)
    steps = [calibration_of(y, logit, w, optimum) for w in drawn(patients, y, params)]
    intercept, slope = found.calibration_intercept, found.calibration_slope
    assert (intercept.lower, intercept.upper) == bounds([alone for alone, _ in steps])
    assert (slope.lower, slope.upper) == bounds([both[1] for _, both in steps])


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_risks_of_0_and_1_count_as_one_in_a_million_from_them(risk):
    y, p, patients = invented(400, seed=15)
    p[:5] = risk
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    at_edge, inside = (evaluate(y, risks, patients, 0.2, FEW) for risks in (p, clipped))
    assert at_edge.calibration_slope == inside.calibration_slope
    assert at_edge.calibration_intercept == inside.calibration_intercept


@pytest.mark.parametrize("decimals", [17, 1])
def test_the_calibration_error_is_the_mean_gap_of_ten_equal_bins(decimals):
    y, p, patients = invented(1_000, seed=16, decimals=decimals)
    params = BootstrapParams(replicates=40, seed=7)
    edges = np.unique(np.quantile(p, np.arange(1, 10) / 10))
    members = [np.searchsorted(edges, p, side="left") == bin_ for bin_ in range(10)]

    def error(weights):
        return sum(abs(weights[member] @ (p - y)[member]) for member in members) / weights.sum()

    found, estimate = evaluate(y, p, patients, 0.2, params).ece, error(np.ones(1_000))
    resampled = np.array([error(w) for w in drawn(patients, y, params)])
    assert found.estimate == pytest.approx(estimate, abs=1e-12)
    assert (found.lower, found.upper) == bounds(np.maximum(resampled - (resampled.mean() - estimate), 0))


def test_at_equal_workload_each_model_flags_its_own_highest_risks():
    y = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1])
    one, other = np.linspace(0.9, 0.1, 10), np.linspace(0.1, 0.9, 10) ** 2
    found = compare(y, one, other, np.arange(10), FEW, capacity=0.30)
    assert found.ppv.estimate == pytest.approx(2 / 3 - 1 / 3)
    assert found.ppv.lower <= found.ppv.estimate <= found.ppv.upper
    assert compare(y, one, one**3, np.arange(10), FEW, capacity=0.30).ppv == Measurement(0.0, 0.0, 0.0, 0.0)
    assert compare(y, one, other, np.arange(10), FEW).ppv is None


def test_the_number_to_follow_up_is_how_many_are_flagged_for_each_readmission_found():
    y, p, patients = invented(800, 3)
    found = evaluate(y, p, patients, 0.3, FEW)
    number, ppv = found.number_to_follow_up, found.precision
    assert number.estimate == pytest.approx((p >= 0.3).sum() / (y & (p >= 0.3)).sum())
    assert (number.lower, number.upper) == pytest.approx((1 / ppv.upper, 1 / ppv.lower))
    for threshold in (1.1, p[y].max()):  # nobody, and one or two: a resample may have none of them
        assert evaluate(y, p, patients, threshold, FEW).number_to_follow_up is None


def test_risks_that_hardly_differ_have_a_calibration_slope():
    rng = np.random.default_rng(5)
    logit = rng.normal(-2.05, 0.07, 2_400)
    y = rng.random(2_400) < 1 / (1 + np.exp(-(18.5 + 10 * logit)))
    found = evaluate(y, 1 / (1 + np.exp(-logit)), np.arange(2_400), 0.12, FEW).calibration_slope
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5_000).fit(logit[:, None], y).coef_[0, 0]
    assert found.estimate == pytest.approx(expected, rel=1e-3)


def test_a_row_at_the_threshold_is_flagged():
    metrics = evaluate([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], 0.3, FEW)
    assert metrics.flag_rate.estimate == 0.5
    assert metrics.threshold == 0.3


def test_every_interval_holds_its_estimate():
    y, p, patients = invented(2_000, seed=4)
    metrics = evaluate(y, p, patients, 0.2, BootstrapParams(replicates=200))
    for name in ("auroc", "average_precision", "brier", "ece", "calibration_intercept", "calibration_slope"):
        interval = getattr(metrics, name)
        assert interval.lower < interval.estimate < interval.upper, name
    for name in ("observed_expected", "f1", "precision", "recall", "specificity", "flag_rate"):
        interval = getattr(metrics, name)
        assert interval.lower < interval.estimate < interval.upper, name


def test_calibration_is_ideal_for_true_risks_and_shows_what_is_wrong():
    rng = np.random.default_rng(5)
    p = 1 / (1 + np.exp(-rng.normal(-2, 1, 60_000)))
    y, patients = rng.random(len(p)) < p, np.arange(len(p))
    true = evaluate(y, p, patients, 0.2, FEW)
    assert true.calibration_intercept.estimate == pytest.approx(0, abs=0.04)
    assert true.calibration_slope.estimate == pytest.approx(1, abs=0.04)
    assert true.observed_expected.estimate == pytest.approx(1, abs=0.04)
    assert true.ece.estimate < 0.01
    doubled = evaluate(y, p / 2, patients, 0.2, FEW)
    assert doubled.observed_expected.estimate == pytest.approx(2, abs=0.08)
    assert doubled.calibration_intercept.estimate > 0.6
    assert doubled.ece.estimate == pytest.approx(p.mean() / 2, abs=0.005)
    assert doubled.auroc == true.auroc
    logit = np.log(p / (1 - p))
    overconfident = evaluate(y, 1 / (1 + np.exp(-2 * logit)), patients, 0.2, FEW)
    assert overconfident.calibration_slope.estimate == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_the_one_step_slope_interval_is_that_of_a_full_refit():
    y, p, patients = invented(3_000, seed=6)
    metrics = evaluate(y, p, patients, 0.2, BootstrapParams(replicates=200))
    logit, rng, slopes = np.log(p / (1 - p))[:, None], np.random.default_rng(0), []
    owners = np.unique(patients, return_inverse=True)[1]
    for _ in range(200):
        drawn = np.bincount(rng.integers(owners.max() + 1, size=owners.max() + 1), minlength=owners.max() + 1)
        refitted = LogisticRegression(C=np.inf).fit(logit, y, sample_weight=drawn[owners].astype(float))
        slopes.append(refitted.coef_[0, 0])
    width = metrics.calibration_slope.upper - metrics.calibration_slope.lower
    assert width == pytest.approx(np.subtract(*np.quantile(slopes, [0.975, 0.025])), rel=0.25)


def test_slope_is_none_where_the_data_do_not_determine_it():
    y = np.array([0, 0, 0, 1, 1] * 20)
    patients = np.arange(100)
    assert evaluate(y, np.full(100, 0.4), patients, 0.5, FEW).calibration_slope is None
    assert evaluate(y, 0.2 + 0.6 * y, patients, 0.5, FEW).calibration_slope is None
    assert evaluate(y, 0.8 - 0.6 * y, patients, 0.5, FEW).calibration_slope is None


def test_nothing_flagged_has_no_precision():
    y, p, patients = invented(300, seed=7)
    metrics = evaluate(y, p, patients, 1.0, FEW)
    assert metrics.precision.estimate == metrics.f1.estimate == metrics.flag_rate.estimate == 0.0
    assert metrics.specificity.estimate == 1.0


def test_the_same_seed_gives_the_same_intervals_and_row_order_does_not_matter():
    y, p, patients = invented(500, seed=8)
    order = np.random.default_rng(0).permutation(500)
    first, again = evaluate(y, p, patients, 0.2, FEW), evaluate(y[order], p[order], patients[order], 0.2, FEW)
    assert first == evaluate(y, p, patients, 0.2, FEW)
    assert again.auroc.lower == pytest.approx(first.auroc.lower, abs=1e-12)
    assert again.brier.upper == pytest.approx(first.brier.upper, abs=1e-12)


def test_the_same_model_on_both_sides_gives_exactly_zero():
    y, p, patients = invented(800, seed=9)
    differences = compare(y, p, p.copy(), patients, FEW)
    for interval in (differences.auroc, differences.average_precision, differences.brier):
        assert (interval.estimate, interval.lower, interval.upper) == (0.0, 0.0, 0.0)


def test_a_paired_difference_is_that_of_the_estimates_and_changes_sign_with_the_sides():
    y, p, patients = invented(800, seed=10)
    worse = np.clip(p + np.random.default_rng(1).normal(0, 0.1, 800), 0, 1)
    there, back = compare(y, p, worse, patients, FEW), compare(y, worse, p, patients, FEW)
    assert there.auroc.estimate == pytest.approx(auroc(y, p) - auroc(y, worse), abs=1e-12)
    assert there.auroc.lower == pytest.approx(-back.auroc.upper, abs=1e-12)
    single = evaluate(y, p, patients, 0.2, FEW).auroc
    assert there.auroc.upper - there.auroc.lower < single.upper - single.lower
    assert compare_auroc(y, p, worse, patients, FEW).difference == there.auroc
    assert compare_auroc(y, p, worse, patients, FEW).reference == compare_auroc(y, worse, p, patients, FEW).challenger
    rescaled = compare_auroc(y, p, 100 * worse, patients, FEW).challenger
    assert (rescaled.estimate, rescaled.lower, rescaled.upper) == (single.estimate, single.lower, single.upper)


def test_bounds_further_out_are_normal_with_the_standard_error_and_never_closer():
    found = Measurement(0.0, -1.8, 2.1, 1.0)
    assert found.at(0.025) == Interval(0.0, pytest.approx(-1.95996, abs=1e-5), 2.1)
    assert found.at(0.00135) == Interval(0.0, pytest.approx(-3, abs=1e-3), pytest.approx(3, abs=1e-3))
    assert found.at(0.05) == Interval(0.0, -1.8, 2.1)
    assert Measurement(0.5, 0.4, 0.6, 0.1).at(0.00135).upper == pytest.approx(0.8, abs=1e-4)


def test_the_standard_error_is_the_spread_of_the_resamples():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.55, 0.2, 4_000), rng.normal(0.5, 0.2, 4_000)
    y = np.arange(4_000) < 2_000
    score = np.where(y, a, b)
    found = compare_auroc(y, score, score, np.arange(4_000), BootstrapParams(replicates=400)).challenger
    # Hanley and McNeil, Radiology 1982;143:29
    A, m = found.estimate, 2_000
    q1, q2 = A / (2 - A), 2 * A**2 / (1 + A)
    expected = np.sqrt((A * (1 - A) + (m - 1) * (q1 - A**2 + q2 - A**2)) / m**2)
    assert found.error == pytest.approx(expected, rel=0.12)
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * found.error, rel=0.15)


@pytest.mark.parametrize(
    ("y", "p", "patients", "says"),
    [
        ([1, 1], [0.1, 0.2], [1, 2], "2 of 2 encounters have the outcome; metrics need some with and some without"),
        ([0, 0], [0.1, 0.2], [1, 2], "0 of 2 encounters have the outcome; metrics need some with and some without"),
        ([], [], [], "0 of 0 encounters have the outcome; metrics need some with and some without"),
        ([0, 1, 0], [0.1, np.nan, 0.2], [1, 2, 3], "1 of 3 scores are not finite numbers"),
        ([0, 1], [0.1, np.nan], [1, 2], "1 of 2 scores are not finite numbers"),
        ([0, 1], [0.1, np.inf], [1, 2], "1 of 2 scores are not finite numbers"),
        ([[0, 1]], [[0.1, 0.2]], [[1, 2]], f"{SHAPES} ['(1, 2)']; one row each"),
        ([0, 1], [0.1, 1.5], [1, 2], "1 of 2 risks are outside 0 to 1; hand in probabilities, not raw scores"),
        (
            [0, 1],
            [0.0, 0.0],
            [1, 2],
            "the risks add up to 0, so observed over expected outcomes means nothing; check the model",
        ),
        ([0, np.nan], [0.1, 0.2], [1, 2], "outcomes have to be 0 or 1, none missing"),
        ([0, 2], [0.1, 0.2], [1, 2], "outcomes have to be 0 or 1, none missing"),
        ([0, 1], [0.1, 0.2, 0.3], [1, 2], f"{SHAPES} ['(2,)', '(3,)']; one row each"),
        ([0, 1], [0.1, 0.2], [1], f"{SHAPES} ['(1,)', '(2,)']; one row each"),
        ([0, 1], [0.1, 0.2], [1, np.nan], NOBODY),
        ([0, 1], [0.1, 0.2], [1, None], NOBODY),
    ],
)
def test_what_cannot_be_measured_is_an_error(y, p, patients, says):
    with pytest.raises(DataError) as error:
        evaluate(y, p, patients, 0.5, FEW)
    assert str(error.value) == says


@pytest.mark.parametrize("risks", [[-0.1, 0.5, 0.6], [0.1, 0.5, 1.1]])
def test_both_sides_of_a_comparison_have_to_be_probabilities(risks):
    fine = [0.1, 0.5, 0.6]
    for sides in ((risks, fine), (fine, risks)):
        with pytest.raises(DataError, match="1 of 3 risks are outside"):
            compare([0, 1, 0], *sides, [1, 2, 3], FEW)


def clustered(patients: int, rng: np.random.Generator):
    """Patients with one to six encounters whose outcomes and risks go together."""
    stays = rng.choice([1, 2, 6], size=patients, p=[0.6, 0.25, 0.15])
    frailty = rng.normal(0, 1, patients)
    owner = np.repeat(np.arange(patients), stays)
    y = rng.random(len(owner)) < 1 / (1 + np.exp(1.2 - 1.6 * frailty[owner]))
    return y, 0.7 * frailty[owner] + rng.normal(0, 0.4, len(owner)) + rng.normal(0, 0.8, patients)[owner], owner


@pytest.mark.slow
def test_intervals_cover_at_about_the_nominal_rate_when_patients_return():
    rng = np.random.default_rng(11)
    truth = auroc(*clustered(200_000, rng)[:2])
    params = BootstrapParams(replicates=200)
    covered = rows_only = 0
    for _ in range(200):
        y, score, owner = clustered(400, rng)
        interval = compare_auroc(y, score, score, owner, params).challenger
        covered += interval.lower <= truth <= interval.upper
        by_row = compare_auroc(y, score, score, np.arange(len(y)), params).challenger
        rows_only += by_row.lower <= truth <= by_row.upper
    assert 0.91 <= covered / 200 <= 0.98  # nominal .95, standard error .015
    assert rows_only / 200 < 0.91  # what resampling rows would have claimed
