"""Cut a backbone after named places and hang a head on each cut."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from branchynet.errors import ArgumentError, UnknownName, UserError, reason_of
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.graph import clean_cuts, split, traced
from branchynet.networks.heads import EXITS, build_head, with_names


class DoesNotFit(UserError):
    """The trunk is for other images, or for another number of classes."""


INPUT = "input"  # the image itself: a place like any other, where the segment is the identity


def attach(
    trunk: nn.Module,
    exits: Sequence[Mapping[str, Any]],
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> BranchedNetwork:
    """A network of N exits: the trunk, cut after N-1 places, with a side head on each, and its own classifier.

    Args:
        trunk: any module from (B, C, H, W) to logits (B, K), or to maps of them, (B, K, H, W), that torch.fx can
            trace at its outer levels. Its parameters are shared, not copied. Its last layer with parameters becomes
            head N. What it gives the exits give, too.
        exits: descriptions, shallow to deep: `after`, a place on the trunk, and the head's layers, or
            `head`, a function that makes one (see `build_head`); perhaps also `exits`, those inside that head,
            `after` one of its layers.
        input_shape: (C, H, W).
        num_classes: K.

    Raises:
        UserError: no exit, a place that is unknown, named twice, out of order or cannot be cut at, a head
            that cannot be built, or a trunk that does not fit the images or the classes.
    """
    return _attached(trunk, exits, input_shape, num_classes, input_shape[1:])


def _attached(
    trunk: nn.Module,
    exits: Sequence[Mapping[str, Any]],
    input_shape: tuple[int, ...],
    num_classes: int,
    image: tuple[int, int],
    inside: bool = False,
) -> BranchedNetwork:
    """The same for anything that is cut: a trunk, or a head that carries exits inside.

    Args:
        trunk, exits, num_classes: see `attach`.
        input_shape: of what it gets, without the batch.
        image: (H, W) of the images.
        inside: whether it is a head.
    """
    free = legal_places(trunk)[1:] if inside else legal_places(trunk)  # at its input hangs the head itself
    if not free:
        raise UserError("there is no layer before the classifier for an exit to hang on: give it some")
    legal = ", ".join(free)
    if not isinstance(exits, list | tuple) or not exits:
        raise ArgumentError(
            "exits",
            f"={exits!r}: it is a list of at least one exit, such as [{{after: input}}]; legal places are {legal}",
        )
    places = [_place(description, legal) for description in exits]
    graph, outputs = traced(trunk, _opened(trunk, places))
    order = {node: index for index, node in enumerate(graph.nodes)}
    clean = clean_cuts(graph)
    classifier = classifier_node(trunk, graph)

    cuts: list[fx.Node] = []
    for place in places:
        at_input = place == INPUT and not inside
        found = next(iter(order)) if at_input else _only(outputs.get(place, []), place, legal)
        if order[found] >= order[classifier]:
            raise UserError(
                f"{place!r} is the trunk's classifier, the last exit by itself, or comes after it: "
                f"legal are {legal}"
            )
        if found not in clean:
            named = {nodes[0]: name for name, nodes in outputs.items() if len(nodes) == 1}
            behind = [named[n] for n in clean if n in named and order[found] < order[n] < order[classifier]]
            nearest = (
                f"where one does, the next place is {behind[0]!r}" if behind else "before it, where one does"
            )
            raise UserError(
                f"more than one tensor would have to cross a cut after {place!r}: hang the exit {nearest}; "
                f"legal are {legal}"
            )
        cuts.append(found)
    for n, cut in enumerate(cuts):
        if cut in cuts[:n]:
            raise UserError(
                f"two exits hang after one place, {places[cuts.index(cut)]!r} and {places[n]!r}: "
                f"a place carries one; legal are {legal}"
            )
    if cuts != sorted(cuts, key=order.__getitem__):
        raise UserError(
            f"the exits are listed as {', '.join(places)}, which is not the trunk's order: "
            f"list them shallow to deep; legal places are, in order, {legal}"
        )

    # The last head begins at the last cut before the classifier that is clean: its own input, in most trunks.
    before = [node for node in clean if order[node] < order[classifier]][-1]
    parts = split(trunk, graph, [*cuts, before])
    segments = parts[:-1]
    shapes = _shapes(parts, input_shape, num_classes, image)
    heads = [
        _head(description, shape, shapes[-1], image)
        for description, shape in zip(exits, shapes, strict=False)
    ]
    return BranchedNetwork(segments, [*heads, parts[-1]], places, input_shape=input_shape if inside else ())


def _head(
    description: Mapping[str, Any], shape: tuple[int, ...], answer: tuple[int, ...], image: tuple[int, int]
) -> nn.Module:
    """The head of an exit; one that carries exits is cut as the trunk is."""
    own = {key: value for key, value in description.items() if key != EXITS}
    head = build_head(own, shape, answer[0], image, maps=len(answer) > 1)
    if not description.get(EXITS):
        return head
    try:
        return _attached(with_names(head), description[EXITS], shape, answer[0], image, inside=True)
    except UserError as error:
        raise UserError(f"inside the head of the exit after {description['after']!r}: {error}") from error


def legal_places(trunk: nn.Module) -> list[str]:
    """The names an exit can be put after, in order: `input`, and the layers before the classifier.

    Layers of nested nn.Sequentials have dotted names (`layer1.0`), and a whole nn.Sequential may be named as
    well (`layer1`: the same place as its last layer). Other modules count as one layer each; places inside
    them are legal too where one tensor crosses, but not listed.
    """
    graph, outputs = traced(trunk)
    nodes = list(graph.nodes)
    clean = set(clean_cuts(graph))
    behind = set(nodes[nodes.index(classifier_node(trunk, graph)) :])
    legal = [
        place
        for place, found in outputs.items()
        if len(found) == 1 and found[0] in clean and found[0] not in behind
    ]
    return [INPUT, *legal]


def _place(description: Mapping[str, Any], legal: str) -> str:
    if not isinstance(description, Mapping) or not isinstance(description.get("after"), str):
        raise ArgumentError(
            "exits",
            f" has {description!r}: an exit says `after: <place>` and describes its head; legal places are {legal}",
        )
    return description["after"]


def _opened(trunk: nn.Module, places: Sequence[str]) -> set[str]:
    """Every module that a place lies in: `a` and `a.b` for `a.b.c`."""
    names = {name for name, _ in trunk.named_modules(remove_duplicate=False)}
    known = [place for place in places if place in names]
    return {place[:n] for place in known for n, letter in enumerate(place) if letter == "."}


def _only(found: Sequence[fx.Node], place: str, legal: str) -> fx.Node:
    if not found:
        raise UnknownName(f"there is no place {place!r} for an exit: legal are {legal}")
    if len(found) > 1:
        raise UserError(f"the trunk passes {place!r} more than once: legal are {legal}")
    return found[0]


def classifier_node(trunk: nn.Module, graph: fx.Graph) -> fx.Node:
    """The last layer that has parameters."""
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    own = [node for node in nodes if any(True for _ in trunk.get_submodule(str(node.target)).parameters())]
    if not own:
        raise UserError(f"the trunk {type(trunk).__name__} has no layer with parameters to classify with")
    return own[-1]


def _shapes(
    parts: Sequence[nn.Module], input_shape: tuple[int, ...], num_classes: int, image: tuple[int, int]
) -> list[tuple[int, ...]]:
    """What each part gives, without the batch, worked out on the meta device: nothing is computed or copied."""
    x = torch.zeros(2, *input_shape, device="meta")
    shapes = []
    for part in parts:
        own = [*part.named_parameters(), *part.named_buffers()]
        state = {name: torch.empty_like(tensor, device="meta") for name, tensor in own}
        try:
            with torch.no_grad():
                x = torch.func.functional_call(part, state, (x,))
        except (RuntimeError, ValueError, IndexError) as error:  # what layers raise on a shape
            reason = reason_of(error)
            raise DoesNotFit(
                f"the trunk does not take images of shape {tuple(input_shape)} ({reason}): "
                f"choose model and data that fit"
            ) from error
        shapes.append(tuple(x.shape[1:]))
    if shapes[-1] not in ((num_classes,), (num_classes, *image)):
        raise DoesNotFit(
            f"the trunk gives {shapes[-1]} per image, the data has {num_classes} classes: "
            f"set the trunk's num_classes={num_classes}"
        )
    return shapes
