"""Trained baselines, kept by what determines them, so that a multirun trains each once."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from branchynet.runs.atomic import replacing


def cache_key(determinants: Mapping[str, Any]) -> str:
    """A name for the baseline that `determinants` (plain values that JSON can hold) give."""
    text = json.dumps(determinants, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(folder: Path, key: str) -> dict[str, Tensor] | None:
    """The trunk's state dict, or None where there is none that can be read."""
    try:
        return torch.load(folder / f"{key}.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file: torch.load raises about anything; train it again and replace the file
        return None


def store(folder: Path, key: str, state: Mapping[str, Tensor], determinants: Mapping[str, Any]) -> None:
    """Write the state dict and, beside it for people, what determined it.

    Each file appears whole or not at all, whatever other jobs do. Two jobs that train the same baseline at once
    write the same numbers.
    """
    with replacing(folder / f"{key}.pt") as temporary:
        torch.save({name: tensor.cpu() for name, tensor in state.items()}, temporary)
    with replacing(folder / f"{key}.json") as temporary:
        temporary.write_text(json.dumps(determinants, sort_keys=True, indent=1) + "\n")
