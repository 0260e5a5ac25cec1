"""Heads: the layers between a place on the trunk and an exit's logits, from a plain description.

Shapes: B batch, C channels, H, W, K classes.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.lrn import released_lrn
from branchynet.networks.resnet import BasicBlock, batch_norm

DEFAULTS: dict[str, Any] = {
    "before": [],
    "blocks": 0,
    "convs": [],
    "kernel": 3,
    "stride": 1,
    "norm": "none",
    "pool": 0,
    "global_pool": False,
    "fc": [],
}
BEFORE = ("relu", "pool2", "pool3", "lrn", "batch")
NORMS = ("none", "batch", "lrn")
POOLS = (0, 2, 3)


def build_head(spec: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """The head that `spec` describes, as layers in a row that end in logits (B, K).

    Args:
        spec: `before`: layers between the place and the first convolution, of relu, pool2, pool3, lrn, batch;
            `blocks`: so many residual blocks of the place's width behind them; `convs`: output channels of
            each convolution; `kernel`, `stride`, `norm` (none, batch, lrn) and `pool` (the window of the max
            pooling behind it, 0 for none): one for all of them or one each; `global_pool`: average over all
            pixels before the classifier; `fc`: widths of hidden fully-connected layers. `after` is the
            caller's. Convolutions are padded by kernel // 2; pooling has stride 2 and rounds up; ReLU follows
            every convolution and hidden layer. Before batch norm, convolutions have no biases.
        input_shape: (C, H, W) at the place, or (features,) where the trunk is flat.
        num_classes: K.

    Raises:
        UserError: an unknown key, a value that is not allowed, or a layer that leaves less than one pixel.
    """
    where = f"the exit after {spec.get('after', '?')!r}"
    unknown = [key for key in spec if key != "after" and key not in DEFAULTS]
    if unknown:
        raise UserError(f"{where} has {unknown[0]!r}: known are after, {', '.join(DEFAULTS)}")
    spec = {**DEFAULTS, **spec}
    before = spec["before"]
    if not isinstance(before, list | tuple) or any(name not in BEFORE for name in before):
        raise UserError(f"{where} has before: {before!r}: it is a list of {', '.join(BEFORE)}, or []")
    if type(spec["global_pool"]) is not bool:
        raise UserError(f"{where} has global_pool: {spec['global_pool']!r}: it is true or false")
    blocks = spec["blocks"]
    if type(blocks) is not int or blocks < 0:
        raise UserError(
            f"{where} has blocks: {blocks!r}: it is a whole number of residual blocks, 0 for none"
        )
    convs = _numbers(spec["convs"], "convs", where)
    kernels = _each(spec, "kernel", len(convs), where)
    strides = _each(spec, "stride", len(convs), where)
    norms = _each(spec, "norm", len(convs), where, NORMS)
    pools = _each(spec, "pool", len(convs), where, POOLS)

    spatial = bool(convs) or blocks > 0 or spec["global_pool"] or any(name != "relu" for name in before)
    if len(input_shape) != 3 and spatial:
        raise UserError(
            f"{where} needs pixels, but the trunk is flat there, {tuple(input_shape)}: allowed are fc and "
            f"before: [relu], with convs: [] and global_pool: false"
        )

    head = _Builder(where, input_shape)
    for name in before:
        head.add(_layer(name, head.shape[0]))
    for _ in range(blocks):
        head.add(BasicBlock(head.shape[0], head.shape[0]))
    for width, kernel, stride, norm, pool in zip(convs, kernels, strides, norms, pools, strict=True):
        head.add(nn.Conv2d(head.shape[0], width, kernel, stride, kernel // 2, bias=norm != "batch"))
        if norm == "batch":
            head.add(_layer("batch", width))
        # Pooling and ReLU commute; in this order ReLU has a quarter of the work. LRN has to see what ReLU gives.
        if pool and norm != "lrn":
            head.add(_layer(f"pool{pool}", width))
        head.add(nn.ReLU())
        if norm == "lrn":
            head.add(_layer("lrn", width))
            if pool:
                head.add(_layer(f"pool{pool}", width))
    if spec["global_pool"]:
        head.add(nn.AdaptiveAvgPool2d(1))
    if len(head.shape) > 1:
        head.add(nn.Flatten())
    for width in _numbers(spec["fc"], "fc", where):
        head.add(nn.Linear(head.shape[0], width))
        head.add(nn.ReLU())
    head.add(nn.Linear(head.shape[0], num_classes))
    return nn.Sequential(*head.layers)


class _Builder:
    """Layers in a row, and the shape behind the last of them."""

    def __init__(self, where: str, input_shape: tuple[int, ...]) -> None:
        self.where = where
        self.shape = tuple(input_shape)
        self.layers: list[nn.Module] = []

    def add(self, layer: nn.Module) -> None:
        # Two samples on the meta device: nothing is computed, and batch norm accepts a single pixel.
        x = torch.zeros(2, *self.shape, device="meta")
        try:
            with torch.no_grad():
                shape = copy.deepcopy(layer).to("meta")(x).shape[1:]
        except RuntimeError as error:
            raise UserError(
                f"{self.where} has a {type(layer).__name__} on {tuple(self.shape)}, which leaves less than one "
                f"pixel or does not fit: take fewer poolings, smaller strides or fewer layers"
            ) from error
        self.shape = tuple(shape)
        self.layers.append(layer)


def _layer(name: str, channels: int) -> nn.Module:
    """One of BEFORE, with the constants of the authors' released code."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "pool2": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
        "pool3": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
        "lrn": released_lrn,
        "batch": lambda: batch_norm(channels),
    }
    return layers[name]()


def _numbers(values: Any, key: str, where: str) -> list[int]:
    wrong = not isinstance(values, list | tuple) or any(type(v) is not int or v < 1 for v in values)
    if wrong:
        raise UserError(
            f"{where} has {key}: {values!r}: it is a list of whole numbers above 0, such as [32,32]"
        )
    return list(values)


def _each(spec: Mapping[str, Any], key: str, count: int, where: str, allowed: tuple = ()) -> list[Any]:
    """One value per convolution, from one for all or one each."""
    value = spec[key]
    # One for all is checked even where there are no convolutions: a typo is a typo.
    each = isinstance(value, list | tuple)
    values = list(value) if each else [value] * max(count, 1)
    if each and len(values) != count:
        raise UserError(
            f"{where} has {len(values)} values of {key} for {count} convolutions: one for all or one each"
        )
    for item in values:
        if allowed and (item not in allowed or type(item) is not type(allowed[0])):
            raise UserError(f"{where} has {key}: {item!r}: it is one of {', '.join(map(str, allowed))}")
        if not allowed and (type(item) is not int or item < 1):
            raise UserError(f"{where} has {key}: {item!r}: it is a whole number above 0")
    return values[:count]
