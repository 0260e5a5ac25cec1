"""Cutting a module into consecutive parts and joining parts again, by torch.fx.

A part keeps its submodules under the names they have in the whole, so a part's state dict is a piece of the
whole's. Other modules than nn.Sequentials stay closed unless they hold a place to cut at: what they do inside
need not be traceable.
"""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx, nn

from branchynet.errors import UserError, reason_of


class _Tracer(fx.Tracer):
    """Opens nn.Sequentials and the modules named, and notes which nodes hold a module's output."""

    def __init__(self, opened: Collection[str]) -> None:
        super().__init__()
        self.opened = opened
        self.outputs: dict[str, list[fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        plain = type(m).forward is nn.Sequential.forward
        return not plain and module_qualified_name not in self.opened

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        value = super().call_module(m, forward, args, kwargs)
        if isinstance(value, fx.Proxy):
            self.outputs.setdefault(self.path_of_module(m), []).append(value.node)
        return value


def traced(module: nn.Module, opened: Collection[str] = ()) -> tuple[fx.Graph, dict[str, list[fx.Node]]]:
    """The graph of `module`, with nn.Sequentials and the submodules named in `opened` traced through.

    Returns:
        The graph, and for each submodule met, containers too, the nodes that hold its output: one per call,
        in the order of the calls.

    Raises:
        UserError: the module cannot be traced, or takes or gives more than one tensor.
    """
    tracer = _Tracer(opened)
    try:
        graph = tracer.trace(module, concrete_args=_defaults(module))
        _fix_defaults(graph)
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        reason = reason_of(error, 200)
        raise UserError(
            f"the trunk {type(module).__name__} cannot be traced ({reason}): "
            f"give it as an nn.Sequential of named layers"
        ) from error
    nodes = list(graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    given = nodes[-1].args[0]
    # A named tuple is a call of its class.
    several = isinstance(given, tuple) or _is_tuple(getattr(given, "target", None))
    if several and getattr(module, "aux_logits", False):
        raise UserError(
            f"the trunk {type(module).__name__} gives several tensors in training, those of its auxiliary "
            "classifiers, too: set aux_logits=False (+model.trunk.aux_logits=false)"
        )
    if len(inputs) != 1 or several or not isinstance(given, fx.Node):
        raise UserError(f"the trunk {type(module).__name__} has to take one tensor and to give one")
    _dropout_as_layers(module, graph)
    return graph, tracer.outputs


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The arguments of a module behind its first one that have defaults, with these."""
    own = list(inspect.signature(module.forward).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in own if p.kind in named and p.default is not inspect.Parameter.empty}


def _fix_defaults(graph: fx.Graph) -> None:
    """Take out the inputs that were traced at their defaults, and what asserts that they have them."""
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        if not placeholder.args:
            continue
        behind: dict[fx.Node, None] = {}
        rest = [placeholder]
        while rest:
            node = rest.pop()
            behind[node] = None
            rest += [user for user in node.users if user not in behind]
        for node in sorted(behind, reverse=True):
            graph.erase_node(node)


def _dropout_as_layers(module: nn.Module, graph: fx.Graph) -> None:
    """Make layers of calls of F.dropout, which have been traced with the `training` flag of this moment: they would
    drop out in evaluation, too, or never."""
    calls = [n for n in graph.nodes if n.op == "call_function" and n.target is torch.nn.functional.dropout]
    for n, node in enumerate(calls):
        given = inspect.signature(torch.nn.functional.dropout).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        name = f"dropout_call_{n}"
        if not isinstance(getattr(module, name, None), nn.Dropout):
            module.add_module(name, nn.Dropout(given.arguments["p"]))
        with graph.inserting_before(node):
            layer = graph.call_module(name, (given.arguments["input"],))
        node.replace_all_uses_with(layer)
        graph.erase_node(node)


def _is_tuple(target: object) -> bool:
    return isinstance(target, type) and issubclass(target, tuple)


def clean_cuts(graph: fx.Graph) -> list[fx.Node]:
    """The nodes, in order, after which nothing but their own value crosses to the rest of the graph."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    clean, reach = [], 0  # reach: the last node that takes a value from before this one
    for node, index in order.items():
        if reach <= index:
            clean.append(node)
        reach = max([reach, *(order[user] for user in node.users)])
    return clean


def split(module: nn.Module, graph: fx.Graph, cuts: Sequence[fx.Node]) -> list[nn.Module]:
    """`module` in len(cuts) + 1 consecutive parts, each but the last ending with its cut's value.

    The cuts are clean ones (`clean_cuts`), in order. A part without a node is nn.Identity. Parts share the
    module's parameters.
    """
    nodes = list(graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
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
    whole.training = parts[0].training  # not .train(): that would set the mode of the shared layers
    return whole


def _attribute(module: nn.Module, name: str) -> object:
    value: object = module
    for step in name.split("."):
        value = getattr(value, step)
    return value
