"""Opening a finished run: the same weights and numbers, mistakes in one line, and nobody else's code."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from branchynet.runs.finished_run import open_run
from branchynet.errors import UserError
from branchynet.exits.criteria import entropy


@torch.no_grad()
def test_the_network_gives_the_runs_own_trace(finished):
    run = open_run(finished)
    trace = np.load(finished / "trace-test.npz")
    x, y = run.data.split("test")
    logits = run.network(x)
    assert torch.equal(y, torch.from_numpy(trace["label"]))
    for n, out in enumerate(logits):
        assert torch.equal(out.argmax(1), torch.from_numpy(trace["prediction"][:, n]))
        assert torch.allclose(run.criterion(out), torch.from_numpy(trace["uncertainty"][:, n]), atol=1e-6)
    accuracy = float((run.baseline.trunk()(x).argmax(1) == y).double().mean())
    assert accuracy == pytest.approx(run.result["baseline"]["accuracy"])
    # Stage 1 and the joint training end with other weights.
    assert not torch.equal(run.baseline.segments[0].conv1.weight, run.network.segments[0].conv1.weight)
    assert not run.network.training and not run.baseline.training


def test_what_stands_in_the_result_is_at_hand(finished):
    run = open_run(str(finished))
    knee = json.loads((finished / "result.json").read_text())["knee"]
    assert list(run.thresholds) == knee["thresholds"] and run.criterion is entropy
    assert run.config.name == "b_lenet_digits"


def test_the_network_needs_no_data_set(copied, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the data set was read")

    monkeypatch.setattr("branchynet.data.module.load_dataset", refuse)
    run = open_run(copied)
    assert run.network.num_exits == 2
    assert run.facts.input_shape == (1, 28, 28) and run.facts.classes == tuple("0123456789")


def test_an_older_run_takes_the_facts_from_the_data_set(copied):
    left = open_run(copied).facts
    (copied / "data.json").unlink()
    assert open_run(copied).facts == left
    x = open_run(copied).data.images("train").double() / 255
    assert left.mean == pytest.approx([float(x.mean())], abs=1e-6)
    assert left.std == pytest.approx([float(x.std(correction=0))], abs=1e-6)


@pytest.mark.parametrize(
    ("file", "content", "use", "words"),
    [
        (".hydra/config.yaml", None, "config", ["no run", "config.yaml"]),
        (".hydra/config.yaml", "a: [1", "config", ["damaged"]),
        (".hydra/config.yaml", "[1, 2]", "config", ["damaged"]),
        (".hydra/config.yaml", "model: ${nowhere}\ndata: 1", "config", ["damaged", "nowhere"]),
        ("result.json", None, "config", ["not finished", "train resume="]),
        ("result.json", "{", "config", ["result.json", "damaged"]),
        ("result.json", '{"knee": {"thresholds": ["?"]}}', "config", ["result.json", "damaged"]),
        ("data.json", '{"classes": []}', "facts", ["data.json", "delete it"]),
        ("data.json", "{", "network", ["data.json", "delete it"]),
        ("checkpoints/joint/best.ckpt", None, "network", ["best.ckpt", "train it again"]),
        ("checkpoints/joint/best.ckpt", "junk", "network", ["best.ckpt", "checkpoint"]),
        ("checkpoints/baseline.pt", None, "baseline", ["baseline.pt", "train it again"]),
        ("checkpoints/baseline.pt", "junk", "baseline", ["baseline.pt", "damaged"]),
    ],
)
def test_what_is_missing_or_damaged_is_said_in_one_sentence(file, content, use, words, copied):
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_text(content)
    with pytest.raises(UserError) as caught:
        getattr(open_run(copied), use)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "branchynet.networks.attach.torch.load",  # torch's, by a name that begins as ours
        "torchvision.models.WeightsEnum.get_state_dict",  # unpickles what an address gives
        "branchynet.nowhere",
        "${name}",
        ["os", "mkdir"],
    ],
)
def test_settings_call_nobody_elses_code(target, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.name = "os.mkdir"
    config.model.trunk = {"_target_": target, "path": str(copied / "code has run")}
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match="trust=true"):
        open_run(copied)
    assert not (copied / "code has run").exists()
    assert open_run(copied, trust=True).thresholds


@pytest.mark.parametrize("target", ["torchvision.models.resnet18", "torch.optim.AdamW"])
def test_settings_may_call_what_is_known(target, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.model.trunk = {"_target_": target}
    OmegaConf.save(config, path)
    assert open_run(copied).config.model.trunk._target_ == target
