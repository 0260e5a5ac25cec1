"""What a branched network runs, and its trunk's weights."""

import copy

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.lenet import lenet5


def network(*places):
    torch.manual_seed(len(places))
    return attach(lenet5(), [{"after": place} for place in places], (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("run", "heads", "segments"),
    [
        (None, [1, 1, 1], [1, 1, 1]),
        ((False, True, False), [0, 1, 0], [1, 1, 0]),
        ((False, False, True), [0, 0, 1], [1, 1, 1]),
        ((True, False, False), [1, 0, 0], [1, 0, 0]),
    ],
)
def test_only_what_is_asked_for_runs(run, heads, segments):
    net, counts = network("conv1", "relu2"), {}
    for module in [*net.heads, *net.segments]:
        module.register_forward_hook(lambda module, *_: counts.update({module: counts.get(module, 0) + 1}))
    x = torch.randn(2, 1, 28, 28)
    logits = net(x, run=run)
    assert [counts.get(head, 0) for head in net.heads] == heads
    assert [counts.get(segment, 0) for segment in net.segments] == segments
    assert [out is not None for out in logits] == [bool(count) for count in heads]
    whole = net(x)
    assert all(torch.equal(a, b) for a, b in zip(logits, whole, strict=True) if a is not None)


def test_the_trunks_weights_move_between_networks_cut_elsewhere():
    source, target = network("conv1"), network("input", "relu2")
    x = torch.randn(2, 1, 28, 28)
    assert not torch.equal(source(x)[-1], target(x)[-1])
    side = copy.deepcopy(target.heads[0].state_dict())
    target.load_trunk_state_dict(source.trunk_state_dict())
    assert torch.equal(source(x)[-1], target(x)[-1])
    assert all(torch.equal(value, side[name]) for name, value in target.heads[0].state_dict().items())


def test_another_trunks_weights_get_one_line():
    other = attach(lenet5(num_classes=5), [{"after": "conv1"}], (1, 28, 28), 5)
    with pytest.raises(UserError, match="another trunk") as caught:
        network("conv1").load_trunk_state_dict(other.trunk_state_dict())
    assert "\n" not in str(caught.value) and "fc2" in str(caught.value)


def test_state_dict_round_trip_and_deep_copy():
    first, second = network("conv1"), network("conv1", "conv2")
    x = torch.randn(2, 1, 28, 28)
    clone = copy.deepcopy(first)
    assert all(torch.equal(a, b) for a, b in zip(first(x), clone(x), strict=True))
    with torch.no_grad():
        clone.trunk().conv1.weight.zero_()
    assert not torch.equal(first(x)[0], clone(x)[0])  # the copy shares nothing …
    assert not first.trunk().conv1.weight.eq(0).all()  # … and its trunk() shares its own parameters
    again = network("conv1")
    with torch.no_grad():
        again.heads[0][-1].bias.add_(1)
    again.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first(x), again(x), strict=True))
    assert first.num_exits == 2 and second.num_exits == 3


def test_bf16_and_channels_last_give_close_logits():
    net = network("conv1", "relu2").eval()
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        plain = net(x)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
    for a, b, c in zip(plain, last, half, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a, c.float(), atol=0.1, rtol=0.1)


def test_trunk_leaves_the_mode_of_the_layers_alone():
    net = network("conv1").train()
    net.segments[0].eval()
    net.trunk()
    assert not net.segments[0].conv1.training and net.heads[-1].fc2.training


@pytest.mark.parametrize("run", [None, (True, False, True), (False, True, False)])
def test_the_loop_compiles_as_one_graph(run):
    net, x = network("conv1", "relu2"), torch.randn(2, 1, 28, 28)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for ours, plain in zip(compiled(x, run), net(x, run), strict=True):
        assert (ours is None) == (plain is None)
        assert ours is None or torch.equal(ours, plain)


@pytest.mark.parametrize("run", [(), (True,), (True, True, True)])
def test_a_wrong_number_of_flags_is_a_bug(run):
    with pytest.raises(ValueError, match="flags"):
        network("conv1")(torch.randn(1, 1, 28, 28), run)


def test_parts_that_do_not_fit_are_a_bug():
    with pytest.raises(ValueError, match="do not fit"):
        BranchedNetwork([nn.Identity()], [nn.Linear(1, 1), nn.Linear(1, 1)], ["input"])
