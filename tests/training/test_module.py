"""The LightningModule on random images: what is trained and what is not, what is logged, what objectives get."""

import copy
import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from branchynet.data.augment import Augmentation
from branchynet.errors import UserError
from branchynet.networks.weights import load_network
from branchynet.training import distilled
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint, exit_losses, side_weights, weighted
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import fit
from branchynet.training.teacher import Teacher

TRAINER = {"accelerator": "cpu", "devices": 1}


def same(first, second):
    """Whether two modules have the same weights, bit for bit."""
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_head_of_weight_zero_is_left_as_it_was_and_changes_nothing(data, tmp_path, network, module):
    net, other = network(), network()
    before = [parameter.clone() for parameter in net.heads[0].parameters()]
    with torch.no_grad():
        for parameter in other.heads[0].parameters():
            parameter.mul_(-3)
    for name, trained in (("a", net), ("b", other)):
        fit(module(trained, (0.0, 1.0)), data, 2, tmp_path / name, TRAINER)
    assert all(torch.equal(a, b) for a, b in zip(before, net.heads[0].parameters(), strict=True))
    assert same(net.segments, other.segments) and same(net.heads[1], other.heads[1])
    assert not same(net.segments, network().segments)


class Calls(Callback):
    """How often each segment runs in training and in validation."""

    def __init__(self):
        self.training, self.validation = [0, 0, 0], [0, 0, 0]

    def on_fit_start(self, trainer, pl_module):
        for n, segment in enumerate(pl_module.network.segments):
            segment.register_forward_hook(partial(self.count, pl_module, n))

    def count(self, pl_module, n, *_):
        (self.training if pl_module.training else self.validation)[n] += 1


def test_a_frozen_trunk_stays_bit_for_bit_and_what_comes_after_the_trained_heads_is_not_run(
    data, tmp_path, with_norms, module
):
    net, calls = with_norms(), Calls()
    fit(module(net, (0.0, 0.0, 1.0), stage="baseline"), data, 2, tmp_path / "baseline", TRAINER)
    baseline = copy.deepcopy(net)
    assert baseline.segments[2][1].num_batches_tracked > 0
    joint = BranchyClassifier(
        net, Joint(side_weights((1.0, 0.0, 0.3))), partial(torch.optim.AdamW, lr=0.01), freeze_trunk=True
    )
    fit(joint, data, 3, tmp_path / "joint", TRAINER, callbacks=[calls])
    trunk = baseline.trunk_state_dict()
    assert trunk.keys() == net.trunk_state_dict().keys()
    assert all(torch.equal(value, trunk[name]) for name, value in net.trunk_state_dict().items())
    assert not same(net.heads[0], baseline.heads[0]) and same(net.heads[1], baseline.heads[1])
    assert net.heads[0][0].num_batches_tracked > 0
    assert calls.training == [3 * 4, 0, 0] and calls.validation == [3, 0, 0]


def test_a_last_exit_that_teaches_costs_a_frozen_trunk_one_pass_without_a_graph(data, tmp_path, with_norms):
    net, calls, said = with_norms(), Calls(), []

    class Seen(distilled.Distilled):
        def __call__(self, logits, *others):
            said.append((logits[-1].requires_grad, logits[1]))
            return super().__call__(logits, *others)

    net.heads[-1].register_forward_hook(lambda *_: assert_frozen(net))
    joint = BranchyClassifier(
        net, Seen(side_weights((1.0, 0.0, 1.0))), partial(torch.optim.AdamW, lr=0.01), freeze_trunk=True
    )
    fit(joint, data, 3, tmp_path, TRAINER, callbacks=[calls])
    assert calls.training == [3 * 4] * 3 and calls.validation == [3] * 3
    assert len(said) == 15 and set(said) == {(False, None)}


def assert_frozen(net):
    assert not any(part.training for part in [*net.segments, net.heads[-1]])


def test_an_objective_and_a_teacher_go_together(network, data):
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    with pytest.raises(ValueError, match="has a teacher"):
        BranchyClassifier(network(), distilled.Distilled((1.0, 1.0), teacher="a path"), optimizer)
    with pytest.raises(ValueError, match="has a teacher"):
        BranchyClassifier(network(), Joint((1.0, 1.0)), optimizer, teacher=Teacher(network().heads[0], {}))


