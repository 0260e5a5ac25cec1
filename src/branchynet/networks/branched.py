"""A trunk in segments, with a head on each of them.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor, nn

from branchynet.networks.gradient import scale_gradient
from branchynet.networks.graph import join
from branchynet.networks.weights import check_fits


class BranchedNetwork(nn.Module):
    """N segments of a trunk and N heads, shallow to deep; head N is the trunk's own classifier.

    A head may carry exits itself ("a branch may have branches"): then it is such a network, on the features at its
    place. Exits are numbered along the path: those inside a head, its own end, and then what is deeper on the
    trunk. N counts all of them; segments, heads and places are the trunk's.

    Source: Teerapittayanon, McDanel and Kung, 2016, section III-A. `branchynet.networks.attach.attach`
    makes one from any backbone.

    Args:
        segments: N modules; chained, with the last head, they are the trunk.
        heads: as many modules, each from its segment's output to logits (B, K).
        places: the names of the places on the trunk where the side heads hang: one less.
        shares: N numbers, 0 … 1: how much of each exit's answer is the answer before it, see
            `branchynet.exits.combining`. They are for inference: engines, traces and exports answer so, while
            `forward` and `with_features` give what each head says by itself, which is what is trained. None: an
            exit answers with just that.
        input_shape: of what it gets, without the batch, where it is a head.
    """

    def __init__(
        self,
        segments: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        places: Sequence[str],
        shares: Sequence[float] | None = None,
        input_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if not len(segments) == len(heads) == len(places) + 1:
            raise ValueError(
                f"{len(segments)} segments, {len(heads)} heads and {len(places)} places do not fit"
            )
        self.segments = nn.ModuleList(segments)
        self.heads = nn.ModuleList(heads)
        self.places = tuple(places)
        self.input_shape = tuple(input_shape)
        counts = [head.num_exits if isinstance(head, BranchedNetwork) else 1 for head in heads]
        ends = list(accumulate(counts))
        # Of each of the heads, which of the N exits it has.
        self.spans = tuple(slice(end - count, end) for end, count in zip(ends, counts, strict=True))
        self.shares = _checked(shares, ends[-1])

    @property
    def num_exits(self) -> int:
        """N, the trunk's own exit included."""
        return self.spans[-1].stop

    def parts(self) -> list[nn.Module]:
        """Segments and heads, of heads with exits inside their own parts."""
        inside = [head.parts() if isinstance(head, BranchedNetwork) else [head] for head in self.heads]
        return [*self.segments, *chain.from_iterable(inside)]

    def ways(self) -> list[tuple[list[nn.Module], list[nn.Module]]]:
        """Of each of the N exits, the trunk's segments up to its place, and what comes then, up to the logits."""
        found: list[tuple[list[nn.Module], list[nn.Module]]] = []
        for n, head in enumerate(self.heads, start=1):
            inside = head.ways() if isinstance(head, BranchedNetwork) else [([], [head])]
            found += [(list(self.segments[:n]), [*before, *after]) for before, after in inside]
        return found

    def forward(self, x: Tensor, run: Sequence[bool] | None = None) -> list[Tensor | None]:
        """(B, C, H, W) to N logits (B, K), each head's own, shallow to deep. Arguments as of `with_features`."""
        return self.with_features(x, run)[0]

    def with_features(
        self, x: Tensor, run: Sequence[bool] | None = None, sharing: Sequence[int] | None = None
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """(B, C, H, W) to N logits (B, K), each head's own, and to the features (B, …) that the N heads got.

        Args:
            x: images.
            run: N flags; a head whose flag is False is not run and gives None, nor are the segments after
                the last head that is. None runs all.
            sharing: N numbers: of how many exits, at its end and behind it, segment n gets the gradient. It then
                gets their mean instead of their sum, and the heads theirs as it is (Li et al., 2019,
                "Improved Techniques for Training Adaptive Deep Networks"). None: the sum.
        """
        flags = [True] * self.num_exits if run is None else list(run)
        if len(flags) != self.num_exits:
            raise ValueError(f"{len(flags)} flags do not fit {self.num_exits} exits")
        logits: list[Tensor | None] = [None] * self.num_exits
        features: list[Tensor | None] = [None] * self.num_exits
        for segment, head, own in zip(self.segments, self.heads, self.spans, strict=True):
            if not any(flags[own.start :]):
                break
            x = segment(x)
            if sharing is not None:
                x = scale_gradient(x, 1 / max(sharing[own.start], 1))
            behind = 0 if sharing is None or own.stop == self.num_exits else sharing[own.stop]
            if isinstance(head, BranchedNetwork) and any(flags[own]):
                inside = None if sharing is None else [count - behind for count in sharing[own]]
                given = x if inside is None else scale_gradient(x, inside[0])  # of the mean inside a sum
                logits[own], features[own] = head.with_features(given, flags[own], inside)
            elif flags[own.start]:
                logits[own.start], features[own.start] = head(x), x
            if behind:  # there it is a mean: a sum again
                x = scale_gradient(x, behind)
        return logits, features

    def feature_shapes(self, input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What each of the N exits' layers get, without the batch, for images (C, H, W); nothing is computed."""
        shapes: list[tuple[int, ...]] = []
        for shape, head in zip(self.place_shapes(input_shape), self.heads, strict=True):
            shapes += head.feature_shapes(shape) if isinstance(head, BranchedNetwork) else [shape]
        return shapes

    def place_shapes(self, input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What each segment of the trunk gives, likewise."""
        x = torch.zeros(2, *input_shape, device="meta")
        shapes = []
        for segment in copy.deepcopy(self.segments).to("meta").eval():
            x = segment(x)
            shapes.append(tuple(x.shape[1:]))
        return shapes

    def with_shares(self, shares: Sequence[float] | None) -> "BranchedNetwork":
        """The same network, modules shared, with other `shares`."""
        made = copy.copy(self)
        made.shares = _checked(shares, self.num_exits)
        return made

    def trunk(self) -> nn.Module:
        """The baseline: segments and last head as one undivided module that shares their parameters."""
        return join([*self.segments, self.heads[-1]])

    def trunk_state_dict(self) -> dict[str, Tensor]:
        """The trunk's parameters and buffers under its own names, wherever it was cut."""
        return {name: tensor for part in self._trunk_parts() for name, tensor in part.state_dict().items()}

    def load_trunk_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `trunk_state_dict` of the same trunk gave, wherever that one was cut.

        Raises:
            UserError: the state is of another trunk.
        """
        check_fits(
            self.trunk_state_dict(),
            state,
            "these weights are of another trunk",
            "take those of the same model.trunk",
        )
        for part in self._trunk_parts():
            part.load_state_dict({name: state[name] for name in part.state_dict()})

    def _trunk_parts(self) -> list[nn.Module]:
        return [*self.segments, self.heads[-1]]


def _checked(shares: Sequence[float] | None, num_exits: int) -> tuple[float, ...] | None:
    if shares is None:
        return None
    shares = tuple(float(share) for share in shares)
    if len(shares) != num_exits or shares[0] != 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(
            f"{shares} are no shares of {num_exits} exits: so many numbers, 0 … 1, the first one 0"
        )
    return shares


def undivided(module: nn.Module) -> BranchedNetwork:
    """A network of one exit: a baseline that runs through the same protocol, batches included.

    Args:
        module: from (B, C, H, W) to logits (B, K); it is shared, not copied.
    """
    return BranchedNetwork([nn.Identity()], [module], [])
