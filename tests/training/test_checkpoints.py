"""Checkpoints: whole or not there, and at home where their folder is."""

import errno
import os

import pytest
import torch

from branchynet.training.checkpoints import MovableCheckpoint, WholeCheckpointIO


def test_round_trip_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"w": torch.arange(3)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["w"], torch.arange(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_one_whole(where, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="No space"):
        WholeCheckpointIO().save_checkpoint({"epoch": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_best_score_moves_with_the_folder(tmp_path):
    first = MovableCheckpoint(dirpath=tmp_path / "a", filename="best", monitor="x", mode="max")
    first.best_model_score = first.kth_value = torch.tensor(0.9)
    first.best_model_path = first.kth_best_model_path = str(tmp_path / "a" / "best.ckpt")
    first.best_k_models = {first.best_model_path: torch.tensor(0.9)}
    second = MovableCheckpoint(dirpath=tmp_path / "b", filename="best", monitor="x", mode="max")
    second.load_state_dict(first.state_dict())
    assert second.best_model_score == torch.tensor(0.9)
    assert second.best_model_path == str(tmp_path / "b" / "best.ckpt")
    assert list(second.best_k_models) == [second.best_model_path]


@pytest.mark.parametrize("name", ["..", "notes", ".", "../../notes"])
def test_a_checkpoint_names_no_other_files_to_be_removed(name, tmp_path):
    """Lightning removes what it takes for an older checkpoint, and whole folders with it."""
    first = MovableCheckpoint(dirpath=tmp_path / "a", filename="best", monitor="x", mode="max")
    state = first.state_dict() | dict.fromkeys(("best_model_path", "kth_best_model_path"), f"/x/{name}")
    first.load_state_dict(state | {"best_k_models": {f"/x/{name}": torch.tensor(0.9)}})
    assert first.best_model_path == first.kth_best_model_path == "" and first.best_k_models == {}