def test_a_frozen_trunk_gives_the_heads_the_features_of_eval_mode(data, tmp_path, with_norms):
    """The heads are trained to the very weights that a head alone gets from features computed once."""
    data.augmentation = Augmentation()
    net = with_norms()
    x, _ = next(data.batches("train", 10_000))
    with torch.no_grad():
        expected = net.eval().segments[0](x[:8])
    seen = []

    class See(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():
                seen.append(pl_module.network.segments[0](x[:8]))

    joint = BranchyClassifier(
        net, Joint(side_weights((1.0, 1.0, 1.0))), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True
    )
    fit(joint, data, 2, tmp_path, TRAINER, callbacks=[See()])
    assert len(seen) == 8 and all(torch.equal(features, expected) for features in seen)


def test_a_frozen_trunk_with_nothing_beside_it_to_train_is_refused(network):
    with pytest.raises(UserError, match="freeze=trunk"):
        side_weights((0.0, 1.0))
    for weights in ((0.0, 1.0), (1.0, 0.3)):
        with pytest.raises(ValueError, match="with a frozen trunk the last exit has nothing to train"):
            BranchyClassifier(network(), Joint(weights), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True)


def test_channels_last_trains_the_same_and_leaves_a_plain_network(data, tmp_path, with_norms):
    nets, formats = {}, []

    class See(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            weight = pl_module.network.segments[1][0].weight
            formats.append(weight.is_contiguous(memory_format=torch.channels_last))

    for channels_last in (False, True):
        nets[channels_last] = net = with_norms(dropout=0.0)  # whose draws follow the memory's order
        net.heads[1] = nn.Sequential(nn.Conv2d(4, 8, 1), *net.heads[1])  # a 1×1 kernel: of both layouts
        net.heads[1][2] = nn.Linear(288, 3)
        classifier = BranchyClassifier(
            net, Joint((1.0, 1.0, 1.0)), partial(torch.optim.SGD, lr=0.01), channels_last=channels_last
        )
        fit(classifier, data, 1, tmp_path / str(channels_last), TRAINER, callbacks=[See()])
    assert formats == [False] * 4 + [True] * 4
    for plain, other in zip(*(net.state_dict().values() for net in nets.values()), strict=True):
        assert plain.stride() == other.stride()
        assert torch.allclose(plain, other, atol=1e-5)


def test_full_batches_are_compiled_and_no_others(data, tmp_path, monkeypatch, network):
    sizes = []

    def compiled(forward, **options):
        def call(x, **how):
            sizes.append(len(x))
            return forward(x, **how)

        return call

    monkeypatch.setattr("torch.compile", compiled)
    classifier = BranchyClassifier(
        network(), Joint((1.0, 1.0)), partial(torch.optim.SGD, lr=0.01), compile=True
    )
    data.batch_size = 48  # of 100 images
    fit(classifier, data, 2, tmp_path, TRAINER)
    assert sizes == [48, 48, 48, 48]


def test_logged_numbers_are_those_of_a_slow_loop_and_the_best_epoch_is_kept(
    data, tmp_path, network, module, metrics
):
    net, metrics = network(), metrics()
    fit(module(net, (1.0, 0.3)), data, 5, tmp_path, TRAINER, callbacks=[metrics])
    best = max(metrics.epochs, key=lambda epoch: epoch["joint/val_accuracy"])

    x, y = next(data.batches("val", 10_000))
    with torch.no_grad():
        logits = net.eval()(x)

    def pairs(out):
        return zip(out, y, strict=True)

    right = [sum(int(row.argmax()) == int(label) for row, label in pairs(out)) / len(y) for out in logits]
    losses = [
        sum(-math.log(float(row.softmax(0)[label])) for row, label in pairs(out)) / len(y) for out in logits
    ]
    for n in (0, 1):
        assert best[f"joint/val_accuracy_exit_{n + 1}"] == pytest.approx(right[n])
        assert best[f"joint/val_loss_exit_{n + 1}"] == pytest.approx(losses[n], rel=1e-4)
    assert best["joint/val_accuracy"] == pytest.approx((right[0] + 0.3 * right[1]) / 1.3)
    assert best["joint/val_loss"] == pytest.approx(losses[0] + 0.3 * losses[1], rel=1e-4)


def test_forward_gives_the_networks_logits(network, module):
    net = network()
    classifier, x = module(net).eval(), torch.randn(4, 1, 6, 6)
    assert all(torch.equal(a, b) for a, b in zip(classifier(x), net(x), strict=True))


# Other objectives


class Needs:
    """Exits of a number."""

    of_features = False

    def __init__(self, weights, needs):
        self.weights, self.needs = weights, needs


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_an_objective_for_another_number_of_exits_is_a_bug(weights, network):
    right = (1.0, 1.0)
    for objective in (Joint(weights), Needs(right, weights), Needs(weights, right)):
        with pytest.raises(ValueError, match="the objective is not for 2 exits"):
            BranchyClassifier(network(), objective, partial(torch.optim.SGD, lr=0.1))


class Distilled:
    """Exit 1 learns the labels and what the last exit says, its teacher, which is not trained."""

    of_features = False
    weights, needs = (1.0, 0.0, 0.0), (True, False, True)

    def __init__(self):
        self.seen = []

    def __call__(self, logits, target, features=None):
        assert features is None
        self.seen.append([None if out is None else out.detach() for out in logits])
        total, losses = weighted(exit_losses(logits, target), self.weights)
        # Not detached: it is not the objective's business that the teacher stays as it is.
        return total + F.cross_entropy(logits[0], logits[-1].softmax(dim=1)), losses


class Watch(Callback):
    """What runs in training and in validation, in which mode; what gets a gradient and is optimised."""

    def __init__(self):
        self.runs = {True: {}, False: {}}  # in training, in validation: how often each part runs
        self.training, self.teacher_input = {}, []

    def on_fit_start(self, trainer, pl_module):
        net = pl_module.network
        parts = {f"segments.{n}": part for n, part in enumerate(net.segments)}
        parts |= {f"heads.{n}": part for n, part in enumerate(net.heads)}
        for name, part in parts.items():
            part.register_forward_hook(partial(self.count, pl_module, name))
        self.parts = parts

    def count(self, pl_module, name, part, inputs, output):
        runs = self.runs[pl_module.training]
        runs[name] = runs.get(name, 0) + 1
        if pl_module.training:
            self.training.setdefault(name, set()).update(module.training for module in part.modules())
            if name == "segments.1":
                self.teacher_input.append(inputs[0].detach().clone())

    def on_after_backward(self, trainer, pl_module):
        named = pl_module.network.named_parameters()
        self.reached = {name for name, parameter in named if parameter.grad is not None}
        groups = trainer.optimizers[0].param_groups
        optimised = {id(parameter) for group in groups for parameter in group["params"]}
        named = pl_module.network.named_parameters()
        self.optimised = {name for name, parameter in named if id(parameter) in optimised}
        assert len(self.optimised) == len(optimised), "the optimiser has what is no part of the network"


@pytest.mark.parametrize("freeze_trunk", [False, True])
def test_a_teacher_of_weight_zero_is_run_in_eval_mode_and_learns_nothing(
    freeze_trunk, data, tmp_path, with_norms
):
    net, objective, watch = with_norms(), Distilled(), Watch()
    with torch.no_grad():  # as if trained: its norms change what they see, and its dropout would be noticed
        for norm in (net.segments[1][1], net.segments[2][1]):
            norm.running_mean.fill_(0.1)
            norm.running_var.fill_(2.0)
    before = copy.deepcopy(net)
    classifier = BranchyClassifier(
        net, objective, partial(torch.optim.SGD, lr=0.1, weight_decay=0.1), freeze_trunk=freeze_trunk
    )
    fit(classifier, data, 3, tmp_path, TRAINER, callbacks=[watch])

    trained = {"heads.0"} if freeze_trunk else {"segments.0", "heads.0"}
    run = {"segments.0", "segments.1", "segments.2", "heads.0", "heads.2"}
    assert watch.runs == {True: dict.fromkeys(run, 3 * 4), False: dict.fromkeys(run, 3)}
    assert watch.training == {name: {name in trained} for name in run}
    expected = {
        f"{name}.{own}" for name in trained for own, _ in before.get_submodule(name).named_parameters()
    }
    assert watch.reached == watch.optimised == expected
    for name in watch.parts:
        assert same(net.get_submodule(name), before.get_submodule(name)) == (name not in trained), name

    teacher = nn.Sequential(before.segments[1], before.segments[2], before.heads[2]).eval()
    in_training = [seen for seen in objective.seen if len(seen[0]) != 20]
    assert len(in_training) == len(watch.teacher_input) == 12
    for seen, features in zip(in_training, watch.teacher_input, strict=True):
        assert seen[1] is None
        with torch.no_grad():
            assert torch.equal(seen[2], teacher(features))


@pytest.mark.parametrize(
    ("weights", "freeze_trunk", "trained"),
    [
        ((1.0, 1.0, 1.0), False, {"segments.0", "segments.1", "segments.2", "heads.0", "heads.1", "heads.2"}),
        ((1.0, 0.0, 1.0), False, {"segments.0", "segments.1", "segments.2", "heads.0", "heads.2"}),
        ((0.0, 1.0, 0.0), False, {"segments.0", "segments.1", "heads.1"}),
        ((1.0, 0.0, 0.0), True, {"heads.0"}),
    ],
)
def test_what_is_not_trained_stays_in_eval_mode(weights, freeze_trunk, trained, with_norms):
    net = with_norms()
    classifier = BranchyClassifier(
        net, Joint(weights), partial(torch.optim.SGD, lr=0.1), freeze_trunk=freeze_trunk
    )

    def in_training():
        parts = {f"segments.{n}": part for n, part in enumerate(net.segments)}
        parts |= {f"heads.{n}": part for n, part in enumerate(net.heads)}
        modes = {name: {module.training for module in part.modules()} for name, part in parts.items()}
        assert all(len(mode) == 1 for mode in modes.values())
        return {name for name, mode in modes.items() if mode == {True}}

    assert in_training() == trained
    assert classifier.eval() is classifier and in_training() == set()
    assert classifier.train() is classifier and in_training() == trained
    needed = {name for name in trained for parameter in net.get_submodule(name).parameters()}
    assert needed == {
        ".".join(name.split(".")[:2]) for name, parameter in net.named_parameters() if parameter.requires_grad
    }


def test_only_exits_that_are_trained_are_logged(data, tmp_path, with_norms, metrics):
    seen = metrics()
    classifier = BranchyClassifier(with_norms(), Distilled(), partial(torch.optim.SGD, lr=0.1))
    logged = fit(classifier, data, 2, tmp_path, TRAINER, callbacks=[seen])
    # An epoch's own training numbers are logged after this callback.
    names = {
        f"{split}_{what}{exit_}"
        for split in ("train", "val")
        for what in ("loss", "accuracy")
        for exit_ in ("", "_exit_1")
    }
    to_loggers = {f"joint/{name}" for name in names} | {"learning_rate/joint"}
    assert set(seen.epochs[1]) == to_loggers | names  # without the stage for callbacks
    assert set(logged) == {*to_loggers, "step"}
    assert logged["joint/val_loss"] == seen.epochs[1]["joint/val_loss"]
    assert logged["step"] == 2 * len(data.train_dataloader()) - 1
    assert seen.epochs[0]["joint/val_loss"] == pytest.approx(seen.epochs[0]["joint/val_loss_exit_1"])


def test_the_learning_rate_is_logged_as_the_schedule_has_it(data, tmp_path, with_norms, metrics):
    seen = metrics()
    schedule = partial(build_schedule, {"name": "multi_step", "milestones": [0.5], "factor": 0.1})
    optimizer = partial(torch.optim.SGD, lr=0.1)
    classifier = BranchyClassifier(with_norms(), Joint((1.0, 1.0, 1.0)), optimizer, schedule)
    logged = fit(classifier, data, 4, tmp_path, TRAINER, callbacks=[seen])
    # Each is seen an epoch later; after half of the steps it is a tenth.
    rates = [epoch["learning_rate/joint"] for epoch in seen.epochs[1:]] + [logged["learning_rate/joint"]]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.01])


