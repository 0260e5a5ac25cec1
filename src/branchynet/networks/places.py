"""Where exits can hang on a trunk, what it has cost by then, and exits that are placed by that.

Shapes: C channels, H, W, T tokens, D numbers, K classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from branchynet.errors import ArgumentError, UserError, is_number, is_whole, reason_of
from branchynet.networks.attach import INPUT, DoesNotFit, classifier_node
from branchynet.networks.automatic import AUTO
from branchynet.networks.graph import clean_cuts, traced
from branchynet.networks.heads import KINDS, build_head, channels_last

MOST_TRACES = 200  # of a trunk, to look into its modules
SIDE = 8  # pixels: a default head brings maps down to about that
WIDTHS = (32, 64)  # channels of a default head: those of the place, within these


@dataclass(frozen=True)
class Place:
    """The output of a layer of the trunk, by its name.

    Args:
        name: as `after` of an exit has it.
        shape: of the features there, without the batch.
        kind: of the place, a key of `branchynet.networks.heads.KINDS`; empty where no head fits.
        macs: of the trunk up to here, for one image.
        parameters: of the trunk up to here.
        crossing: whether more than its own tensor crosses a cut here; then no exit can hang here.
        nearest: the next place behind this one where one can, if this is none; empty where there is none.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    macs: int
    parameters: int
    crossing: bool = False
    nearest: str = ""

    @property
    def takes_exit(self) -> bool:
        """Whether an exit can hang here."""
        return bool(self.kind) and not self.crossing


@dataclass(frozen=True)
class Survey:
    """The places of a trunk, in its order, what all of it costs, and whether it gives maps, as exits then do."""

    places: tuple[Place, ...]
    macs: int
    parameters: int
    maps: bool = False


def survey(trunk: nn.Module, input_shape: tuple[int, int, int]) -> Survey:
    """All places of a trunk: `input`, and its layers before the classifier.

    Modules that are no nn.Sequential are looked into where that finds more places to hang an exit on. Of several
    names for one place the shortest is taken. Computed on the meta device: nothing is run.

    Args:
        trunk: as of `attach`.
        input_shape: (C, H, W).

    Raises:
        UserError: the trunk cannot be traced, or does not take such images.
    """
    graph, outputs = traced(trunk, _worth_opening(trunk))
    nodes = list(graph.nodes)
    counter = _Counter(trunk, graph)
    try:
        with torch.no_grad(), counter.flops:
            counter.run(torch.zeros(1, *input_shape, device="meta"))
    except (RuntimeError, ValueError, IndexError) as error:  # what layers raise on a shape
        cause = error.__cause__ or error
        raise DoesNotFit(
            f"the trunk does not take images of shape {tuple(input_shape)} ({reason_of(cause)}): choose model and "
            "data that fit"
        ) from error
    before = nodes.index(classifier_node(trunk, graph))
    clean = set(clean_cuts(graph))
    names: dict[fx.Node, str] = {nodes[0]: INPUT}
    for name, found in outputs.items():
        if len(found) == 1 and nodes.index(found[0]) < before:
            known = names.get(found[0])
            names[found[0]] = name if known is None or len(name) < len(known) else known
    answer, image = list(counter.at.values())[-1][0], input_shape[1:]
    maps = answer is not None and len(answer) == 3
    made: list[Place] = []
    for node in [node for node in nodes if node in names]:
        shape, macs, parameters = counter.at[node]
        if shape is None:
            continue
        kind = next((kind for kind, each in KINDS.items() if each.dimensions == len(shape)), "")
        if maps and (
            kind != "maps" or any(whole % side for whole, side in zip(image, shape[1:], strict=True))
        ):
            kind = ""  # from there no map of the image's size is made
        made.append(Place(names[node], shape, kind, macs, parameters, crossing=node not in clean))
    for n, place in enumerate(made):
        if not place.takes_exit:
            behind = next((other.name for other in made[n:] if other.takes_exit), "")
            made[n] = Place(**{**vars(place), "nearest": behind})
    macs = counter.flops.get_total_flops() // 2
    return Survey(tuple(made), macs, sum(p.numel() for p in trunk.parameters()), maps)


