"""Layers that a head and the trunk behind its exit both begin with, run once.

The paper's B-LeNet and B-AlexNet tap the trunk right behind a convolution, before its activation (the authors'
released code): what follows on the trunk, activation, pooling and normalisation, is what the head begins with, too.
"""

from torch import fx, nn

from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.graph import join, split, traced

# Of two such layers that read the same, one can stand for both: they hold no numbers, and draw none in evaluation.
_STATELESS = (
    nn.AvgPool2d,
    nn.Dropout,
    nn.Flatten,
    nn.Identity,
    nn.LocalResponseNorm,
    nn.MaxPool2d,
    nn.ReLU,
)


def with_shared_starts(network: BranchedNetwork) -> BranchedNetwork:
    """The same network, for evaluation, with the layers that head n and segment n + 1 both begin with in segment n.

    They are computed once instead of twice. Where they pool, a smaller tensor goes from exit to exit; and an engine
    can join them with the layers before them. Outputs are the very same.

    Args:
        network: it is not changed; all layers are shared with what is given.
    """
    segments, heads = list(network.segments), list(network.heads)
    for n in range(network.num_exits - 1):
        starts = _start(heads[n]), _start(segments[n + 1])
        common = 0
        for ours, theirs in zip(*starts, strict=False):
            if type(ours[1]) is not type(theirs[1]) or repr(ours[1]) != repr(theirs[1]):
                break
            common += 1
        if common:
            _, heads[n] = _cut(heads[n], starts[0][common - 1][0])
            shared, segments[n + 1] = _cut(segments[n + 1], starts[1][common - 1][0])
            segments[n] = join([segments[n], shared])
    return BranchedNetwork(segments, heads, network.places, network.shares)


def _start(module: nn.Module) -> list[tuple[fx.Node, nn.Module]]:
    """The stateless layers that a module begins with, in a row: nothing else takes what they take."""
    if isinstance(module, nn.Identity):  # there is nothing to trace
        return []
    try:
        graph, _ = traced(module)
    except UserError:  # a head of somebody's own
        return []
    value = next(iter(graph.nodes))
    start: list[tuple[fx.Node, nn.Module]] = []
    while len(value.users) == 1:
        value = next(iter(value.users))
        layer = module.get_submodule(str(value.target)) if value.op == "call_module" else None
        if not isinstance(layer, _STATELESS):
            break
        start.append((value, layer))
    return start


def _cut(module: nn.Module, after: fx.Node) -> list[nn.Module]:
    """Both parts of a module, before and behind what one of its nodes gives."""
    return split(module, after.graph, [after])