class Small:
    """The joint loss, and the features of exit 1 are to be small."""

    of_features = True
    weights, needs = (1.0, 0.0, 0.5), (True, False, True)

    def __init__(self):
        self.features = []

    def __call__(self, logits, target, features=None):
        self.features.append(features)
        total, losses = weighted(exit_losses(logits, target), self.weights)
        return total + features[0].square().mean(), losses


def test_an_objective_of_features_gets_those_that_the_heads_got(data, tmp_path, with_norms):
    net, objective, got = with_norms(), Small(), []

    class See(Callback):
        def on_fit_start(self, trainer, pl_module):
            for n, head in enumerate(net.heads):
                head.register_forward_pre_hook(lambda head, inputs, n=n: got.append((n, inputs[0])))

    classifier = BranchyClassifier(net, objective, partial(torch.optim.SGD, lr=0.01))
    fit(classifier, data, 1, tmp_path, TRAINER, callbacks=[See()])
    assert len(objective.features) == 5  # four batches, and one of validation
    assert [n for n, _ in got] == [0, 2] * 5
    for k, features in enumerate(objective.features):
        assert features[0] is got[2 * k][1] and features[1] is None and features[2] is got[2 * k + 1][1]


def test_one_step_with_an_objective_of_features_is_the_step_worked_out_by_hand(data, tmp_path, with_norms):
    data.batch_size, seen = 100, []
    net, slow = with_norms(dropout=0.0), with_norms(dropout=0.0).train()

    class See(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch)

    fit(
        BranchyClassifier(net, Small(), partial(torch.optim.SGD, lr=0.1)),
        data,
        1,
        tmp_path,
        TRAINER,
        callbacks=[See()],
    )
    ((x, target),) = seen
    first = slow.segments[0](x)
    last = slow.heads[2](slow.segments[2](slow.segments[1](first)))
    loss = (first**2).mean()
    for weight, logits in ((1.0, slow.heads[0](first)), (0.5, last)):
        p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        loss = loss - weight * p[torch.arange(100), target].log().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in slow.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


