"""ResNets for CIFAR-10 and the two B-ResNet-110s: He et al.'s numbers, and the released code's."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.attach import attach, legal_places
from branchynet.networks.resnet import BasicBlock, resnet_cifar
from branchynet.runtime.costs import count_macs

CONF = Path(__file__).parents[2] / "conf" / "model"
SHAPE = (3, 32, 32)


def branched(name):
    """(config, network) of conf/model/<name>.yaml."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    arguments = {key: value for key, value in config["trunk"].items() if key != "_target_"}
    return config, attach(resnet_cifar(**arguments), config["exits"], SHAPE, 10)


def trunk_macs(stem, blocks, sides):
    """By hand: the stem, then `blocks` blocks at each of the sides, without the classifier."""
    total = sides[0] ** 2 * 9 * 3 * 16
    channels = 16
    for width, side in zip((16, 32, 64), sides, strict=True):
        for _ in range(blocks):
            total += side**2 * 9 * (channels * width + width * width)
            channels = width
    return total + (64 if stem == "he" else 576) * 10


def heads_alone(macs):
    """MACs of each side head."""
    return tuple(alone - trunk for alone, trunk in zip(macs.static, macs.trunk_only, strict=True))[:-1]


def gain(baseline, costs, rates):
    """The baseline's cost over the mean cost at these exit rates in %."""
    return 100 * baseline / sum(rate * cost for rate, cost in zip(rates, costs, strict=True))


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_depths_and_parameters_of_he_et_als_table_6(depth, millions):
    trunk = resnet_cifar(depth)
    # The name counts layers with weights: convolutions on the main path (all there are) and the classifier.
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in trunk.modules()) == depth
    count = sum(p.numel() for p in trunk.parameters())
    assert f"{count / 1e6:.{len(millions) - 2}f}" == millions
    assert trunk(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_hes_resnet_110_counts_the_macs_worked_out_by_hand():
    config, network = branched("b_resnet110")
    assert network.places == ("stage1.0", "stage1") and config["trunk"]["stem"] == "he"
    macs = count_macs(network, SHAPE)
    assert macs.baseline == trunk_macs("he", 18, (32, 16, 8)) == pytest.approx(252.9e6, abs=5e4)
    head_1 = 32**2 * (25 * 16 * 64 + 9 * 64 * 32 + 9 * 32 * 32) + 32 * 32**2 * 10
    head_2 = 32**2 * 9 * 16 * 16 * 2 + 16 * 32**2 * 10
    assert heads_alone(macs) == (head_1, head_2) == pytest.approx((54.9e6, 4.9e6), abs=5e4)


def test_the_released_branches_count_the_macs_worked_out_by_hand():
    config, network = branched("b_resnet110_released")
    assert network.places == ("relu1", "stage1") and config["trunk"]["init"] == "original"
    macs = count_macs(network, SHAPE)
    assert macs.baseline == trunk_macs("released", 18, (30, 15, 8)) == pytest.approx(232.4e6, abs=5e4)
    head_1 = 30**2 * (25 * 16 * 64 + 9 * 64 * 32 + 9 * 32 * 32) + 28_800 * 10
    head_2 = 30**2 * 9 * 16 * 16 * 2 + 14_400 * 10
    assert heads_alone(macs) == (head_1, head_2) == pytest.approx((48.2e6, 4.3e6), abs=5e4)
    # At Table I's exit rates, heads counted and the trunk alone.
    rates = (41.5, 13.8, 44.7)
    assert gain(macs.baseline, macs.exits, rates) == pytest.approx(1.41, abs=5e-3)
    assert gain(macs.baseline, macs.trunk_only, rates) == pytest.approx(2.03, abs=5e-3)


def test_the_released_heads_layer_by_layer():
    _, network = branched("b_resnet110_released")
    first, second, _ = network.heads
    assert [type(m).__name__ for m in first] == [
        "Conv2d", "ReLU", "LocalResponseNorm", "Conv2d", "ReLU", "Conv2d", "ReLU", "Flatten", "Linear",
    ]  # fmt: skip
    assert [(m.kernel_size, m.padding) for m in first if isinstance(m, nn.Conv2d)] == [
        ((5, 5), (2, 2)), ((3, 3), (1, 1)), ((3, 3), (1, 1)),
    ]  # fmt: skip
    assert all(m.bias is not None for m in first if isinstance(m, nn.Conv2d | nn.Linear))
    assert [type(m).__name__ for m in second] == ["BasicBlock", "Flatten", "Linear"]


def test_the_released_stem_and_pooling():
    torch.manual_seed(0)
    trunk, x = resnet_cifar(8, stem="released").eval(), torch.randn(2, *SHAPE)
    assert trunk.conv1(x).shape == (2, 16, 30, 30)
    assert trunk[:-3](x).shape == (2, 64, 8, 8)
    pooled = trunk[:-1](x).view(2, 64, 3, 3)
    whole = trunk[:-3](x)
    for row in range(3):
        for column in range(3):
            window = whole[:, :, row : row + 6, column : column + 6]
            torch.testing.assert_close(pooled[:, :, row, column], window.mean((2, 3)))
    he = resnet_cifar(8).eval()
    assert he.conv1(x).shape == (2, 16, 32, 32)
    torch.testing.assert_close(he[:-1](x), he[:-3](x).mean((2, 3)))


@pytest.mark.parametrize(
    ("channels", "width", "stride", "side"), [(4, 4, 1, 7), (4, 8, 2, 7), (4, 8, 2, 8), (3, 5, 1, 6)]
)
def test_a_block_is_its_main_path_added_to_option_as_shortcut(channels, width, stride, side):
    torch.manual_seed(0)
    block, x = BasicBlock(channels, width, stride).eval(), torch.randn(2, channels, side, side)
    end = -(-side // stride)
    shortcut = torch.zeros(2, width, end, end)
    for c in range(channels):  # option A: every stride-th pixel, channels of zeros after its own
        for row in range(end):
            for column in range(end):
                shortcut[:, c, row, column] = x[:, c, row * stride, column * stride]
    main = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)
    assert torch.equal(block(x), torch.relu(main(x) + shortcut))
    assert {name.partition(".")[0] for name, _ in block.named_parameters()} == {
        "conv1",
        "bn1",
        "conv2",
        "bn2",
    }


def test_biases_before_batch_norm_would_have_no_effect_in_training():
    torch.manual_seed(0)
    block, x = BasicBlock(4, 8, 2).train(), torch.randn(3, 4, 6, 6)
    expected = block(x)
    for conv in (block.conv1, block.conv2):
        conv.bias = nn.Parameter(torch.randn(8))
    torch.testing.assert_close(block(x), expected)


def test_batch_norm_has_the_released_constants():
    norms = [m for m in resnet_cifar(20).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 19
    assert {(m.eps, m.momentum, m.affine) for m in norms} == {(2e-5, 0.1, True)}


@pytest.mark.parametrize("depth", [20, 110])
def test_each_stage_halves_the_image_and_doubles_the_channels(depth):
    trunk, blocks = resnet_cifar(depth).to("meta"), (depth - 2) // 6
    x = trunk[:3](torch.zeros(1, 3, 32, 32, device="meta"))
    for n, shape in enumerate([(16, 32, 32), (32, 16, 16), (64, 8, 8)], start=1):
        stage = trunk.get_submodule(f"stage{n}")
        assert len(stage) == blocks
        after_first = stage[0](x)
        x = stage(x)
        assert after_first.shape[1:] == x.shape[1:] == shape


def test_places_are_the_blocks_ends_and_none_lies_inside_a_block():
    trunk = resnet_cifar(8)
    assert legal_places(trunk) == [
        "input", "conv1", "bn1", "relu1", "stage1.0", "stage1", "stage2.0", "stage2", "stage3.0", "stage3",
        "pool", "flatten",
    ]  # fmt: skip
    for place in ("conv1", "bn1", "conv2", "bn2"):
        with pytest.raises(UserError, match="the next place is 'stage2'") as caught:
            attach(trunk, [{"after": f"stage2.0.{place}"}], SHAPE, 10)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 111}, ["depth=111", "6n + 2"]),
        ({"depth": 2}, ["depth=2", "6n + 2"]),
        ({"depth": 20.0}, ["depth=20.0", "above 0"]),
        ({"in_channels": 0}, ["in_channels=0", "above 0"]),
        ({"num_classes": None}, ["num_classes=None", "above 0"]),
        ({"stem": "imagenet"}, ["stem=imagenet", "he, released"]),
        ({"stem": None}, ["stem=None", "he, released"]),
    ],
)
def test_impossible_arguments_get_one_line(arguments, words):
    with pytest.raises(UserError) as caught:
        resnet_cifar(**arguments)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_the_released_stem_wants_images_of_32_pixels():
    with pytest.raises(UserError, match="model and data") as caught:
        attach(resnet_cifar(8, stem="released"), [{"after": "relu1"}], (3, 28, 28), 10)
    assert "\n" not in str(caught.value)
