"""Heads from their description: the layers, their order, and what cannot be built."""

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.heads import KINDS, ChannelsFirst, Kind, build_head
from branchynet.runtime.catalogue import ENGINES, make_engine
from branchynet.runtime.costs import count_macs
from branchynet.runtime.for_inference import for_inference
from branchynet.runtime.trace_engine import trace_engine


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_b_lenets_head_layer_by_layer():
    head = build_head(
        {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}, (5, 30, 30), 10
    )
    assert kinds(head) == ["MaxPool2d", "ReLU", "Conv2d", "MaxPool2d", "ReLU", "Flatten", "Linear"]
    assert head[-1].in_features == 640  # 10 channels of 8×8: 30 → 15 → 8


def test_norms_strides_and_hidden_layers():
    spec = {
        "after": "x", "convs": [8, 6, 4], "kernel": [5, 3, 1],
        "stride": [1, 2, 1], "norm": ["lrn", "batch", "none"],
        "pool": [3, 0, 0], "fc": [12],
    }  # fmt: skip
    head = build_head(spec, (3, 17, 17), 7)
    assert kinds(head) == [
        "Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU",
        "Flatten", "Linear", "ReLU", "Linear",
    ]  # fmt: skip
    # 17 → pool 3/2: 8 → stride 2: 4.
    assert head(torch.randn(2, 3, 17, 17)).shape == (2, 7)
    assert next(m for m in head if isinstance(m, nn.Linear)).in_features == 4 * 4 * 4
    lrn = next(m for m in head if isinstance(m, nn.LocalResponseNorm))
    assert (lrn.size, lrn.alpha, lrn.beta, lrn.k) == (3, 1.5e-4, 0.75, 2.0)


def test_pooling_before_relu_gives_the_same_numbers_as_after_it():
    head = build_head({"after": "x", "convs": [4], "pool": 2}, (2, 7, 7), 3)
    conv, pool, relu, flatten, linear = head
    x = torch.randn(5, 2, 7, 7)
    assert torch.equal(head(x), linear(flatten(pool(relu(conv(x))))))


def test_batch_norm_has_the_released_constants_wherever_it_stands():
    head = build_head({"after": "x", "before": ["batch"], "convs": [4], "norm": "batch"}, (3, 8, 8), 3)
    norms = [layer for layer in head if isinstance(layer, nn.BatchNorm2d)]
    assert [(m.num_features, m.eps, m.momentum) for m in norms] == [(3, 2e-5, 0.1), (4, 2e-5, 0.1)]


def test_residual_blocks_stand_before_the_convolutions_and_keep_the_places_width():
    torch.manual_seed(0)
    spec = {
        "after": "x",
        "before": ["pool2"],
        "blocks": 2,
        "convs": [4],
        "norm": "batch",
        "global_pool": True,
    }
    head = build_head(spec, (6, 9, 9), 3).eval()
    assert kinds(head) == [
        "MaxPool2d", "BasicBlock", "BasicBlock", "Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten",
        "Linear",
    ]  # fmt: skip
    x = torch.randn(2, 6, 5, 5)
    for block in head[1:3]:
        assert block.conv1.weight.shape == block.conv2.weight.shape == (6, 6, 3, 3)
        main = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        assert torch.equal(block(x), (x + main).relu())  # the shortcut is the identity
    assert not torch.equal(head[1].conv1.weight, head[2].conv1.weight)


def test_the_released_b_resnets_second_head():
    head = build_head({"after": "stage1", "blocks": 1}, (16, 30, 30), 10)
    assert kinds(head) == ["BasicBlock", "Flatten", "Linear"] and head[-1].in_features == 14_400


def test_a_flat_place_takes_fully_connected_layers_only():
    assert kinds(build_head({"after": "fc1"}, (84,), 10)) == ["Linear"]
    assert kinds(build_head({"after": "fc1", "before": ["relu"], "fc": [7]}, (84,), 10)) == [
        "ReLU", "Linear", "ReLU", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        {"convs": [3]},
        {"blocks": 1},
        {"global_pool": True},
        *({"before": [x]} for x in ("pool2", "pool3", "lrn", "batch")),
    ],
)
def test_layers_that_need_pixels_do_not_fit_a_flat_place(spec):
    with pytest.raises(UserError, match="flat") as caught:
        build_head({"after": "fc1", **spec}, (84,), 10)
    assert "\n" not in str(caught.value) and "fc1" in str(caught.value) and "[relu]" in str(caught.value)


# A head of one's own


def pooled(shape, num_classes):
    """On features of any shape: the mean over all but the channels."""
    return nn.Sequential(nn.Flatten(2), MeanOver(), nn.Linear(shape[0], num_classes))