class Counting(nn.Module):
    """The joint loss, pulled towards a teacher of its own; counts how often it is asked."""

    of_features = False
    weights, needs = (1.0, 1.0), (True, True)

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.teacher = nn.Linear(3, 3).requires_grad_(False)
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))

    def forward(self, logits, target, features=None):
        self.asked += 1
        total, losses = weighted(exit_losses(logits, target), self.weights)
        return total + (logits[0] - self.teacher(logits[1])).square().mean(), losses


def test_an_objective_that_is_a_module_is_saved_and_the_network_is_still_loaded_from_it(
    data, tmp_path, network
):
    net, objective = network(), Counting()
    teacher = copy.deepcopy(objective.teacher)
    fit(BranchyClassifier(net, objective, partial(torch.optim.SGD, lr=0.1)), data, 2, tmp_path, TRAINER)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert state["objective.asked"] == 2 * (4 + 1) == objective.asked
    assert torch.equal(state["objective.teacher.weight"], teacher.weight)
    for name in ("best", "last"):
        other = network(seed=1)
        load_network(other, tmp_path / f"{name}.ckpt")
        saved = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(value, saved[f"network.{key}"]) for key, value in other.state_dict().items())
    load_network(other, tmp_path / "best.ckpt")
    assert same(other, net) and same(teacher, objective.teacher)
    assert not same(net, network())


def test_an_objective_that_is_a_module_resumes_with_its_state(data, tmp_path, network):
    def run(name, epochs):
        net, objective = network(), Counting()
        fit(
            BranchyClassifier(net, objective, partial(torch.optim.SGD, lr=0.1)),
            data,
            epochs,
            tmp_path / name,
            TRAINER,
        )
        return net, objective

    whole, counted = run("whole", 3)
    run("stopped", 1)
    resumed, objective = run("stopped", 3)
    assert same(whole, resumed) and objective.asked == counted.asked == 3 * 5
