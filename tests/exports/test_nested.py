"""One model of several: what is deeper lies in branches, and only those that are needed are run."""

import copy
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from branchynet.exports.nested import OUTPUTS, nested
from branchynet.runtime.session import load_session
from branchynet.runtime.to_onnx import export_model


def test_the_single_model_takes_any_thresholds_and_loads_without_a_warning(
    folders, network, pixels, normalised, middling, figure_2, capfd
):
    session = onnxruntime.InferenceSession(folders["single"] / "model.onnx")
    assert capfd.readouterr() == ("", ""), "not a word of ONNX Runtime's, which writes past Python"
    for thresholds in (middling, (0.5, 2.2)):
        given = {"thresholds": np.float32(thresholds)}
        taken = [session.run(["exit"], {"image": x[None], **given})[0][0] for x in pixels[:60]]
        assert taken == (figure_2(network, normalised[:60], thresholds)[1] + 1).tolist()


def test_deeper_layers_of_the_single_model_lie_in_branches(folders):
    """What is not needed is not run: an If runs one of its branches."""

    def depth(graph):
        (inner,) = [node for node in graph.node if node.op_type == "If"] or [None]
        convs = sum(node.op_type == "Conv" for node in graph.node)
        branch = {a.name: a.g for a in inner.attribute} if inner else {}
        return [convs, *(depth(branch["else_branch"]) if inner else [])]

    # Nothing but a linear head on the input; conv 1 and the convolution of head 2; the rest.
    assert depth(onnx.load(folders["single"] / "model.onnx").graph) == [0, 2, 0]


class Step(nn.Module):
    """Adds one; the uncertainty is what it was given. All steps have the same names inside."""

    def __init__(self, forwards):
        super().__init__()
        self.forwards = forwards
        self.register_buffer("one", torch.ones(1))

    def forward(self, x):
        y = x + self.one
        outputs = (y.argmax(dim=1), x[:, 0], y[:, 1])
        return (*outputs, y) if self.forwards else outputs


class Constant(Step):
    """Is as unsure of every image, 0.5: one image is a constant for the exporter."""

    def forward(self, x):
        prediction, uncertainty, *others = super().forward(x)
        return prediction, torch.ones_like(uncertainty) / 2, *others


def test_what_does_not_depend_on_the_image_is_compared_all_the_same():
    first, last = models(2)
    names = [output.name for output in first.graph.output]
    constant = export_model(Constant(True).eval(), {"image": torch.zeros(1, 3)}, names)
    assert "uncertainty_1" in {each.name for each in constant.graph.initializer}, "the trap works"
    before = constant.SerializeToString()
    session = load_session(nested([constant, last]).SerializeToString(), 1)
    for limit, exit in ((0.5, 2), (0.6, 1)):
        found = session.run(None, {"image": np.float32([[0.25, 2, 7]]), "thresholds": np.float32([limit])})
        assert found[1] == exit and found[2] == pytest.approx(0.5 if exit == 1 else 1.25)
    assert constant.SerializeToString() == before


@cache
def models(count):
    """N of them, as nested models; not to be changed."""
    made = []
    for n in range(1, count + 1):
        names = ["prediction", "uncertainty", "confidence", *(["features"] if n < count else [])]
        source = "image" if n == 1 else f"features_{n - 1}"
        made.append(
            export_model(
                Step(n < count).eval(), {source: torch.zeros(1, 3)}, [f"{name}_{n}" for name in names]
            )
        )
    return made


@pytest.mark.parametrize("count", [1, 2, 3])
def test_models_of_equal_names_are_kept_apart(count):
    """The uncertainty at exit n is that of the image, plus n (0-based)."""
    model = nested(models(count))
    assert [each.name for each in model.graph.output] == list(OUTPUTS)
    session = load_session(model.SerializeToString(), 1)
    x = np.float32([[0.25, 2, 7]])
    for exit in range(count):
        limits = np.float32([-10 if n < exit else 10 for n in range(count - 1)])
        prediction, taken, uncertainty, confidence = session.run(
            list(OUTPUTS), {"image": x, "thresholds": limits}
        )
        assert (prediction[0], taken[0]) == (2, exit + 1)
        assert uncertainty[0] == 0.25 + exit and confidence[0] == 3 + exit


def test_the_comparison_is_strict_and_in_float32():
    session = load_session(nested(models(2)).SerializeToString(), 1)
    limit = np.float32(0.1)
    for value, exit in ((limit, 2), (np.nextafter(limit, np.float32(0)), 1)):
        given = {"image": np.float32([[value, 0, 0]]), "thresholds": limit[None]}
        assert session.run(["exit"], given)[0].tolist() == [exit]


def test_what_is_made_is_checked():
    broken = copy.deepcopy(models(2))
    for node in broken[0].graph.node:
        node.output[:] = ["elsewhere" if name == "features_1" else name for name in node.output]
    with pytest.raises(onnx.checker.ValidationError):
        nested(broken)


def test_its_outputs_have_types_and_one_row():
    model = nested(models(2))
    kinds = [each.type.tensor_type.elem_type for each in model.graph.output]
    assert kinds == [TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    assert helper.printable_value_info(model.graph.input[1]).startswith("%thresholds[FLOAT, 1]")
