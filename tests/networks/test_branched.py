"""What a branched network runs, and its trunk's weights."""

import copy

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.branched import BranchedNetwork, undivided
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


def gradients_of(net, x, exits, **how):
    """Of the sum of some exits' losses, by the parameters' names."""
    net.zero_grad()
    logits, _ = net.with_features(x, **how)
    sum(logits[n].square().mean() for n in exits).backward()
    return {name: torch.zeros(1).double() if p.grad is None else p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize(
    ("run", "exits", "sharing"),
    [
        (None, [0, 1, 2], (3, 2, 1)),
        ((True, False, True), [0, 2], (2, 1, 1)),
        (None, [0, 1], (2, 1, 0)),  # the last is run, and has no weight
    ],
)
def test_a_segment_gets_the_mean_of_the_gradients_and_the_heads_get_their_own(run, exits, sharing):
    net = network("conv1", "relu2").double()
    x = torch.randn(4, 1, 28, 28).double()
    alone = [gradients_of(net, x, [n]) for n in range(3)]
    found = gradients_of(net, x, exits, run=run, sharing=sharing)
    for name, gradient in found.items():
        kind, n, *_ = name.split(".")
        if kind == "heads":
            expected = alone[int(n)][name] if int(n) in exits else torch.zeros(1).double()
        else:
            behind = [alone[m][name] for m in exits if m >= int(n)]
            expected = sum(behind) / max(len(behind), 1)
        assert torch.allclose(gradient, torch.as_tensor(expected).double(), rtol=1e-9, atol=1e-15), name
    assert any(gradient.any() for gradient in found.values())
    with torch.no_grad():
        logits = net(x)
    assert all(torch.equal(a, b) for a, b in zip(logits, net.with_features(x, None, sharing)[0], strict=True))


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


def test_the_loop_with_shared_gradients_compiles_as_one_graph():
    net, x = network("conv1", "relu2"), torch.randn(2, 1, 28, 28)
    plain = gradients_of(net, x, [0, 1, 2], sharing=(3, 2, 1))
    net.with_features = torch.compile(net.with_features, backend="eager", fullgraph=True)
    compiled = gradients_of(net, x, [0, 1, 2], sharing=(3, 2, 1))
    assert all(torch.allclose(compiled[name], plain[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize("run", [(), (True,), (True, True, True)])
def test_a_wrong_number_of_flags_is_a_bug(run):
    for forward in (network("conv1"), network("conv1").with_features):
        with pytest.raises(ValueError, match="flags"):
            forward(torch.randn(1, 1, 28, 28), run)


@torch.no_grad()
@pytest.mark.parametrize("run", [None, (True, False, True), (False, True, False), (False, False, False)])
def test_features_are_what_the_heads_got(run):
    net, x = network("conv1", "relu2"), torch.randn(2, 1, 28, 28)
    got = {}
    for head in net.heads:
        head.register_forward_hook(lambda head, inputs, output: got.update({head: (inputs[0], output)}))
    logits, features = net.with_features(x, run)
    flags = [True] * 3 if run is None else run
    assert set(got) == {head for head, flag in zip(net.heads, flags, strict=True) if flag}
    passed = x
    for n, (segment, head) in enumerate(zip(net.segments, net.heads, strict=True)):
        passed = segment(passed)
        if head in got:
            assert features[n] is got[head][0] and logits[n] is got[head][1]
            assert torch.equal(features[n], passed) and torch.equal(logits[n], head(passed))
        else:
            assert features[n] is None and logits[n] is None
    assert all(a is b or torch.equal(a, b) for a, b in zip(net(x, run), logits, strict=True))


@torch.no_grad()
def test_feature_shapes_are_those_of_the_features(case):
    trunk, places, shape, classes = case
    exits = [{"after": place, "global_pool": True} for place in places]
    net = attach(trunk, exits, shape, classes).train()
    before = copy.deepcopy(net.state_dict())
    shapes = net.feature_shapes(shape)
    assert all(module.training for module in net.modules()), "it works on a copy"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    _, features = net.eval().with_features(torch.randn(3, *shape))
    assert shapes == [tuple(each.shape[1:]) for each in features]
    assert all(isinstance(size, int) for each in shapes for size in each)


def test_feature_shapes_worked_out_by_hand():
    # Sides: 28 → 30, pooled 15 → 17, pooled 9 → 11, pooled 6; then 20 · 6 · 6 = 720 → 84.
    assert network("input", "conv1", "relu2").feature_shapes((1, 28, 28)) == [
        (1, 28, 28), (5, 30, 30), (10, 9, 9), (84,),
    ]  # fmt: skip


def test_an_undivided_module_is_a_network_of_one_exit():
    module, x = lenet5(), torch.randn(2, 1, 28, 28)
    net = undivided(module)
    (logits,), (features,) = net.with_features(x)
    assert net.num_exits == 1 and net.places == ()
    assert torch.equal(logits, module(x)) and features is x
    assert torch.equal(net.trunk()(x), module(x))
    assert all(a is b for a, b in zip(net.parameters(), module.parameters(), strict=True)), (
        "shared, not copied"
    )
    assert net.feature_shapes((1, 28, 28)) == [(1, 28, 28)]


def test_parts_that_do_not_fit_are_a_bug():
    with pytest.raises(ValueError, match="do not fit"):
        BranchedNetwork([nn.Identity()], [nn.Linear(1, 1), nn.Linear(1, 1)], ["input"])


def test_with_shares_it_is_the_same_network_and_training_does_not_see_them():
    net = network("conv1", "relu2").eval()
    x = torch.randn(2, 1, 28, 28)
    made = net.with_shares([0, 0.25, 1])
    assert made.shares == (0.0, 0.25, 1.0) and net.shares is None and not made.training
    assert next(made.parameters()) is next(net.parameters()) and made.places == net.places
    assert all(torch.equal(a, b) for a, b in zip(made(x), net(x), strict=True))
    assert copy.deepcopy(made).shares == made.shares and made.with_shares(None).shares is None
    for wrong in ([0, 0.5], [0.1, 0.5, 0.5], [0, 1.5, 0]):
        with pytest.raises(ValueError, match="no shares of 3 exits"):
            net.with_shares(wrong)
