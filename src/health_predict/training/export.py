"""A trained model as ONNX: one float32 input `X`, one output `probabilities` with a column for each class."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from health_predict.params import Family
from health_predict.training.candidates import Classifier

OPSET = {"": 15, "ai.onnx.ml": 3}  # the newest that every converter writes


def to_onnx(family: Family, model: Classifier, features: int) -> bytes:
    """The model's score for a float32 matrix of `features` columns, as a serialised ONNX graph.

    Not calibrated. Scores agree with the library's own to float32 precision on float32 input; the caller checks.
    """
    graph_model = _convert(family, model, features)
    graph = graph_model.graph
    zip_maps = [node for node in graph.node if node.op_type == "ZipMap"]  # a list of dicts: slow, and of no use here
    probabilities = zip_maps[0].input[0] if zip_maps else graph.output[1].name
    for node in zip_maps:
        graph.node.remove(node)
    _rename(graph, graph.input[0].name, "X")
    _rename(graph, probabilities, "probabilities")
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]))
    graph.name = family  # the converters' own holds random digits, and one seed gives one file
    versions = sorted(graph_model.opset_import, key=lambda version: version.domain)  # in a random order till here
    del graph_model.opset_import[:]
    graph_model.opset_import.extend(versions)
    graph_model.producer_name = "health-predict"
    graph_model.doc_string = ""
    onnx.checker.check_model(graph_model)
    return bytes(graph_model.SerializeToString(deterministic=True))


def _convert(family: Family, model: Classifier, features: int) -> onnx.ModelProto:
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    inputs = [("X", FloatTensorType([None, features]))]
    if family == "catboost":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.save_model(str(path), format="onnx")
            return onnx.load(path)
    if family == "lightgbm":
        from onnxmltools import convert_lightgbm  # noqa: PLC0415

        return convert_lightgbm(_split_in_float32(model), initial_types=inputs, target_opset=OPSET[""], zipmap=False)
    if family == "xgboost":
        from onnxmltools import convert_xgboost  # noqa: PLC0415

        return convert_xgboost(model, initial_types=inputs, target_opset=OPSET[""])
    from skl2onnx import to_onnx as convert_sklearn  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType as SklearnFloatTensorType  # noqa: PLC0415

    return convert_sklearn(
        model,
        initial_types=[("X", SklearnFloatTensorType([None, features]))],
        target_opset=OPSET,
        options={"zipmap": False},
    )


def _split_in_float32(model: Classifier) -> Classifier:
    """The same booster, as far as float32 inputs can tell, with thresholds that float32 can hold: rounded down.

    The converter rounds to the nearest, and a value that is half-way between two training values changes sides.
    """
    from lightgbm import Booster  # noqa: PLC0415

    lines = model.booster_.model_to_string().splitlines()
    kept = [line for line in lines if not line.startswith("tree_sizes=")]  # in bytes, which change
    return Booster(model_str="\n".join(map(_with_lower_thresholds, kept)) + "\n")


def _with_lower_thresholds(line: str) -> str:
    name, _, values = line.partition("=")
    if name != "threshold" or not values:
        return line
    exact = np.array(values.split(), dtype=np.float64)
    nearest = exact.astype(np.float32)
    lower = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return f"{name}={' '.join(repr(float(value)) for value in lower)}"


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
