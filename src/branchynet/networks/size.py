"""How much memory a network takes at least, from its shapes alone: nothing is computed, nothing is laid out.

Shapes: C channels, H, W.
"""

import math

import torch
from torch import nn

from branchynet.networks.branched import BranchedNetwork

FLOAT = 4  # bytes


def weights_bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return FLOAT * sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))


def activation_bytes(network: BranchedNetwork, input_shape: tuple[int, int, int]) -> int:
    """What the layers with parameters give for one image: training keeps at least that until the gradient is known.

    Args:
        network: on the meta device.
        input_shape: (C, H, W).
    """
    total = 0

    def count(layer: nn.Module, given: object, out: object) -> None:
        nonlocal total
        if isinstance(out, torch.Tensor):
            total += out.numel()

    layers = [
        layer
        for layer in network.modules()
        if not any(layer.children()) and any(True for _ in layer.parameters())
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            network(torch.zeros(2, *input_shape, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return FLOAT * math.ceil(total / 2)