class MeanOver(nn.Module):
    def forward(self, x):
        return x.mean(dim=2)


@pytest.mark.parametrize("shape", [(6, 9, 9), (5, 12)])
def test_a_head_may_be_given_by_a_function_of_shape_and_classes(shape):
    made = []

    def head(**arguments):
        made.append((arguments, pooled(**arguments)))
        return made[-1][1]

    found = build_head({"after": "x", "head": head}, shape, 7)
    assert len(made) == 1 and made[0][0] == {"shape": shape, "num_classes": 7}
    assert found is made[0][1], "the very module, not a copy"
    assert all(parameter.device.type == "cpu" for parameter in found.parameters())
    x = torch.randn(3, *shape)
    torch.testing.assert_close(found(x), found[2](x.flatten(2).mean(2)))


def test_a_head_of_ones_own_stays_in_its_mode_and_is_not_run():
    norm = nn.BatchNorm1d(8)
    head = build_head({"after": "x", "head": lambda **_: nn.Sequential(norm, nn.Linear(8, 4))}, (8,), 4)
    assert head.training and norm.num_batches_tracked == 0 and not norm.running_mean.any()


def test_no_head_of_ones_own_is_a_head_of_layers():
    assert kinds(build_head({"after": "fc1", "head": None, "fc": [7]}, (84,), 10)) == [
        "Linear",
        "ReLU",
        "Linear",
    ]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (lambda shape, num_classes: nn.Linear(8, 5), ["gives (5,)", "logits, (4,)"]),
        (lambda shape, num_classes: nn.Unflatten(1, (4, 2)), ["gives (4, 2)", "logits, (4,)"]),
        (lambda shape, num_classes: nn.Linear(9, 4), ["fit features (8,)"]),
        (lambda shape, num_classes: nn.Conv2d(8, 4, 3), ["fit features (8,)"]),
        (lambda shape, num_classes: nn.LSTM(8, 4), ["fit features (8,)", "gives tuple, not a tensor"]),
        (lambda shape, num_classes: nn.Bilinear(8, 8, 4), ["fit features (8,)", "missing"]),
        (lambda shape, num_classes: torch.randn(8, 4), ["Tensor", "torch.nn.Module"]),
        (lambda shape, num_classes: None, ["NoneType", "torch.nn.Module"]),
        (lambda shape: nn.Linear(8, 4), ["cannot be made", "num_classes"]),
        ("mlp", ["head: 'mlp'", "function of shape and num_classes"]),
    ],
)
def test_what_is_no_head_gets_one_line(head, words):
    with pytest.raises(UserError) as caught:
        build_head({"after": "fc1", "head": head}, (8,), 4)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("the exit after 'fc1' has ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("key", ["convs", "fc", "global_pool", "kernal"])
def test_layers_beside_a_head_of_ones_own_get_one_line(key):
    with pytest.raises(UserError, match=f"a head of its own and '{key}': leave one of them out") as caught:
        build_head({"after": "conv1", "head": pooled, key: []}, (8, 4, 4), 4)
    assert "\n" not in str(caught.value) and "conv1" in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (6, 5, 4, 3, 2)])
def test_features_of_another_number_of_dimensions_want_a_head_of_ones_own(shape):
    with pytest.raises(UserError, match="give it a `head` of its own") as caught:
        build_head({"after": "cubes"}, shape, 4)
    message = str(caught.value)
    assert "\n" not in message and "'cubes'" in message and str(shape) in message
    assert "maps or tokens or vectors, of 3 or 2 or 1 dimensions" in message


def test_another_kind_of_place_has_a_head_of_its_kind(monkeypatch):
    """Volumes, such as a video's."""
    got = []

    def build(spec, head, num_classes):
        got.append((spec["fc"], spec["convs"], head.shape, num_classes))
        head.add(nn.Flatten(2))
        head.add(MeanOver())
        return head.classify(spec, num_classes)

    monkeypatch.setitem(KINDS, "volumes", Kind(4, build))
    head = build_head({"after": "x", "fc": [6]}, (5, 12, 2, 2), 4)
    assert got == [([6], [], (5, 12, 2, 2), 4)]
    assert kinds(head) == ["Flatten", "MeanOver", "Linear", "ReLU", "Linear"] and head[2].in_features == 5
    assert head(torch.randn(2, 5, 12, 2, 2)).shape == (2, 4)
    with pytest.raises(UserError, match="vectors or volumes, of 3 or 2 or 1 or 4 dimensions"):
        build_head({"after": "x"}, (2, 3, 4, 5, 6), 4)


# Cheaper kinds of convolutions

