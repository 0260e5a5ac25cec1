"""Cutting a module into consecutive parts and joining parts again, by torch.fx.

A part keeps its submodules under the names they have in the whole, so a part's state dict is a piece of the
whole's. Modules that hold no place to cut at stay closed: what they do inside need not be traceable.
"""

from collections.abc import Collection, Sequence

import torch
from torch import fx, nn

from branchynet.errors import UserError


class _Tracer(fx.Tracer):
    """Opens a module only if its name is among those to open."""

    def __init__(self, opened: Collection[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


def trace(module: nn.Module, opened: Collection[str]) -> fx.Graph:
    """The graph of `module`, with the submodules named in `opened` traced through.

    Raises:
        UserError: the module cannot be traced, or takes or gives more than one tensor.
    """
    try:
        graph = _Tracer(opened).trace(module)
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"the trunk {type(module).__name__} cannot be traced ({reason[:200]}): "
            f"give it as an nn.Sequential of named layers"
        ) from error
    nodes = list(graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(nodes[-1].args[0], fx.Node):
        raise UserError(f"the trunk {type(module).__name__} has to take one tensor and to give one")
    for node in nodes:
        # Traced with the `training` flag of this moment, it would drop out in evaluation, too.
        if node.op == "call_function" and node.target is torch.nn.functional.dropout:
            raise UserError(f"the trunk {type(module).__name__} calls F.dropout: use nn.Dropout instead")
    return graph


def split(module: nn.Module, graph: fx.Graph, cuts: Sequence[fx.Node]) -> list[nn.Module] | fx.Node:
    """`module` in len(cuts) + 1 consecutive parts, each but the last ending with its cut's value.

    A part without a node is nn.Identity. Parts share the module's parameters.

    Returns:
        The parts; or, where more than the cut's own value would cross a cut, that cut.
    """
    nodes = list(graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    for cut in cuts:
        for node in nodes[: order[cut]]:
            if any(order[user] > order[cut] for user in node.users):
                return cut

    output = nodes[-1].args[0]
    assert isinstance(output, fx.Node)
    value = nodes[0]  # the input of the part to come
    parts: list[nn.Module] = []
    for end in [*cuts, output]:
        part = fx.Graph()
        copies = {value: part.placeholder("x")}
        for node in nodes[order[value] + 1 : order[end] + 1]:
            copies[node] = part.node_copy(node, copies.__getitem__)
        part.output(copies[end])
        parts.append(fx.GraphModule(module, part) if len(copies) > 1 else nn.Identity())
        value = end
    return parts


def join(parts: Sequence[nn.Module]) -> nn.Module:
    """Parts that `split` gave, as one flat module that shares their parameters; others as an nn.Sequential."""
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    if not all(isinstance(part, fx.GraphModule) for part in parts):
        return nn.Sequential(*parts)
    graph = fx.Graph()
    value = graph.placeholder("x")
    attributes: dict[str, object] = {}
    for part in parts:
        assert isinstance(part, fx.GraphModule)
        inputs = [node for node in part.graph.nodes if node.op == "placeholder"]
        value = graph.graph_copy(part.graph, {inputs[0]: value})  # type: ignore[assignment]
        for node in part.graph.nodes:
            if node.op in ("call_module", "get_attr"):
                attributes[node.target] = _attribute(part, node.target)
    graph.output(value)
    whole = fx.GraphModule(attributes, graph)
    return whole.train(parts[0].training)


def _attribute(module: nn.Module, name: str) -> object:
    value: object = module
    for step in name.split("."):
        value = getattr(value, step)
    return value
