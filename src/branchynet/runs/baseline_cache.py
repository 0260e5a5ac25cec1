"""Trained baselines, kept by what determines them, so that a multirun trains each once."""

import hashlib
import inspect
import json
import logging
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.weights import MORE, SIZE, check_fits, read_checkpoint
from branchynet.regular import read_regular
from branchynet.runs.atomic import replacing
from branchynet.runs.lock import locked

log = logging.getLogger(__name__)


def cache_key(determinants: Mapping[str, Any]) -> str:
    """A name for the baseline that `determinants` (plain values that JSON can hold) give."""
    text = json.dumps(determinants, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_trunk(network: BranchedNetwork) -> str:
    """sha256 (hex) of a trunk before it is trained: its weights, its graph, and the code of its modules.

    Settings alone do not say that: a file of weights or a function of one's own changes under the same name.
    """
    digest = hashlib.sha256()
    for name, tensor in network.trunk_state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    trunk = network.trunk()
    if isinstance(trunk, fx.GraphModule):
        digest.update(trunk.code.encode())
    for name, module in trunk.named_modules():
        digest.update(f"{name} {module.extra_repr()}\n{_source(type(module))}".encode())
    return digest.hexdigest()


def load(folder: Path, key: str, like: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The trunk's state dict, or None where there is none that is whole and fits; why is said.

    Args:
        folder: the cache's, or a run's checkpoints.
        key: the name.
        like: a state dict with the names and shapes that it has to have.
    """
    path = folder / f"{key}.pt"
    if not os.path.exists(path):  # also where the folder may not be read
        return None
    most = MORE + SIZE * sum(tensor.nbytes for tensor in like.values())
    try:
        state = read_checkpoint(path, "it is not used", most)
        if not isinstance(state, dict):
            raise UserError(f"it holds a {type(state).__name__}")
        check_fits(like, state, "it is of another trunk", "take those of this one")
    except UserError as error:
        log.warning("%s is not used (%s)", path, error)
        return None
    return state


def alone(cache: Path, key: str) -> AbstractContextManager[None]:
    """Be the only one at work on the baseline of that name, on all machines that see the folder.

    So two jobs that want the same one train it once. A job that is killed leaves its place to the next.
    """
    if os.path.exists(cache / f"{key}.pt"):
        return nullcontext()  # nothing is left to do, and perhaps the folder may only be read
    return locked(
        cache / f".{key}.lock",
        waiting=f"another run trains this baseline: waiting for {cache / f'{key}.pt'}",
        without="jobs that begin together may each train the baseline that they could share",
    )


def load_metrics(folder: Path, key: str) -> dict[str, float]:
    """What was logged at the end of its training, as `store` took it; empty where that is not known."""
    try:
        metrics = json.loads(read_regular(folder / f"{key}.json"))["metrics"]
        found = {str(name): float(value) for name, value in metrics.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def store(
    folder: Path,
    key: str,
    state: Mapping[str, Tensor],
    determinants: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Write the state dict and, beside it, what determined it, for people, and what was logged at the end.

    Each file appears whole or not at all, whatever other jobs do. Where no lock keeps two jobs from training the
    same baseline at once, they write the same numbers.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(folder / f"{key}.pt") as temporary:
        torch.save({name: tensor.cpu() for name, tensor in state.items()}, temporary)
    with replacing(folder / f"{key}.json") as temporary:
        text = json.dumps({**determinants, "metrics": dict(metrics or {})}, sort_keys=True, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def _source(cls: type[nn.Module]) -> str:
    """The code of a module's class; torch's own goes by its version, which is in the key."""
    if cls.__module__.partition(".")[0] == "torch":
        return cls.__qualname__
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # made at run time, as torch.fx's are: their graph is in the key
        return ""
