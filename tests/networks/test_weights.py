"""Weights from files: checkpoints of a stage, bare state dicts, and what is neither."""

import math
import os
import pickle
from collections import OrderedDict
from functools import partial

import lightning.pytorch as L
import pytest
import torch
from torch import nn

from branchynet.data.checked import ImageSet
from branchynet.data.loader import DeviceLoader
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.weights import (
    check_fits,
    load_network,
    most_bytes,
    pretrained_state,
    read_checkpoint,
)
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint, exit_losses, weighted
from branchynet.training.stages import fit


def network(seed=0):
    torch.manual_seed(seed)
    segments = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), nn.Sequential(nn.Flatten(), nn.ReLU())]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.Linear(64, 3)]
    return BranchedNetwork(segments, heads, ["first"])


def same(first, second):
    return first.state_dict().keys() == second.state_dict().keys() and all(
        torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items()
    )


class Batch(L.LightningDataModule):
    """Eight images, for training and validation."""

    def train_dataloader(self):
        images = torch.arange(8 * 36, dtype=torch.uint8).reshape(8, 1, 6, 6)
        return DeviceLoader(ImageSet(images, torch.arange(8) % 3), 8, (0.5,), (0.25,))

    val_dataloader = train_dataloader


def train(net, folder, objective=None):
    """A stage of one epoch; gives the state in its best checkpoint."""
    objective = objective or Joint((1.0, 1.0))
    module = BranchyClassifier(net, objective, partial(torch.optim.SGD, lr=0.1))
    fit(module, Batch(), 1, folder, {"accelerator": "cpu", "devices": 1})
    return torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]


def test_load_network_takes_checkpoints_and_bare_state_dicts(tmp_path):
    net, other, untrained = network(0), network(1), network(0)
    train(net, tmp_path)
    assert not same(net, untrained)
    load_network(other, tmp_path / "best.ckpt")
    assert same(net, other)
    torch.save(network(2).state_dict(), tmp_path / "bare.pt")
    load_network(other, str(tmp_path / "bare.pt"))
    assert same(network(2), other)


class Own(nn.Module):
    """An objective with weights and a state of its own."""

    of_features = False
    weights = needs = (1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(36, 3)
        self.register_buffer("segments", torch.zeros(2))  # the name of a part of the network

    def forward(self, logits, target, features=None):
        return weighted(exit_losses(logits, target), self.weights)


def test_an_objectives_own_state_in_a_checkpoint_is_left_out(tmp_path):
    net, other = network(0), network(1)
    state = train(net, tmp_path, Own())
    saved = {name for name in state if name.startswith("objective.")}
    assert saved == {"objective.teacher.weight", "objective.teacher.bias", "objective.segments"}
    load_network(other, tmp_path / "best.ckpt")
    assert same(net, other)


def test_load_network_refuses_others_with_one_line_and_changes_nothing(tmp_path):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "foreign.ckpt")
    torch.save({"state_dict": L.LightningModule}, tmp_path / "code.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    wider = network().state_dict() | {"heads.1.bias": torch.zeros(4)}
    torch.save(wider, tmp_path / "wider.ckpt")
    net = network()
    for name, word in {
        "nowhere.ckpt": "no checkpoint",
        "text.ckpt": "not a checkpoint",
        "foreign.ckpt": "another network",
        "code.ckpt": "not a checkpoint",
        "list.ckpt": "another network",
        "wider.ckpt": "another network: 1 of its weights do not fit, such as heads.1.bias",
    }.items():
        with pytest.raises(UserError, match=word) as caught:
            load_network(net, tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message and str(tmp_path / name) in message
    assert same(net, network())


def test_no_file_runs_code(tmp_path, evil):
    write, trace = evil
    write(tmp_path / "evil.ckpt")
    for read in (
        lambda path: load_network(network(), path),
        lambda path: read_checkpoint(path, "take another"),
    ):
        with pytest.raises(UserError, match="not a checkpoint of tensors and plain values"):
            read(tmp_path / "evil.ckpt")
    assert not trace.exists()


def test_read_checkpoint_gives_what_was_saved_and_says_what_to_do_otherwise(tmp_path):
    torch.save({"a": torch.arange(3), "b": [1, "two"]}, tmp_path / "plain.pt")
    found = read_checkpoint(tmp_path / "plain.pt", "take another")
    assert found["a"].tolist() == [0, 1, 2] and found["b"] == [1, "two"]
    (tmp_path / "cut.pt").write_bytes((tmp_path / "plain.pt").read_bytes()[:200])
    with pytest.raises(UserError, match=r"cut\.pt is not a checkpoint .*: take another$") as caught:
        read_checkpoint(tmp_path / "cut.pt", "take another")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_damaged_or_no_file_is_told_at_once(tmp_path):
    path = tmp_path / "plain.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bit.pt").write_bytes(content)
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(10**12)
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    for name, words in (
        ("bit", "the checksum of .* is another one"),
        ("huge", "more than 1,000,000,000 bytes"),
        ("fifo", "no regular file"),
        ("device", "no regular file"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.pt is not a checkpoint .*{words}.*: take another$"):
            read_checkpoint(tmp_path / f"{name}.pt", "take another")
    with pytest.raises(UserError, match="more than 100 bytes"):
        read_checkpoint(path, "take another", most=100)


def test_a_bound_of_a_checkpoints_size_lets_one_of_a_stage_pass(tmp_path):
    net = network()
    train(net, tmp_path)
    assert (tmp_path / "best.ckpt").stat().st_size < most_bytes(net) < 200_000_000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_those_of_nobody(value, tmp_path):
    state = network().state_dict()
    state["heads.1.weight"][0, 0] = value
    torch.save(state, tmp_path / "nan.ckpt")
    with pytest.raises(UserError, match=r"1 of its weights are not finite, such as heads\.1\.weight; take"):
        load_network(network(1), tmp_path / "nan.ckpt")
    # Where the new network has infinities of its own, as a mask may.
    mask = {"mask": torch.tensor([0.0, -math.inf])}
    check_fits(mask, mask, "never said", "never done")


@pytest.mark.parametrize(
    ("state", "count", "named"),
    [
        ({"weight": torch.zeros(2, 3)}, 1, "bias"),  # one is missing,
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)},
            1,
            "more",
        ),  # one too many,
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, 2, "bias"),  # of another shape,
        ({"weight": torch.zeros(2, 3), "bias": [0.0, 0.0]}, 1, "bias"),  # no tensor
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2, dtype=torch.int64)}, 1, "bias"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2, device="meta")}, 1, "bias"),
        ({"weight": torch.zeros(2, 3).to_sparse(), "bias": torch.zeros(2)}, 1, "weight"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), 3: torch.zeros(2)}, 1, "3"),
        ({}, 2, "bias"),
    ],
)
def test_check_fits_counts_what_does_not_and_names_the_first(state, count, named):
    own = nn.Linear(3, 2).state_dict()
    check_fits(own, {name: value + 1 for name, value in own.items()}, "never said", "anything")
    with pytest.raises(UserError) as caught:
        check_fits(own, state, "these are wrong", "take those of the same layer")
    assert str(caught.value) == (
        f"these are wrong: {count} of its weights do not fit, such as {named}; take those of the same layer"
    )


