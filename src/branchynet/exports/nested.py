"""One ONNX model of several: each exit is an `If`, and what is deeper lies in its else-branch.

Shapes: C channels, H, W, N exits.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

OUTPUTS = {
    "prediction": TensorProto.INT64,
    "exit": TensorProto.INT64,
    "uncertainty": TensorProto.FLOAT,
    "confidence": TensorProto.FLOAT,
}


def nested(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """A model for one image that leaves at the first exit that is sure enough.

    Inputs: `image` as the first model has it, and `thresholds`, (N-1,) float32. (They have no default: ONNX Runtime
    warns of an input that has one.) Outputs, (1,) each: `prediction` int64, `exit` int64 (1 … N), `uncertainty`
    and `confidence` float32.

    Args:
        models: N, for batch 1, shallow to deep: from `image` or `features_<n-1>` to `prediction_<n>`,
            `uncertainty_<n>`, `confidence_<n>` and, but for the last one, `features_<n>`. One may also take
            `answer_<n-1>` and `state_<n-1>`, which the one before then gives.
    """
    # Names have to be unique over all branches, but for those that a branch takes from outside.
    graphs = [
        compose.add_prefix(_computing(model), f"exit_{n}/", rename_inputs=False, rename_outputs=False).graph
        for n, model in enumerate(models, start=1)
    ]
    nodes, initializers = _from_exit(graphs, 1)
    graph = helper.make_graph(
        [*nodes, *_copies("_from_1", "")],
        "early_exit",
        [
            graphs[0].input[0],
            helper.make_tensor_value_info("thresholds", TensorProto.FLOAT, [len(models) - 1]),
        ],
        _outputs(""),
        initializers,
    )
    opsets = {opset.domain: opset.version for model in models for opset in model.opset_import}
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=models[0].ir_version,
        producer_name="branchynet",
    )
    onnx.checker.check_model(made)
    return made


def _computing(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nodes that give all of its outputs.

    An output that does not depend on the image, such as how long exits have agreed at exit 1, is a constant of that
    name. A branch may have nodes' outputs alone.
    """
    constants = {each.name for each in model.graph.initializer} & {each.name for each in model.graph.output}
    if not constants:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in constants:
            node = helper.make_node("Identity", [f"{tensor.name}_constant"], [tensor.name])
            made.graph.node.insert(0, node)
            tensor.name += "_constant"
    # What else is told of these names would get the prefix that outputs do not get.
    told = [each for each in made.graph.value_info if each.name not in constants]
    del made.graph.value_info[:]
    made.graph.value_info.extend(told)
    return made


def _from_exit(
    graphs: Sequence[onnx.GraphProto], n: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from segment n to the end, giving `<output>_from_<n>`."""
    graph = graphs[n - 1]
    number = numpy_helper.from_array(np.array([n], np.int64), f"exit_{n}")
    nodes, initializers = list(graph.node), [*graph.initializer, number]
    if n == len(graphs):
        return [*nodes, *_copies(f"_{n}", f"_from_{n}")], initializers
    place = numpy_helper.from_array(np.array(n - 1, np.int64), f"place_{n}")
    nodes.append(helper.make_node("Gather", ["thresholds", f"place_{n}"], [f"threshold_{n}"]))
    nodes.append(helper.make_node("Less", [f"uncertainty_{n}", f"threshold_{n}"], [f"sure_{n}"]))
    deeper, constants = _from_exit(graphs, n + 1)
    # A branch has outputs of its own, even where it only hands on what lies outside of it.
    then = helper.make_graph(_copies(f"_{n}", f"_at_{n}"), f"leave_at_{n}", [], _outputs(f"_at_{n}"))
    go_on = helper.make_graph(deeper, f"go_on_at_{n}", [], _outputs(f"_from_{n + 1}"), constants)
    given = [f"{name}_from_{n}" for name in OUTPUTS]
    nodes.append(helper.make_node("If", [f"sure_{n}"], given, then_branch=then, else_branch=go_on))
    return nodes, [*initializers, place]


def _outputs(suffix: str) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(f"{name}{suffix}", kind, [1]) for name, kind in OUTPUTS.items()]


def _copies(source: str, target: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", [f"{name}{source}"], [f"{name}{target}"]) for name in OUTPUTS]
