"""Weights from files, as tensors and plain values: no file runs code."""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.regular import ARRAYS, check_archive, check_regular

# A checkpoint of a stage holds the weights some three times: with what the optimiser keeps, and an average.
SIZE, MORE = 20, 100_000_000


def load_network(network: nn.Module, path: Path | str) -> None:
    """Load a network's weights from a checkpoint of a stage, or from a file with its bare state dict.

    Raises:
        UserError: no such file, not a checkpoint, or the weights of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: init is baseline, scratch or a checkpoint's path")
    content = read_checkpoint(path, "take checkpoints/joint/best.ckpt of a run", most_bytes(network))
    network.load_state_dict(network_state(network, content, path))


def network_state(
    network: nn.Module, content: Any, path: Path, cure: str = "take those of the same model and exits"
) -> dict[str, Tensor]:
    """The network's state dict out of what a checkpoint holds; a UserError where it is of another network."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = dict(state) if isinstance(state, Mapping) else {}
    state = {
        str(key).removeprefix("network."): value
        for key, value in state.items()
        if not str(key).startswith("objective.")
    }
    check_fits(network.state_dict(), state, f"{path} is of another network", cure)
    return state


def most_bytes(network: nn.Module) -> int:
    """A bound of a checkpoint's size."""
    return MORE + SIZE * sum(tensor.nbytes for tensor in network.state_dict().values())


def pretrained_state(
    trunk: Mapping[str, Tensor], path: Path, classifier: Collection[str]
) -> dict[str, Tensor]:
    """A trunk's state dict with trained weights from a file; a classifier of another size is left as it is.

    Args:
        trunk: the state dict as it is.
        path: `.safetensors`, or a file of torch.save with a state dict, perhaps under `state_dict`, `model` or
            `model_state_dict`, its names perhaps all behind one of PREFIXES; read as tensors alone.
        classifier: the names of the trunk's last layer.

    Raises:
        UserError: no such file, or weights that do not fit, which are listed.
    """
    if not path.is_file():
        raise UserError(f"model.weights={path}: there is no such file")
    state = _without_prefixes(_tensors(path), trunk)
    wrong = []
    for name in sorted(trunk.keys() | state.keys()):
        own, other = trunk.get(name), state.get(name)
        if name in classifier and (own is None or other is None or own.shape != other.shape):
            continue
        if name.endswith("num_batches_tracked") and other is None:
            continue  # files of old have none
        if own is None:
            wrong.append(f"{name} is not of the trunk")
        elif other is None:
            wrong.append(f"{name} is missing")
        elif own.shape != other.shape or own.is_floating_point() != other.is_floating_point():
            wrong.append(f"{name} is {tuple(other.shape)} instead of {tuple(own.shape)}")
        elif not other.isfinite().all():
            wrong.append(f"{name} is not finite")
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(f"model.weights={path} does not fit the trunk: {'; '.join(wrong[:SHOWN])}{more}")
    kept = {name: own for name, own in trunk.items() if name not in state or state[name].shape != own.shape}
    return {name: kept.get(name, state.get(name)) for name in trunk}  # type: ignore[misc]


SHOWN = 8  # of the weights that do not fit
# What others put before all names: nn.DataParallel, torch.compile, Lightning modules.
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.")


def _without_prefixes(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names without what stands before all of them, if the trunk's names do not begin so themselves."""
    found = dict(state)
    while found and not found.keys() & trunk.keys():
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of trained weights, by name."""
    cure = "take a file with a state dict, from torch.save(model.state_dict(), …)"
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise UserError(
                f"model.weights={path}: reading it needs safetensors: pip install safetensors"
            ) from error
        try:
            check_regular(path, MOST)
            content: Any = load_file(path)
        except Exception as error:  # a foreign file
            raise UserError(f"model.weights={path} is damaged ({type(error).__name__}): {cure}") from error
    else:
        content = read_checkpoint(path, cure, MOST)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(each, Tensor) for each in content.values()):
        raise UserError(f"model.weights={path} holds no weights by name: {cure}")
    return {str(name): tensor for name, tensor in content.items()}


MOST = 20_000_000_000  # bytes of a file of weights


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Any], what: str, cure: str) -> None:
    """A UserError unless `state` has the very names, shapes and kinds of numbers of `own`, and finite ones.

    Args:
        own: a state dict of the module that is to take it.
        state: tensors by name.
        what: is wrong, where it does not fit, in words.
        cure: what to do then.
    """
    wrong = sorted(
        str(name)
        for name in own.keys() | state.keys()
        if name not in own or name not in state or not _alike(own[name], state[name])
    )
    if wrong:
        raise UserError(f"{what}: {len(wrong)} of its weights do not fit, such as {wrong[0]}; {cure}")
    # A mask may have infinities; then the new one has, too.
    broken = sorted(name for name in own if not state[name].isfinite().all() and own[name].isfinite().all())
    if broken:
        raise UserError(f"{what}: {len(broken)} of its weights are not finite, such as {broken[0]}; {cure}")


def _alike(own: Tensor, other: Any) -> bool:
    if not isinstance(other, Tensor) or other.layout != torch.strided:
        return False
    if other.is_nested or other.is_quantized or other.is_meta:
        return False
    return own.shape == other.shape and own.is_floating_point() == other.is_floating_point()


def read_checkpoint(path: Path, cure: str, most: int = ARRAYS) -> Any:
    """What a checkpoint holds, read as tensors and plain values: it runs no code.

    Args:
        path: the file.
        cure: what to do if it cannot be read, for the error.
        most: bytes that it may have.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    try:
        check_regular(path, most)
        if zipfile.is_zipfile(path):  # else it is of an old torch
            # torch.load does not look at the checksums that torch.save has put into the file.
            check_archive(path, most)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises about anything on a foreign file
        reason = f": {error}" if type(error) is ValueError else ""
        raise UserError(
            f"{path} is not a checkpoint of tensors and plain values ({type(error).__name__}{reason}): {cure}"
        ) from error
