"""Checkpoints that are whole or not there, and that are found again where their folder was moved to."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, waits for the disk, renames.

    Lightning's own writes into the temporary folder and moves: on another file system that is a copy, and who is
    killed while it copies leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint, or raise an OSError and leave what was there."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # so that a full disk is an OSError
        torch.save(checkpoint, buffer)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's own forgets the best score where the folder is another one than in the checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over; its files are looked for in this folder."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            name = Path(path).name
            # Lightning removes what it takes for an older checkpoint, whatever it is.
            return str(here / name) if name in ("best.ckpt", "last.ckpt") else ""

        state = dict(state_dict)
        state["dirpath"] = self.dirpath
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state.get(key, ""))
        models = {moved(path): score for path, score in state["best_k_models"].items()}
        state["best_k_models"] = {path: score for path, score in models.items() if path}
        super().load_state_dict(state)
