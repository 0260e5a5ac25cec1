"""Heads from their description: the layers, their order, and what cannot be built."""

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.heads import KINDS, Kind, build_head


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


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 4, 5)])
def test_features_of_another_number_of_dimensions_want_a_head_of_ones_own(shape):
    with pytest.raises(UserError, match="give it a `head` of its own") as caught:
        build_head({"after": "tokens"}, shape, 4)
    message = str(caught.value)
    assert "\n" not in message and "'tokens'" in message and str(shape) in message
    assert "maps or vectors, of 3 or 1 dimensions" in message


def test_another_kind_of_place_has_a_head_of_its_kind(monkeypatch):
    """Rows of numbers, such as a transformer's."""
    got = []

    def build(spec, head, num_classes):
        got.append((spec["fc"], spec["convs"], head.shape, num_classes))
        head.add(MeanOver())
        return head.classify(spec, num_classes)

    monkeypatch.setitem(KINDS, "rows", Kind(2, build))
    head = build_head({"after": "tokens", "fc": [6]}, (5, 12), 4)
    assert got == [([6], [], (5, 12), 4)]
    assert kinds(head) == ["MeanOver", "Linear", "ReLU", "Linear"] and head[1].in_features == 5
    assert head(torch.randn(2, 5, 12)).shape == (2, 4)
    with pytest.raises(UserError, match="maps or vectors or rows, of 3 or 1 or 2 dimensions"):
        build_head({"after": "tokens"}, (2, 3, 4, 5), 4)


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
