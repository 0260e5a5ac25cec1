"""Cut a backbone after named places and hang a head on each cut."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.graph import split, trace
from branchynet.networks.heads import build_head

INPUT = "input"  # the image itself: a place like any other, where the segment is the identity


def attach(
    trunk: nn.Module,
    exits: Sequence[Mapping[str, Any]],
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> BranchedNetwork:
    """A network of N exits: the trunk, cut after N-1 places, with a side head on each, and its own classifier.

    Args:
        trunk: any module from (B, C, H, W) to logits (B, K) that torch.fx can trace at its outer levels. Its
            parameters are shared, not copied. Its last layer with parameters becomes head N.
        exits: N-1 descriptions, shallow to deep: `after`, a place on the trunk, and the head's layers (see
            `build_head`).
        input_shape: (C, H, W).
        num_classes: K.

    Raises:
        UserError: no exit, a place that is unknown, named twice, out of order or cannot be cut at, a head
            that cannot be built, or a trunk that does not fit the images or the classes.
    """
    if not exits:
        raise UserError(
            "model.exits is empty: a network with side exits needs at least one, such as after: input"
        )
    places = [_place(description) for description in exits]
    graph = trace(trunk, _opened(places))
    inputs = next(node for node in graph.nodes if node.op == "placeholder")
    classifier = _classifier(trunk, graph)
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    legal = legal_places(trunk)

    cuts: list[fx.Node] = []
    for place in places:
        found = [inputs] if place == INPUT else [node for node in nodes if node.target == place]
        if not found or found[0] == classifier:
            raise UserError(f"there is no place {place!r} for an exit: legal are {', '.join(legal)}")
        if len(found) > 1:
            raise UserError(f"the trunk passes {place!r} more than once: legal are {', '.join(legal)}")
        cuts.append(found[0])
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise UserError(
            f"two exits hang after {twice!r}: one place carries one; legal are {', '.join(legal)}"
        )
    order = list(graph.nodes)
    if [order.index(cut) for cut in cuts] != sorted(order.index(cut) for cut in cuts):
        raise UserError(
            f"the exits are listed as {', '.join(places)}, which is not the trunk's order: "
            f"list them shallow to deep; legal places are, in order, {', '.join(legal)}"
        )
    if order.index(cuts[-1]) > order.index(classifier):
        raise UserError(f"{places[-1]!r} lies behind the trunk's classifier: legal are {', '.join(legal)}")

    parts = split(trunk, graph, [*cuts, *_before(classifier)])
    if isinstance(parts, fx.Node):
        raise UserError(
            f"more than one tensor would have to cross a cut after {str(parts.target)!r}: hang the exit where "
            f"one does, such as at the end of the block; legal are {', '.join(legal)}"
        )
    segments = parts[:-1]
    shapes = _shapes(parts, input_shape, num_classes)
    heads = [
        build_head(description, shape, num_classes) for description, shape in zip(exits, shapes, strict=False)
    ]
    return BranchedNetwork(segments, [*heads, parts[-1]], places)


def legal_places(trunk: nn.Module) -> list[str]:
    """The names an exit can be put after: `input`, and the layers before the classifier, in order.

    Layers of nested nn.Sequentials have dotted names; other modules count as one layer each.
    """
    opened = {name for name, module in trunk.named_modules() if name and isinstance(module, nn.Sequential)}
    graph = trace(trunk, opened)
    classifier = _classifier(trunk, graph)
    targets = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    before = targets[: targets.index(str(classifier.target))]
    return [INPUT, *(target for target in before if before.count(target) == 1)]


def _place(description: Mapping[str, Any]) -> str:
    if not isinstance(description, Mapping) or not isinstance(description.get("after"), str):
        raise UserError(
            f"model.exits has {description!r}: an exit says `after: <place>` and describes its head"
        )
    return description["after"]


def _opened(places: Sequence[str]) -> set[str]:
    """Every module that a place lies in: `a` and `a.b` for `a.b.c`."""
    return {place[:n] for place in places for n, letter in enumerate(place) if letter == "."}


def _classifier(trunk: nn.Module, graph: fx.Graph) -> fx.Node:
    """The last layer that has parameters."""
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    own = [node for node in nodes if any(True for _ in trunk.get_submodule(str(node.target)).parameters())]
    if not own:
        raise UserError(f"the trunk {type(trunk).__name__} has no layer with parameters to classify with")
    return own[-1]


def _before(classifier: fx.Node) -> list[fx.Node]:
    """The node whose value the classifier takes: the cut between the last segment and the last head."""
    source = classifier.args[0]
    assert isinstance(source, fx.Node)
    return [source]


def _shapes(
    parts: Sequence[nn.Module], input_shape: tuple[int, int, int], num_classes: int
) -> list[tuple[int, ...]]:
    """What each part gives, without the batch, worked out on the meta device: nothing is computed."""
    x = torch.zeros(2, *input_shape, device="meta")
    shapes = []
    for part in parts:
        try:
            with torch.no_grad():
                x = copy.deepcopy(part).to("meta").eval()(x)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the trunk does not take images of shape {tuple(input_shape)} ({reason[:160]}): "
                f"choose model and data that fit"
            ) from error
        shapes.append(tuple(x.shape[1:]))
    if shapes[-1] != (num_classes,):
        raise UserError(
            f"the trunk gives {shapes[-1]} per image, the data has {num_classes} classes: "
            f"set model.trunk.num_classes={num_classes}"
        )
    return shapes
