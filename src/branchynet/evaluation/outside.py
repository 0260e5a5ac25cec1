"""What exits make of images that they should not know (the paper's V-B: open-world recognition).

A network answers whatever it is shown. An exit that is sure of it lets it go early: here it is counted. Shapes: N
exits, S samples, O samples from outside.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from branchynet.evaluation.evidence import own_trace, trace
from branchynet.evaluation.headroom import auroc
from branchynet.exits.criteria import Criterion
from branchynet.exits.sweep import exit_taken
from branchynet.exits.trace import Trace
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend


@dataclass(frozen=True)
class Outside:
    """Images from one source.

    Args:
        source: where they are from.
        samples: O.
        auroc: N, of each exit's uncertainty: how often one of the network's own images is surer than one of these;
            0.5 is what guessing gives, 1 tells them all apart.
        exit_rates: N fractions, at the operating point; what does not leave at the last exit leaves too early.
    """

    source: str
    samples: int
    auroc: tuple[float, ...]
    exit_rates: tuple[float, ...]

    @property
    def early(self) -> float:
        """The fraction that leaves before the last exit."""
        return 1 - self.exit_rates[-1]


def look_outside(
    own: Trace, outside: Mapping[str, Tensor], thresholds: Sequence[float]
) -> tuple[Outside, ...]:
    """See `Outside`.

    Args:
        own: trace of S of the network's own images.
        outside: by source: the uncertainties (O, N) of images from there.
        thresholds: N-1.
    """
    limits = torch.tensor(list(thresholds), dtype=torch.float32)
    found = []
    for source, uncertainty in outside.items():
        both = torch.cat([own.uncertainty, uncertainty])
        is_own = torch.arange(len(both)) < own.num_samples
        areas = [auroc(both[:, n], is_own) for n in range(own.num_exits)]
        left = torch.bincount(exit_taken(uncertainty, limits), minlength=own.num_exits)
        rates = (left.double() / len(uncertainty)).tolist()
        found.append(
            Outside(source, len(uncertainty), tuple(a for a in areas if a is not None), tuple(rates))
        )
    return tuple(found)


def uncertainties(
    batches: Callable[[], Iterable[Tensor]],
    count: int,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    engine: Backend,
    threads: int,
    input_shape: tuple[int, int, int],
) -> Tensor:
    """(O, N) of images from outside, as `engine` decides by them.

    Args:
        batches: gives the images, as often as it is called: (B, C, H, W) float32, normalised as the network's own.
        count: O.
    """
    nothing = torch.zeros(count, dtype=torch.int64)
    if engine.exact:
        return trace(network, criteria, batches(), nothing).uncertainty
    return own_trace(engine, threads, batches, nothing, input_shape, network, criteria).uncertainty