def default_head(place: Place, image: tuple[int, int], maps: bool = False) -> dict[str, Any]:
    """Layers for an exit at a place, by its kind and size, as `build_head` takes them.

    On maps two convolutions with batch norm, the first of which brings them down to about 8 pixels a side, the
    mean over the pixels and a classifier; on tokens a norm, their mean and a classifier; on vectors a classifier.
    Where an exit gives a map, one depthwise convolution on all of the place's pixels.

    Args:
        place: see there.
        image: (H, W) of the images.
        maps: whether it gives one.
    """
    if maps:
        width = min(max(place.shape[0], WIDTHS[0] // 2), WIDTHS[1])
        return {"after": place.name, "convs": [width], "depthwise": True, "norm": "batch"}
    if place.kind == "tokens":
        return {"after": place.name, "before": ["layer"], "tokens": "mean"}
    if place.kind != "maps":
        return {"after": place.name}
    *sides, channels = (
        place.shape if channels_last(place.shape, image) else (*place.shape[1:], place.shape[0])
    )
    stride = max(1, min(sides) // SIDE)
    width = min(max(channels, WIDTHS[0]), WIDTHS[1])
    return {
        "after": place.name,
        "convs": [width, width],
        "kernel": [max(3, stride), 3],
        "stride": [stride, 1],
        "norm": "batch",
        "global_pool": True,
    }


def head_macs(
    place: Place, spec: Mapping[str, Any], num_classes: int, image: tuple[int, int], maps: bool = False
) -> int:
    """MACs of a head at a place for one image."""
    with torch.device("meta"):
        head = build_head(spec, place.shape, num_classes, image, maps).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(torch.zeros(1, *place.shape, device="meta"))
    return counter.get_total_flops() // 2


DEFAULT_COUNT = 2


def auto_exits(found: Survey, exits: Any, image: tuple[int, int]) -> list[dict[str, Any]]:
    """Descriptions of exits at shares of the trunk's MACs, with default heads.

    Args:
        found: of the trunk.
        exits: `auto`, or a mapping: `count`, the number of side exits, at equal shares of the MACs; or instead
            `at`, the shares, rising, between 0 and 1.
        image: (H, W) of the images.

    Raises:
        UserError: shares that are none, or more exits than there are places.
    """
    given = {} if exits == AUTO else dict(exits)
    unknown = next((key for key in given if key not in ("count", "at")), None)
    if unknown is not None:
        raise ArgumentError("exits", f".{unknown}: automatic exits have count or at")
    at, count = given.get("at"), given.get("count")
    if at is None:
        count = DEFAULT_COUNT if count is None else count
        if not is_whole(count):
            raise ArgumentError("exits", f".count={count!r}: it is a whole number of side exits, 1 or more")
        at = [n / (count + 1) for n in range(1, count + 1)]
    shares = list(at) if isinstance(at, Sequence) and not isinstance(at, str) else []
    if not shares or not all(is_number(s) and 0 < s < 1 for s in shares) or sorted(set(shares)) != shares:
        raise ArgumentError(
            "exits", f".at={at!r}: it is a list of rising shares of the MACs, between 0 and 1"
        )
    free = [place for place in found.places if place.takes_exit and place.macs]
    if len(free) < len(shares):
        raise ArgumentError(
            "exits", f": {len(shares)} side exits, but the trunk has {len(free)} places for them: take fewer"
        )
    chosen: list[Place] = []
    for n, share in enumerate(shares):
        # Behind the last one, and leaving places for those to come.
        start = free.index(chosen[-1]) + 1 if chosen else 0
        candidates = free[start : len(free) - (len(shares) - n - 1)]
        chosen.append(min(candidates, key=lambda place: abs(place.macs / found.macs - share)))
    return [default_head(place, image, found.maps) for place in chosen]


class _Counter(fx.Interpreter):
    """Runs a graph on the meta device, and notes at every node its shape, and MACs and parameters so far."""

    def __init__(self, trunk: nn.Module, graph: fx.Graph) -> None:
        state = {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in (*trunk.named_parameters(), *trunk.named_buffers())
        }
        super().__init__(fx.GraphModule(trunk, graph))
        self.state, self.flops = state, FlopCounterMode(display=False)
        self.sizes = {name: parameter.numel() for name, parameter in trunk.named_parameters()}
        self.seen: set[str] = set()
        self.at: dict[fx.Node, tuple[tuple[int, ...] | None, int, int]] = {}

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if node.op in ("call_module", "get_attr"):
            own = f"{node.target}."
            self.seen |= {name for name in self.sizes if f"{name}.".startswith(own)}
        shape = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else None
        macs = self.flops.get_total_flops() // 2  # it counts 2 per multiply-accumulate
        self.at[node] = (shape, macs, sum(self.sizes[name] for name in self.seen))
        return value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        own = {
            name.removeprefix(f"{target}."): tensor
            for name, tensor in self.state.items()
            if name.startswith(f"{target}.")
        }
        was = module.training
        module.eval()  # so that batch norms leave their statistics alone
        try:
            return torch.func.functional_call(module, own, args, kwargs)
        finally:
            module.train(was)

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.state.get(target, super().get_attr(target, args, kwargs))


def _worth_opening(trunk: nn.Module) -> set[str]:
    """The modules, besides nn.Sequentials, inside which exits can hang."""
    opened: set[str] = set()
    hopeless: set[type] = set()
    best, todo = _free_and_closed(trunk, opened)
    for _ in range(MOST_TRACES):
        todo = [name for name in todo if type(trunk.get_submodule(name)) not in hopeless]
        if not todo:
            break
        name = todo.pop(0)
        try:
            free, closed = _free_and_closed(trunk, {*opened, name})
        except UserError:  # it cannot be traced inside
            free, closed = 0, []
        if free > best:
            best = free
            opened.add(name)
            todo += [each for each in closed if each.startswith(f"{name}.")]
        else:
            hopeless.add(type(trunk.get_submodule(name)))
    return opened


def _free_and_closed(trunk: nn.Module, opened: Collection[str]) -> tuple[int, list[str]]:
    """At how many nodes with a name one tensor crosses; and the modules with parts that the graph calls as one."""
    graph, outputs = traced(trunk, opened)
    named = {found[0] for found in outputs.values() if len(found) == 1}
    called = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module")
    closed = [name for name in called if any(True for _ in trunk.get_submodule(name).children())]
    return len(named & set(clean_cuts(graph))), closed
