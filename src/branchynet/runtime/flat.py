"""Modules as plain functions: at batch 1, a call of a module costs as much as a small layer computes.

Shapes: B batch.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchynet.runtime.for_inference import LayerTracer

Function = Callable[[Tensor], Tensor]


def flat(module: nn.Module) -> Function:
    """What a module computes in eval mode, on tensors alone: the same operations on the same weights.

    Calls of modules, containers and hooks are left out: one to two microseconds for every layer. A module that
    cannot be traced is called as it is.

    Args:
        module: it is in eval mode and stays so; its weights are shared, and may not be replaced afterwards.
    """
    try:
        graph = LayerTracer().trace(module)
    except Exception:  # tracing runs the module's own code, which may raise anything
        return module
    layers = SimpleNamespace()
    for node in graph.nodes:
        if node.op == "get_attr":
            return module
        if node.op == "call_module":
            setattr(layers, node.name, _function(module.get_submodule(str(node.target))))
            node.target = node.name  # flat names: the generated code looks each up once
    if len([node for node in graph.nodes if node.op == "placeholder"]) != 1:
        return module
    code = graph.python_code("self")
    names: dict[str, Any] = {**code.globals}
    exec(code.src, names)  # as torch.fx itself makes a module's forward of a graph
    return partial(names["forward"], layers)


def _function(layer: nn.Module) -> Function:
    """A layer's own operation; of one that is not known, what its forward does."""
    make = _KNOWN.get(type(layer))
    found = make(layer) if make else None
    return found or layer.forward


def _conv(layer: nn.Conv2d) -> Function | None:
    if layer.padding_mode != "zeros":
        return None
    weight, bias, stride, padding = layer.weight, layer.bias, layer.stride, layer.padding
    dilation, groups = layer.dilation, layer.groups
    return lambda x: torch.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _linear(layer: nn.Linear) -> Function:
    weight, bias = layer.weight, layer.bias
    return lambda x: F.linear(x, weight, bias)


def _max_pool(layer: nn.MaxPool2d) -> Function | None:
    if layer.return_indices:
        return None
    window, stride, padding = layer.kernel_size, layer.stride, layer.padding
    dilation, ceil = layer.dilation, layer.ceil_mode
    return lambda x: torch.max_pool2d(x, window, stride, padding, dilation, ceil)


def _flatten(layer: nn.Flatten) -> Function:
    start, end = layer.start_dim, layer.end_dim
    return lambda x: x.flatten(start, end)


def _nothing(layer: nn.Module) -> Function:
    return lambda x: x


_KNOWN: dict[type[nn.Module], Callable[[Any], Function | None]] = {
    nn.Conv2d: _conv,
    nn.Dropout: _nothing,
    nn.Flatten: _flatten,
    nn.Identity: _nothing,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: lambda layer: torch.relu_ if layer.inplace else torch.relu,
}