CHEAP = {
    "depthwise": {"convs": [8, 6], "depthwise": [False, True], "norm": "batch", "pool": [2, 0]},
    "depthwise, bare": {"convs": [6], "depthwise": True, "kernel": 5, "stride": 2},
    "residual": {"convs": [8, 8, 8], "residual": [False, True, True], "norm": "batch", "pool": [2, 0, 2]},
    "residual, bare": {"convs": [3, 6], "residual": True, "norm": ["lrn", "none"], "pool": [2, 0]},
    "both": {"convs": [8, 8], "depthwise": True, "residual": [False, True], "norm": "batch"},
    "strided stem": {"convs": [8, 6], "kernel": [7, 3], "stride": [4, 1], "norm": "batch"},
    "patches": {"convs": [8], "kernel": 4, "stride": 4},
}


def cheap(name, side=17):
    torch.manual_seed(0)
    head = build_head({"after": "x", "global_pool": True, **CHEAP[name]}, (3, side, side), 5)
    with torch.no_grad():
        head.train()(torch.randn(64, 3, side, side))  # statistics that are not the initial ones
    return head.eval()


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_heads_give_finite_logits_and_every_weight_learns(name):
    head = cheap(name).train()
    x = torch.randn(4, 3, 17, 17)
    logits = head(x)
    assert logits.shape == (4, 5) and logits.isfinite().all() and (logits.std(dim=0) > 0).all()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_heads_are_folded_for_inference(name):
    head, x = cheap(name), torch.randn(4, 3, 17, 17)
    made = for_inference(head)
    ran = []
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda *_: ran.append(1))
    torch.testing.assert_close(made(x), head(x), rtol=1e-4, atol=1e-5)
    assert not ran


def test_a_depthwise_convolution_is_two():
    head = build_head({"after": "x", **CHEAP["depthwise"]}, (3, 17, 17), 5)
    assert kinds(head) == [
        "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d",
        "ReLU", "Flatten", "Linear",
    ]  # fmt: skip
    apart, over = head[4], head[7]
    assert (apart.groups, tuple(apart.weight.shape), apart.bias) == (8, (8, 1, 3, 3), None)
    assert (over.groups, tuple(over.weight.shape), over.bias) == (1, (6, 8, 1, 1), None)
    bare = build_head({"after": "x", **CHEAP["depthwise, bare"]}, (3, 17, 17), 5)
    assert kinds(bare) == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Flatten", "Linear"]
    assert bare[0].bias is not None and bare[0].stride == (2, 2) and bare[2].stride == (1, 1)
    assert bare[-1].in_features == 6 * 9 * 9


def test_a_residual_convolution_adds_what_went_in():
    head = cheap("residual")
    assert kinds(head)[:9] == [
        "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Residual", "ReLU", "Residual", "MaxPool2d", "ReLU",
    ]  # fmt: skip
    x, block = torch.randn(2, 8, 9, 9), head[4]
    conv, norm = block
    torch.testing.assert_close(block(x), x + norm(conv(x)), rtol=0, atol=0)
    # One for all is for those that fit: here the first, from 3 channels to 3.
    assert (
        kinds(cheap("residual, bare"))[0] == "Residual"
        and "Residual" not in kinds(cheap("residual, bare"))[1:]
    )
    both = cheap("both")[6]
    assert kinds(both) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]


def test_the_macs_of_cheap_heads_by_hand():
    def macs(name, side):
        network = BranchedNetwork([nn.Identity()], [cheap(name, side)], [])
        return count_macs(network, (3, side, side)).baseline

    # 16 → pooled 8: 9 pixels of each of the 8 channels, then all 8 to 6; 6 to 5 classes.
    assert macs("depthwise", 16) == 16**2 * 9 * 3 * 8 + 8**2 * (9 * 8 + 8 * 6) + 6 * 5
    assert macs("residual", 16) == 16**2 * 9 * 3 * 8 + 2 * 8**2 * 9 * 8 * 8 + 8 * 5
    # 32, padded by 3: 8 places for a window of 7.
    assert macs("strided stem", 32) == 8**2 * 49 * 3 * 8 + 8**2 * 9 * 8 * 6 + 6 * 5
    # 32, padded by 2: 9 places for a window of 4.
    assert macs("patches", 32) == 9**2 * 16 * 3 * 8 + 8 * 5


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_depthwise_and_residual_head_leaves_every_engine_with_the_same_numbers(name):
    head, x = cheap("both"), torch.randn(3, 3, 17, 17)
    network = BranchedNetwork([nn.Identity()], [head], []).eval()
    found, predicted = trace_engine(
        make_engine(ENGINES[name], network, Entropy(), (), (3, 17, 17)), [x.numpy()]
    )
    with torch.no_grad():
        logits = head(x)
    np.testing.assert_allclose(found[:, 0], Entropy()(logits).numpy(), rtol=1e-4, atol=1e-5)
    assert predicted[:, 0].tolist() == logits.argmax(dim=1).tolist()


