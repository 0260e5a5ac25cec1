"""Data in other files, or elsewhere in memory, are found wherever they hang in a model."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from branchynet.exports.external import has_external_data

PLAIN = numpy_helper.from_array(np.float32([1]), "w")


def elsewhere(location="secret.bin"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    if location:
        tensor.external_data.add(key="location", value=location)
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def model(tensor, where="initializer"):
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    nodes, initializers, functions = (
        [helper.make_node("Identity", ["w"], ["y"], name="allocation")],
        [tensor],
        [],
    )
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        initializers = []
    elif where == "branch":
        inner = [
            helper.make_graph(
                [helper.make_node("Identity", ["w"], [f"{name}_y"])],
                name,
                [],
                [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1])],
                [tensor],
            )
            for name in ("a", "b")
        ]
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner[0], else_branch=inner[1])]
        initializers = [numpy_helper.from_array(np.array(True), "c")]
    elif where == "function":
        constant = helper.make_node("Constant", [], ["v"], value=tensor)
        functions = [helper.make_function("d", "f", [], ["v"], [constant], [helper.make_opsetid("", 18)])]
    graph = helper.make_graph(nodes, "g", [], out, initializers)
    return helper.make_model(graph, functions=functions).SerializeToString()


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "function"])
def test_wherever_it_hangs(where):
    assert has_external_data(model(elsewhere(), where)) and not has_external_data(model(PLAIN, where))


def test_an_address_in_memory_is_elsewhere_too():
    assert has_external_data(model(elsewhere("*/_ORT_MEM_ADDR_/*")))


def test_a_name_alone_is_none():
    assert b"location" in model(PLAIN), "a node is called so"
    assert has_external_data(model(elsewhere(location="")))
