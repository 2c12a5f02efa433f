"""Converts trained models to ONNX with each library's own converter: an input `X`, and one classifier in the graph.

`features` is the width of `X`, `opset` the version of each operator set. `bundle/onnx.py` turns the result into the
model that is served.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from health_predict.training.candidate import Classifier

if TYPE_CHECKING:
    from onnx import ModelProto


def convert_sklearn(model: Classifier, features: int, opset: Mapping[str, int]) -> "ModelProto":
    """Any classifier of scikit-learn."""
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    inputs = [("X", FloatTensorType([None, features]))]
    return to_onnx(model, initial_types=inputs, target_opset=dict(opset), options={"zipmap": False})


def convert_xgboost(model: Classifier, features: int, opset: Mapping[str, int]) -> "ModelProto":
    """XGBoost's classifier."""
    from onnxmltools import convert_xgboost as convert  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    inputs = [("X", FloatTensorType([None, features]))]
    return convert(model, initial_types=inputs, target_opset=opset[""])


def convert_lightgbm(model: Classifier, features: int, opset: Mapping[str, int]) -> "ModelProto":
    """LightGBM's classifier."""
    from onnxmltools import convert_lightgbm as convert  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    inputs = [("X", FloatTensorType([None, features]))]
    return convert(_split_in_float32(model), initial_types=inputs, target_opset=opset[""], zipmap=False)


def convert_catboost(model: Classifier, _features: int, _opset: Mapping[str, int]) -> "ModelProto":
    """CatBoost's classifier, by CatBoost itself."""
    import onnx  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save_model(str(path), format="onnx")
        return onnx.load(path)


def _split_in_float32(model: Classifier) -> Classifier:
    """The booster with thresholds rounded down to float32: the same predictions for float32 inputs.

    The converter rounds to the nearest float32, which would move training values next to a threshold across it.
    """
    from lightgbm import Booster  # noqa: PLC0415

    lines = model.booster_.model_to_string().splitlines()
    kept = [line for line in lines if not line.startswith("tree_sizes=")]  # sizes in bytes, which change
    return Booster(model_str="\n".join(map(_with_lower_thresholds, kept)) + "\n")


def _with_lower_thresholds(line: str) -> str:
    import numpy as np  # noqa: PLC0415

    name, _, values = line.partition("=")
    if name != "threshold" or not values:
        return line
    exact = np.array(values.split(), dtype=np.float64)
    nearest = exact.astype(np.float32)
    lower = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return f"{name}={' '.join(repr(float(value)) for value in lower)}"