def test_global_pooling_makes_the_classifier_small():
    head = build_head({"after": "x", "convs": [6], "global_pool": True}, (3, 9, 9), 4)
    assert head[-1].in_features == 6 and head(torch.randn(2, 3, 9, 9)).shape == (2, 4)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kernal": 3}, ["kernal", "kernel", "after, head"]),
        ({"convs": [8, 8], "kernel": [3]}, ["1 values of kernel", "2 convolutions"]),
        ({"convs": [0]}, ["convs", "above 0"]),
        ({"convs": 8}, ["convs", "list"]),
        ({"convs": [8], "kernel": 0}, ["kernel", "above 0"]),
        ({"convs": [8], "norm": "layer"}, ["layer", "none, batch, lrn"]),
        ({"convs": [8], "pool": 5}, ["5", "0, 2, 3"]),
        ({"before": ["gelu"]}, ["gelu", "relu, pool2, pool3"]),
        ({"before": "relu"}, ["'relu'", "list of relu, pool2, pool3"]),
        ({"before": None}, ["None", "list of relu, pool2, pool3"]),
        ({"before": 3}, ["before: 3", "list of relu, pool2, pool3"]),
        ({"before": [["relu"]]}, ["[['relu']]", "list of relu, pool2, pool3"]),
        ({"blocks": -1}, ["blocks: -1", "0 for none"]),
        ({"blocks": True}, ["blocks: True", "0 for none"]),
        ({"blocks": [1]}, ["blocks: [1]", "0 for none"]),
        ({"blocks": None}, ["blocks: None", "0 for none"]),
        ({"global_pool": "yes"}, ["'yes'", "true or false"]),
        ({"global_pool": None}, ["None", "true or false"]),
        ({"convs": [8], "pool": True}, ["True", "0, 2, 3"]),
        ({"convs": [8], "pool": 2.0}, ["pool: 2.0", "0, 2, 3"]),
        ({"convs": [8, 8], "norm": ["batch"]}, ["1 values of norm", "2 convolutions"]),
        ({"convs": [8, 8], "pool": [2, 2, 2]}, ["3 values of pool", "2 convolutions"]),
        ({"convs": [8], "stride": 1.5}, ["stride: 1.5", "above 0"]),
        ({"convs": [], "kernel": -3}, ["kernel: -3", "above 0"]),
        ({"convs": [-8]}, ["[-8]", "above 0"]),
        ({"convs": [8] * 4, "pool": 3}, ["pixel", "fewer poolings"]),
        ({"convs": [8], "depthwise": "yes"}, ["depthwise: 'yes'", "true or false"]),
        ({"convs": [8], "depthwise": 1}, ["depthwise: 1", "true or false"]),
        ({"convs": [8, 8], "depthwise": [True]}, ["1 values of depthwise", "2 convolutions"]),
        ({"convs": [8], "residual": None}, ["residual: None", "true or false"]),
        ({"convs": [8], "residual": True}, ["no convolution keeps width", "odd kernel"]),
        ({"convs": [8, 6], "residual": [False, True]}, ["convolution 2", "8 channels to 6"]),
        ({"convs": [3, 3], "residual": [True, True], "stride": [1, 2]}, ["convolution 2", "stride 2"]),
        ({"convs": [3], "residual": [True], "kernel": 4}, ["convolution 1", "kernel 4"]),
        ({"fc": [-1]}, ["fc", "above 0"]),
        ({"before": ["pool3"] * 5}, ["pixel"]),
    ],
)
def test_what_cannot_be_built_gets_one_line(spec, words):
    with pytest.raises(UserError) as caught:
        build_head({"after": "conv1", **spec}, (3, 8, 8), 10)
    message = str(caught.value)
    assert "\n" not in message and "conv1" in message
    assert all(word in message for word in words), message


def test_maps_whose_channels_come_last_are_known_by_the_images_sides():
    spec = {"after": "x", "convs": [6], "global_pool": True}
    for shape, image in (((8, 8, 24), (1, 1)), ((8, 16, 24), (32, 64)), ((7, 7, 96), (32, 32))):
        head = build_head(spec, shape, 5, image)
        assert isinstance(head[0], ChannelsFirst) and head[1].in_channels == shape[2]
        assert head(torch.randn(2, *shape)).shape == (2, 5)
    for shape in ((24, 8, 8), (8, 8, 8), (1, 1, 1), (3, 7, 8)):
        assert not isinstance(build_head(spec, shape, 5)[0], ChannelsFirst)
    with pytest.raises(UserError, match="for tokens and vectors"):
        build_head({"after": "x", "before": ["layer"]}, (4, 8, 8), 5)
