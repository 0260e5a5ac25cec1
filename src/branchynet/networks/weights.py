"""Weights from files, as tensors and plain values: no file runs code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from branchynet.errors import UserError


def load_network(network: nn.Module, path: Path | str) -> None:
    """Load a network's weights from a checkpoint of a stage, or from a file with its bare state dict.

    Raises:
        UserError: no such file, not a checkpoint, or the weights of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: init is baseline, scratch or a checkpoint's path")
    content = read_checkpoint(path, "take checkpoints/joint/best.ckpt of a run")
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    prefix = "network."
    state = {
        key.removeprefix(prefix): value for key, value in state.items() if not key.startswith("objective.")
    }
    check_fits(network.state_dict(), state, f"{path} is of another network", "the same model and exits")
    network.load_state_dict(state)


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Any], what: str, of: str) -> None:
    """A UserError unless `state` has the very names and shapes of `own`.

    Args:
        own: a state dict of the module that is to take it.
        state: tensors by name.
        what: is wrong, where it does not fit, in words.
        of: what it should be the weights of.
    """
    wrong = sorted(
        name
        for name in own.keys() | state.keys()
        if name not in own or name not in state or own[name].shape != getattr(state[name], "shape", None)
    )
    if wrong:
        raise UserError(
            f"{what}: {len(wrong)} of its weights do not fit, such as {wrong[0]}; take those of {of}"
        )


def read_checkpoint(path: Path, cure: str) -> Any:
    """What a checkpoint holds, read as tensors and plain values: it runs no code.

    Args:
        path: the file.
        cure: what to do if it cannot be read, for the error.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises about anything on a foreign file
        raise UserError(
            f"{path} is not a checkpoint of tensors and plain values ({type(error).__name__}): {cure}"
        ) from error