# Weights that were trained elsewhere


def pretrained(tmp_path, change=lambda state: state, wrap=lambda state: state):
    trunk = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), last=nn.Linear(2, 5)))
    other = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), last=nn.Linear(2, 9)))
    path = tmp_path / "weights.pth"
    torch.save(wrap(change(dict(other.state_dict()))), path)
    own = trunk.state_dict()
    return own, other.state_dict(), lambda: pretrained_state(own, path, ["last.weight", "last.bias"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {
            "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
            "epoch": 3,
        },
        lambda state: {"state_dict": {f"model._orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {n: t for n, t in state.items() if "num_batches" not in n}},
        lambda state: {n: t for n, t in state.items() if not n.startswith("last")},
    ],
)
def test_trained_weights_are_taken_but_for_a_classifier_of_other_classes(tmp_path, wrap):
    own, other, read = pretrained(tmp_path, wrap=wrap)
    found = read()
    assert list(found) == list(own)
    assert torch.equal(found["conv.weight"], other["conv.weight"])
    assert found["last.weight"] is own["last.weight"] and found["last.bias"] is own["last.bias"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {**s, "more": torch.zeros(1)}, "more is not of the trunk"),
        (lambda s: {n: t for n, t in s.items() if n != "conv.bias"}, r"conv\.bias is missing"),
        (lambda s: {**s, "conv.bias": torch.zeros(3)}, r"conv\.bias is \(3,\) instead of \(2,\)"),
        (lambda s: {**s, "conv.bias": torch.full((2,), float("nan"))}, r"conv\.bias is not finite"),
        (lambda s: [1, 2], "holds no weights by name"),
    ],
)
def test_trained_weights_that_do_not_fit_are_listed(tmp_path, change, words):
    _, _, read = pretrained(tmp_path, wrap=change)
    with pytest.raises(UserError, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_trained_weights_are_read_from_safetensors_too_and_run_no_code(tmp_path):
    own, other, _ = pretrained(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        pretrained_state(own, tmp_path / "none.pth", [])
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="not a checkpoint of tensors"):
        pretrained_state(own, tmp_path / "evil.pth", [])
    save = pytest.importorskip("safetensors.torch").save_file
    save({name: tensor.contiguous() for name, tensor in other.items()}, tmp_path / "weights.safetensors")
    found = pretrained_state(own, tmp_path / "weights.safetensors", ["last.weight", "last.bias"])
    assert torch.equal(found["conv.weight"], other["conv.weight"])
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged"):
        pretrained_state(own, tmp_path / "bad.safetensors", [])
