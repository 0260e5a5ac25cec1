"""Processes that somebody else, torchrun or Slurm's srun, has started to train one run together.

Each of them runs the whole command. The first, rank 0, does all that one process would do; the others train with it
and leave. What the first one decides from the disk (is there a baseline already?) it tells them, for by the time
they look there may be more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from branchynet.errors import UserError, reason_of

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE = timedelta(days=30)  # the first may wait for a baseline that another run trains


@dataclass
class Ranks:
    """Which one this process is, of how many."""

    rank: int = 0
    size: int = 1
    _store: Store | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process decides, writes and reports."""
        return self.rank == 0

    def agreed(self, name: str, value: bool = False) -> bool:
        """What the first process says; it says `value`, and the others wait for that.

        Args:
            name: of the question; each is asked once.
            value: of the first process.
        """
        if self.size == 1:
            return value
        store = self._meet()
        if self.first:
            store.set(name, str(int(value)))
            return value
        store.wait([name], PATIENCE)
        return store.get(name) == b"1"

    def _meet(self) -> Store:
        if self._store is None:
            from torch.distributed import PrefixStore
            from torch.distributed.rendezvous import rendezvous

            # The same place where Lightning's processes meet later; torch shares it within a process.
            place = rendezvous("env://", self.rank, self.size, timeout=PATIENCE)
            self._store = PrefixStore("branchynet", next(place)[0])  # kept: it ends with whoever holds it
        return self._store


ALONE = Ranks()


def ranks_outside() -> Ranks:
    """Those that this process belongs to; alone where nobody has started several."""
    if not {"RANK", "SLURM_PROCID"} & os.environ.keys():
        return ALONE
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    # In Lightning's own order.
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            try:
                found = kind()
            except RuntimeError as error:
                raise UserError(
                    f"the processes were started otherwise than needed: {reason_of(error)}"
                ) from error
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = found.main_address, str(found.main_port)
            return Ranks(found.global_rank(), found.world_size())
    return ALONE
