"""Another network as teacher: what it says, which one of a run's it is, and what is refused in one line."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from damage import damage
from omegaconf import OmegaConf

from branchynet.data.normalise import normalisation, normalise
from branchynet.errors import UserError
from branchynet.runs.finished_run import open_run
from branchynet.runs.image_facts import read_facts
from branchynet.runs.run_config import plain
from branchynet.runs.teacher import build_teacher
from branchynet.training.objective import Joint


@pytest.fixture
def facts(finished):
    return read_facts(finished)


def asking(path, model=None):
    return SimpleNamespace(of_teacher=True, teacher=str(path), teacher_model=model)


@pytest.fixture
def images(finished):
    """Bytes (S, C, H, W) of the finished run's data."""
    return open_run(finished).data.images("val")[:50]


@torch.no_grad()
def answer(path, facts, images, model=None):
    """The teacher's logits for bytes that are normalised as `facts` says."""
    teacher = build_teacher(asking(path, model), facts).eval()
    return teacher(normalise(images, *normalisation(facts.mean, facts.std)))


@torch.no_grad()
def expected(network, facts, images):
    return network(normalise(images, *normalisation(facts.mean, facts.std)))[-1]


def right(run, split, values):
    """Let the baseline be right as `values` say."""
    arrays = dict(np.load(run / "baseline.npz"))
    arrays[f"{split}_correct"] = np.full_like(arrays[f"{split}_correct"], values)
    np.savez(run / "baseline.npz", **arrays)


def test_of_a_run_it_is_the_last_exit_or_a_baseline_that_is_better_on_validation(copied, facts, images):
    run = open_run(copied)
    last, baseline = (expected(each, facts, images) for each in (run.network, run.baseline))
    assert not torch.allclose(last, baseline, atol=1e-3)
    right(copied, "val", False)
    right(copied, "test", True)  # nobody looks at that
    assert torch.equal(answer(copied, facts, images), last)
    right(copied, "val", True)
    assert torch.equal(answer(copied, facts, images), baseline)
    (copied / "baseline.npz").unlink()  # as in older runs
    assert torch.equal(answer(copied, facts, images), last)


def test_one_of_another_split_is_warned_of(finished, facts, caplog):
    build_teacher(asking(finished), facts)
    assert "another split" not in caplog.text
    build_teacher(asking(finished), replace(facts, fingerprint="of others"))
    assert "another split" in caplog.text


def test_a_checkpoint_needs_its_models_settings(finished, facts, images):
    run = open_run(finished)
    model = plain(run.config.model)
    best, trunk = (finished / "checkpoints" / name for name in ("joint/best.ckpt", "baseline.pt"))
    assert torch.equal(answer(best, facts, images, model), expected(run.network, facts, images))
    assert torch.equal(answer(trunk, facts, images, model), expected(run.baseline, facts, images))


def test_one_of_images_that_were_normalised_otherwise_sees_them_as_it_knows_them(finished, facts, images):
    other = replace(facts, mean=(0.7,), std=(0.1,))
    found = answer(finished, other, images)
    assert torch.allclose(found, expected(open_run(finished).network, facts, images), atol=1e-4)
    x = normalise(images, *normalisation(other.mean, other.std))
    assert not torch.allclose(found, open_run(finished).network(x)[-1], atol=0.1)


def test_nobody_is_asked_for_where_an_objective_does_not_ask(facts):
    assert build_teacher(Joint((1.0, 1.0)), facts) is None


CASES = """
. | result.json | gone | is not finished, it has no result.json
. | result.json | cut | result.json is damaged
. | .hydra/config.yaml | gone | is no run
. | .hydra/config.yaml | swap branchynet.networks.lenet.lenet5 os.system | os.system, which is none of the parts
. | data.json | gone | this run has no data.json
. | data.json | cut | data.json is damaged
. | checkpoints/joint/best.ckpt | gone | no checkpoints/joint/best.ckpt any more
. | checkpoints/joint/best.ckpt | cut | best.ckpt is not a checkpoint
. | trace-val.npz | cut | trace-val.npz or baseline.npz is damaged
checkpoints/joint/best.ckpt | checkpoints/joint/best.ckpt | cut | best.ckpt is not a checkpoint
checkpoints/joint/best.ckpt | checkpoints/joint/best.ckpt | empty | best.ckpt is smaller than the network
checkpoints/joint/best.ckpt | checkpoints/joint/best.ckpt | fifo | best.ckpt is
checkpoints/joint/best.ckpt | checkpoints/joint/best.ckpt | gone | there is no such folder or file
"""


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_what_is_missing_or_damaged_gets_one_line(case, copied, facts):
    which, name, how, words = case.split(" | ")
    path, model = copied / which, None
    if which != ".":
        model = plain(OmegaConf.load(copied / ".hydra" / "config.yaml").model)
    damage(copied / name, how)
    with pytest.raises(UserError) as caught:
        build_teacher(asking(path, model), facts)
    message = str(caught.value)
    assert message.startswith(f"objective.teacher={path}: ") and words in message and "\n" not in message
    assert "trust=true" not in message  # there is no such setting of a new run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_shape": (1, 32, 32)}, "it takes images of 1×28×28, the data's are 1×32×32"),
        ({"classes": ("a", "b")}, "it knows 10 classes, the data has 2"),
        (
            {"classes": tuple("abcdefghij")},
            "its class 1 is 0, the data's a; if only the names differ, name its",
        ),
    ],
)
def test_a_run_on_other_images_or_classes_is_refused(changes, words, finished, facts):
    with pytest.raises(UserError) as caught:
        build_teacher(asking(finished), replace(facts, **changes))
    assert words in str(caught.value)


def test_a_checkpoint_of_other_images_classes_or_layers_is_refused(finished, facts):
    path = finished / "checkpoints" / "joint" / "best.ckpt"
    model = plain(open_run(finished).config.model)
    eleven = {**model, "trunk": {**model["trunk"], "num_classes": 11}}
    for facts_, settings, words in (
        (replace(facts, classes=tuple("abc")), model, "the data has 3 classes"),
        (replace(facts, input_shape=(3, 28, 28)), model, "does not take images of shape (3, 28, 28)"),
        (replace(facts, classes=tuple("abcdefghijk")), eleven, "best.ckpt is of another network"),
        (facts, {**model, "exits": []}, "objective.teacher_model.exits=[]"),
        (facts, None, "a checkpoint wants objective.teacher_model"),
    ):
        with pytest.raises(UserError) as caught:
            build_teacher(asking(path, settings), facts_)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="a run has its own model; leave out"):
        build_teacher(asking(finished, model), facts)
