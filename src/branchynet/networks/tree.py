"""A tree of exits as one path, which is what engines, exports and sweeps walk.

An exit inside a head leaves two things to do behind it: the rest of that head, and the rest of the trunk, from the
place where the head hangs. So what goes from exit to exit there is a stack of features, the trunk's below and the
head's above, side by side in one tensor. Nothing else has to know of it.

Shapes: R rows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from branchynet.networks.branched import BranchedNetwork

Shape = tuple[int, ...]  # of features, without the rows


def path_of(network: BranchedNetwork) -> BranchedNetwork:
    """The same exits one after the other: N segments and N heads; the given network itself where no head has exits.

    Args:
        network: its layers are shared.
    """
    if not any(isinstance(head, BranchedNetwork) for head in network.heads):
        return network
    path = _Path()
    path.walk(network)
    return BranchedNetwork(path.segments, path.heads, path.places[:-1], network.shares)


class OnTop(nn.Module):
    """What is done with features in a stack: (R, …) each, side by side in (R, F).

    Args:
        part: from features to features or logits.
        stack: the shapes of what lies in it, the lowest first; one alone is these features as they are.
        of: of which of them it is computed, from 0.
        keep: how many of them stay below what `part` gives; the others are left behind.
    """

    def __init__(self, part: nn.Module, stack: Sequence[Shape], of: int, keep: int = 0) -> None:
        super().__init__()
        self.part, self.stack, self.of, self.keep = part, tuple(stack), of, keep

    def forward(self, x: Tensor) -> Tensor:
        given = self.part(features_in(x, self.stack, self.of))
        if not self.keep:
            return given
        below = x.flatten(1) if len(self.stack) == 1 else x[:, : _ends(self.stack)[self.keep]]
        return torch.cat([below, given.flatten(1)], dim=1)


def features_in(x: Tensor, stack: Sequence[Shape], of: int) -> Tensor:
    """The features at this place of a stack, from 0."""
    if len(stack) == 1:
        return x
    start, end = _ends(stack)[of : of + 2]
    return x[:, start:end].unflatten(1, stack[of]) if len(stack[of]) > 1 else x[:, start:end]


def _ends(stack: Sequence[Shape]) -> list[int]:
    """Where each of them begins among the numbers of a row, and where the last one ends."""
    ends = [0]
    for shape in stack:
        ends.append(ends[-1] + math.prod(shape))
    return ends


class _Path:
    """Collects the exits of a tree, in their order."""

    def __init__(self) -> None:
        self.segments: list[nn.Module] = []
        self.heads: list[nn.Module] = []
        self.places: list[str] = []
        self.stack: list[Shape] = []  # of what goes from exit to exit, at this point
        self.moves: list[nn.Module] = []  # what is done with it since the last exit

    def walk(self, network: BranchedNetwork, level: int = 0, name: str = "") -> None:
        """All exits of a trunk or, inside a head, of what lies at this level of the stack.

        Args:
            name: of the place where it hangs; empty: it is the trunk.
        """
        shapes = network.place_shapes(network.input_shape) if level else [_given(h) for h in network.heads]
        places = [*(f"{name}/{place}" if name else place for place in network.places), name]
        for n, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
            of = level if n else level - 1  # at first it is what the network hangs on
            if level and n == len(places) - 1:
                # Nothing of it is wanted behind its end.
                whole = nn.Sequential(
                    *(part for part in (segment, head) if not isinstance(part, nn.Identity))
                )
                self._exit(OnTop(whole, self.stack, of), places[n])
                return
            plain = not level and len(self.stack) < 2
            self.moves.append(segment if plain else OnTop(segment, self.stack, of, keep=level))
            self.stack = [*self.stack[:level], shapes[n]]
            if isinstance(head, BranchedNetwork):
                self.walk(head, level + 1, places[n])
            else:
                self._exit(OnTop(head, self.stack, level) if level else head, places[n])

    def _exit(self, head: nn.Module, place: str) -> None:
        moves = [move for move in self.moves if not isinstance(move, nn.Identity)]
        self.segments.append(
            moves[0] if len(moves) == 1 else nn.Sequential(*moves) if moves else nn.Identity()
        )
        self.heads.append(head)
        self.places.append(place)
        self.moves = []


def _given(head: nn.Module) -> Shape:
    """What a head with exits inside gets; of others it need not be known."""
    return head.input_shape if isinstance(head, BranchedNetwork) else ()
