"""ONNX Runtime's sessions: threads, the CPU, and no PyTorch."""

import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from branchynet.runtime.session import load_session


@pytest.fixture
def model():
    """y = x + x."""
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", kinds[:1], kinds[1:])
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_runs_on_the_cpu_on_the_threads_asked_for(threads, model):
    session = load_session(model, threads)
    options = session.get_session_options()
    assert options.intra_op_num_threads == threads and options.inter_op_num_threads == 1
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.run(None, {"x": np.float32([1, 2])})[0].tolist() == [2, 4]


def test_it_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from branchynet.runtime.session import load_session;"
        "load_session(sys.stdin.buffer.read(), 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"no model", capture_output=True)
    assert b"onnxruntime" in done.stderr and b"torch" not in done.stderr, "ONNX Runtime has had a look at it"
