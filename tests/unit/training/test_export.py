import numpy as np
import onnxruntime
import pytest

from health_predict.bundle.onnx import to_onnx
from health_predict.features.calibration import Calibration, log_odds
from health_predict.training.candidate import Fold, predict_proba
from health_predict.training.candidates import CANDIDATES

RNG = np.random.default_rng(5)
X = np.round(RNG.normal(size=(600, 7)), 6).astype(np.float32)
Y = RNG.random(600) < 1 / (1 + np.exp(1.5 - X[:, 0] + X[:, 1] * X[:, 2]))
FOLD = Fold(X[:400], Y[:400], X[400:], Y[400:])


@pytest.mark.parametrize("family", tuple(CANDIDATES))
def test_a_graph_gives_the_librarys_own_probabilities(family):
    candidate = CANDIDATES[family]
    model = candidate.fit(candidate.default(400), FOLD, 3, 1, lambda _step, _auroc: None)
    graph = to_onnx(family, model, X.shape[1])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [(one.name, one.type) for one in session.get_inputs()] == [("X", "tensor(float)")]
    assert [(one.name, one.type) for one in session.get_outputs()] == [("log_odds", "tensor(float)")]
    (scores,) = session.run(None, {"X": X})
    assert scores.shape == (600, 1)
    np.testing.assert_allclose(
        Calibration().apply(scores[:, 0]), Calibration().apply(log_odds(predict_proba(model, X))), rtol=0, atol=1e-6
    )
    assert to_onnx(family, model, X.shape[1]) == graph


@pytest.mark.parametrize("family", [family for family in tuple(CANDIDATES) if family != "logistic_regression"])
def test_a_value_half_way_between_two_training_values_stays_on_its_side(family):
    grid = np.round(np.arange(0.1, 0.2, 8e-6), 6)  # rates as the encoder rounds them; half-way is a rate as well
    seen = RNG.choice(grid, (600, 2))
    y = RNG.random(600) < 0.5 + 3 * (seen[:, 0] - 0.15)
    fold = Fold(
        *(part for end in (400, 600) for part in (seen[end - 400 : end].astype(np.float32), y[end - 400 : end]))
    )
    candidate = CANDIDATES[family]
    model = candidate.fit(candidate.default(400), fold, 3, 1, lambda _step, _auroc: None)
    between = np.unique((np.sort(seen, axis=0)[1:] + np.sort(seen, axis=0)[:-1]) / 2, axis=0)
    X = np.round(between, 6).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(family, model, 2), providers=["CPUExecutionProvider"])
    scores = session.run(None, {"X": X})[0][:, 0]
    np.testing.assert_allclose(
        Calibration().apply(scores), Calibration().apply(log_odds(predict_proba(model, X))), rtol=0, atol=1e-6
    )
