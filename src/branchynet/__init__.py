"""Train networks with side exits, choose their exit thresholds, and prove what the exits save.

import branchynet

network = branchynet.load("<run folder>")
network.thresholds = [0.3]
prediction, exit, uncertainty = network.run(images)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from branchynet.api import load as load
    from branchynet.runtime.exported import load_export as load_export

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Only when it is asked for: torch takes seconds to import, and the command's help answers at once.
    if name == "load":
        from branchynet.api import load

        return load
    if name == "load_export":
        from branchynet.runtime.exported import load_export

        return load_export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
