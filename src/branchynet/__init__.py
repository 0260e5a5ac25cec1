"""Train networks with side exits, choose their exit thresholds, and prove what the exits save.

import branchynet

network = branchynet.load("<run or export folder>")
network.thresholds = [0.3]
prediction, exit, uncertainty = network.run(images)  # exits count from 1
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from branchynet.api import load as load
    from branchynet.errors import UserError as UserError
    from branchynet.evaluation.evidence import trace as trace
    from branchynet.exits.criteria import Criterion as Criterion
    from branchynet.exits.criteria import Entropy as Entropy
    from branchynet.exits.criteria import Margin as Margin
    from branchynet.exits.criteria import MaxProbability as MaxProbability
    from branchynet.exits.sweep import sweep as sweep
    from branchynet.exports.load import load_export as load_export
    from branchynet.networks.attach import attach as attach
    from branchynet.networks.branched import BranchedNetwork as BranchedNetwork
    from branchynet.runtime.adapt import adapt as adapt
    from branchynet.runtime.catalogue import make_engine as make_engine
    from branchynet.runtime.controller import Controller as Controller

__version__ = "0.2.0"

# ONNX Runtime would look for its maker's server. It reads this as it is imported, so it is said here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are asked for: torch takes seconds, and the command's help answers at once.
_WHERE = {
    "BranchedNetwork": "networks.branched",
    "Controller": "runtime.controller",
    "Criterion": "exits.criteria",
    "Entropy": "exits.criteria",
    "Margin": "exits.criteria",
    "MaxProbability": "exits.criteria",
    "UserError": "errors",
    "adapt": "runtime.adapt",
    "attach": "networks.attach",
    "load": "api",
    "load_export": "exports.load",
    "make_engine": "runtime.catalogue",
    "sweep": "exits.sweep",
    "trace": "evaluation.evidence",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"branchynet.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
