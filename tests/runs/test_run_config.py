"""Nothing that came with someone else's checkpoint or run runs code: one door after the other."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from branchynet.commands.app import user_message
from branchynet.commands.train import resume
from branchynet.commands.train_run import train_run
from branchynet.runs.finished_run import open_run


def refuse(door, trace):
    """`door` fails with one line for the user, and no code has run."""
    with pytest.raises(Exception) as caught:
        door()
    message = user_message(caught.value)
    assert message is not None, f"a traceback: {caught.value!r}"
    assert "\n" not in message
    assert not trace.exists()
    return message


@pytest.mark.parametrize("file", ["checkpoints/joint/best.ckpt", "checkpoints/baseline.pt"])
def test_weights_of_a_run(file, copied, evil):
    write, trace = evil
    write(copied / file)
    use = "network" if "joint" in file else "baseline"
    assert file in refuse(lambda: getattr(open_run(copied), use), trace)


@pytest.mark.parametrize(
    "file", ["trace-val.npz", "trace-test.npz", "baseline.npz", "costs.csv", "data.json"]
)
def test_evidence_of_a_run(file, copied, evil):
    write, trace = evil
    write(copied / file)
    assert file in refuse(lambda: open_run(copied).evidence, trace)


def test_the_criterion_of_a_run(copied, evil):
    write, trace = evil
    write(copied / "criterion.pt")
    assert "criterion.pt" in refuse(lambda: open_run(copied).criteria, trace)


def test_objects_inside_an_archive(copied, evil):
    write, trace = evil
    path = copied / "trace-test.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "label": np.array([write.object], dtype=object)})
    assert "trace-test.npz" in refuse(lambda: open_run(copied).evidence, trace)


def test_init(copied, evil, tmp_path):
    write, trace = evil
    write(tmp_path / "theirs.ckpt")
    config = OmegaConf.load(copied / ".hydra" / "config.yaml")
    config.init = str(tmp_path / "theirs.ckpt")
    assert "theirs.ckpt" in refuse(lambda: train_run(config, tmp_path / "mine"), trace)
    # Before the first epoch, not after the baseline's last.
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("content", ["pickle", "junk", "bare weights"])
def test_resume(content, copied, evil):
    write, trace = evil
    (copied / "result.json").unlink()
    last = copied / "checkpoints" / "joint" / "last.ckpt"
    if content == "pickle":
        write(last)
    elif content == "junk":
        last.write_bytes(last.read_bytes()[:1000])
    else:
        torch.save(torch.load(last)["state_dict"], last)
    message = refuse(lambda: resume(copied), trace)
    assert "last.ckpt" in message and "delete it" in message


def test_settings_of_a_run_that_is_resumed(copied, evil):
    _, trace = evil
    (copied / "result.json").unlink()
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer = {"_target_": "os.mkdir", "path": str(trace)}
    OmegaConf.save(config, path)
    assert "os.mkdir" in refuse(lambda: resume(copied), trace)


def test_a_shared_baseline(copied, evil, tmp_path):
    """What is damaged in the cache is trained anew."""
    write, trace = evil
    config = OmegaConf.load(copied / ".hydra" / "config.yaml")
    config.cache = str(tmp_path / "cache")
    first = train_run(config, tmp_path / "first")
    (entry,) = (tmp_path / "cache").glob("*.pt")
    write(entry)
    second = train_run(config, tmp_path / "second")
    assert not trace.exists()
    assert first["baseline"]["accuracy"] == second["baseline"]["accuracy"]
    assert set(torch.load(entry)) == set(torch.load(tmp_path / "first" / "checkpoints" / "baseline.pt"))
