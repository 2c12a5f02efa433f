"""A trained model as ONNX: one float32 input `X`, one output `log_odds` with a column for the outcome.

The converters write classifiers, with labels and probabilities of both classes and what renames them. A service that
scores one encounter at a time would spend half of its time on that: here it is one regressor, of the log-odds.
"""

from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper

from health_predict.features.calibration import EDGE
from health_predict.params import Family
from health_predict.training.candidate import Classifier
from health_predict.training.candidates import CANDIDATES

OPSET = {"": 15, "ai.onnx.ml": 3}  # the newest that every converter writes
INPUT, OUTPUT = "X", "log_odds"


def to_onnx(family: Family, model: Classifier, features: int) -> bytes:
    """The model's log-odds for a float32 matrix of `features` columns, as a serialised ONNX graph.

    Not calibrated. Scores agree with the library's own to float32 precision on float32 input; the caller checks.
    """
    converted = CANDIDATES[family].convert(model, features, OPSET)
    (classifier,) = (n for n in converted.graph.node if n.op_type.endswith("Classifier"))
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in classifier.attribute}
    nodes, constants = _regressor(classifier.op_type, attributes), list[TensorProto]()
    if attributes["post_transform"] != b"LOGISTIC":  # a forest's sum is the probability itself
        nodes[0].output[0] = "p"
        nodes += _log_odds_of("p")
        constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in _EDGES.items()]
    graph = helper.make_graph(
        nodes,
        family,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
        constants,
    )
    versions = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
    made = helper.make_model(graph, opset_imports=versions, producer_name="health-predict", ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


_EDGES = {"lowest": EDGE, "highest": 1 - EDGE, "one": 1.0}


def _regressor(kind: str, attributes: dict[str, Any]) -> list[NodeProto]:
    if kind == "LinearClassifier":
        kept = {name: attributes[name][len(attributes[name]) // 2 :] for name in ("coefficients", "intercepts")}
        return [helper.make_node("LinearRegressor", [INPUT], [OUTPUT], domain="ai.onnx.ml", targets=1, **kept)]
    # Of two classes the second is the outcome; where there is one, it is what makes the outcome likelier.
    outcome = max(attributes["class_ids"])
    weights = [position for position, found in enumerate(attributes["class_ids"]) if found == outcome]
    leaves = {
        f"target_{name}": [attributes[f"class_{name}"][position] for position in weights]
        for name in ("treeids", "nodeids", "weights")
    }
    trees = {name: value for name, value in attributes.items() if name.startswith("nodes_")}
    base = {"base_values": attributes["base_values"][-1:]} if "base_values" in attributes else {}
    return [
        helper.make_node(
            "TreeEnsembleRegressor", [INPUT], [OUTPUT], domain="ai.onnx.ml", n_targets=1,
            target_ids=[0] * len(weights), **leaves, **trees, **base,
        )
    ]  # fmt: skip


def _log_odds_of(p: str) -> list[NodeProto]:
    return [
        helper.make_node("Clip", [p, "lowest", "highest"], ["inside"]),
        helper.make_node("Sub", ["one", "inside"], ["q"]),
        helper.make_node("Div", ["inside", "q"], ["odds"]),
        helper.make_node("Log", ["odds"], [OUTPUT]),
    ]
