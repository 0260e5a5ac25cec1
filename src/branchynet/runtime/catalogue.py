"""The engines by name, and how to get one for a network.

Shapes: C channels, H, W, K classes, N exits.
"""

from collections.abc import Sequence
from typing import Any

from branchynet.errors import not_allowed
from branchynet.exits.criteria import Criterion, one_per_exit
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend, Engine, check_threads
from branchynet.runtime.compiled import CompiledTorch
from branchynet.runtime.early_exit import EagerTorch
from branchynet.runtime.onnx import OnnxRuntime
from branchynet.runtime.openvino import OpenVino

ENGINES: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        EagerTorch(),
        CompiledTorch(),
        EagerTorch("cuda"),
        CompiledTorch("cuda"),
        OnnxRuntime(),
        OpenVino(),
        OpenVino("bf16"),
    )
}


def get_backend(name: Any, argument: str = "name") -> Backend:
    """The engine of that name.

    Args:
        argument: what the caller's own caller knows it as.

    Raises:
        ArgumentError: there is none.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise not_allowed(argument, name, f"one of {', '.join(ENGINES)}")
    return ENGINES[name]


def make_engine(
    engine: str | Backend,
    network: BranchedNetwork,
    criterion: Criterion | Sequence[Criterion],
    thresholds: Sequence[float],
    input_shape: tuple[int, int, int],
    threads: int = 1,
) -> Engine:
    """An engine that runs a network and really leaves early; the network itself is neither changed nor kept.

    A baseline runs through the same protocol as a network with one exit and no thresholds, see
    `branchynet.networks.branched.undivided`.

    Args:
        engine: one of `ENGINES` by name, or a backend of your own.
        network: N exits.
        criterion: from an exit's logits (B, K) to its uncertainty (B,): one for all exits, or N of them.
        thresholds: N-1, in the criterion's unit.
        input_shape: (C, H, W).
        threads: of computation. PyTorch's are the process's own: see `branchynet.runtime.early_exit.torch_threads`.

    Raises:
        UserError: an unknown name, a wrong number of thresholds, or the engine is not installed.
    """
    backend = get_backend(engine, "engine") if isinstance(engine, str) else engine
    check_threads(threads)
    backend.check()
    criteria = one_per_exit(criterion, network.num_exits)
    return backend.engine(network, criteria, thresholds, input_shape, threads)
