from typing import get_args

import numpy as np
import onnxruntime
import pytest

from health_predict.params import Family
from health_predict.training.candidates import CANDIDATES, Fold, predict_proba
from health_predict.training.export import to_onnx

RNG = np.random.default_rng(5)
X = np.round(RNG.normal(size=(600, 7)), 6).astype(np.float32)
Y = RNG.random(600) < 1 / (1 + np.exp(1.5 - X[:, 0] + X[:, 1] * X[:, 2]))
FOLD = Fold(X[:400], Y[:400], X[400:], Y[400:])


@pytest.mark.parametrize("family", get_args(Family))
def test_a_graph_gives_the_librarys_own_probabilities(family):
    candidate = CANDIDATES[family]
    model = candidate.fit(candidate.default(400), FOLD, 3, 1, lambda _step, _auroc: None)
    graph = to_onnx(family, model, X.shape[1])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [(one.name, one.type) for one in session.get_inputs()] == [("X", "tensor(float)")]
    assert [(one.name, one.type) for one in session.get_outputs()] == [("probabilities", "tensor(float)")]
    (proba,) = session.run(None, {"X": X})
    assert proba.shape == (600, 2)
    np.testing.assert_allclose(proba[:, 1], predict_proba(model, X), rtol=0, atol=1e-6)
    assert to_onnx(family, model, X.shape[1]) == graph
