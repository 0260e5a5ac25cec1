"""Heads: the layers between a place on the trunk and an exit's logits, from a plain description.

Shapes: B batch, C channels, H, W, K classes.
"""

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from branchynet.errors import UnknownName, UserError, is_whole, reason_of
from branchynet.networks.lrn import released_lrn
from branchynet.networks.resnet import BasicBlock, batch_norm
from branchynet.networks.tokens import POOLS as TOKENS
from branchynet.networks.tokens import token_pool

DEFAULTS: dict[str, Any] = {
    "before": [],
    "blocks": 0,
    "convs": [],
    "kernel": 3,
    "stride": 1,
    "depthwise": False,
    "residual": False,
    "norm": "none",
    "pool": 0,
    "global_pool": False,
    "tokens": "mean",
    "fc": [],
}
EXITS = "exits"  # beside these, those inside the head: see `branchynet.networks.attach`
BEFORE = ("relu", "pool2", "pool3", "lrn", "batch", "layer")
NORMS = ("none", "batch", "lrn")
POOLS = (0, 2, 3)
FLAGS = (False, True)


def build_head(
    spec: Mapping[str, Any],
    input_shape: tuple[int, ...],
    num_classes: int,
    image: tuple[int, int] = (1, 1),
    maps: bool = False,
) -> nn.Module:
    """The head that `spec` describes, for the kind of place that it hangs on: see `KINDS`.

    Args:
        spec: `after`, which is the caller's, and the layers: `before`: those between the place and the first
            convolution, of relu, pool2, pool3, lrn, batch, layer (LayerNorm); `blocks`: the number of residual
            blocks of the place's width after them; `convs`: output channels of each convolution; `kernel`,
            `stride`, `depthwise` (a convolution of each channel by itself, then one of 1×1 over all of them),
            `residual` (what went in is added to what comes out, before ReLU), `norm` (none, batch, lrn) and
            `pool` (the window of the max pooling after it, 0 for none): one for all of them or one each;
            `global_pool`: average over all pixels before the classifier; `tokens`: what becomes of a
            transformer's tokens, their mean, the first one (class) or a learned weighted mean (attention);
            `fc`: widths of hidden fully-connected layers. Convolutions are padded by kernel // 2; pooling has
            stride 2 and rounds up; ReLU follows every convolution and hidden layer. Before batch norm,
            convolutions have no biases. One `residual: true` for all is for those that keep width and size; in
            a list it is an error for others. Instead of layers: `head`, a function of `shape` and `num_classes`
            that gives a module.
        input_shape: at the place, without the batch.
        num_classes: K.
        image: (H, W) of the images; what counts is their ratio, by which the pixels among a map's dimensions are
            known: where the channels come last, they are brought to the front first.
        maps: whether it gives logits for every pixel. Then after the convolutions comes one of 1×1, which gives a
            pixel of the place those of all pixels that the image has there.

    Returns:
        From the features (B, *input_shape) to logits (B, K), or (B, K, H, W).

    Raises:
        UserError: an unknown key, a value that is not allowed, a layer that leaves less than one pixel, or a head
            of one's own that does not give logits.
    """
    where = f"the exit after {spec.get('after', '?')!r}"
    if spec.get("head") is not None:
        return _own_head(spec, where, tuple(input_shape), (num_classes, *image) if maps else (num_classes,))
    unknown = [key for key in spec if key not in ("after", "head", *DEFAULTS)]
    if unknown:
        raise UnknownName(
            f"{where} has {unknown[0]!r}: known are after, head, {EXITS}, {', '.join(DEFAULTS)}"
        )
    head = _Builder(where, input_shape)
    if channels_last(input_shape, image):
        head.add(ChannelsFirst())
    if not maps:
        return _kind(input_shape, where).build({**DEFAULTS, **spec}, head, num_classes)
    if len(head.shape) != 3:
        raise UserError(
            f"{where} gives a map, and the trunk has no pixels there, {tuple(head.shape)}: hang it on another place"
        )
    return _to_maps({**DEFAULTS, **spec}, head, num_classes, image)


def with_names(head: nn.Module) -> nn.Module:
    """A head whose layers have names to hang an exit on: conv1, norm1, relu1, conv2 …; others have their own."""
    if type(head) is not nn.Sequential:
        return head
    counts: Counter[str] = Counter()
    named = OrderedDict()
    for layer in head:
        name = _NAMES.get(type(layer), type(layer).__name__.lower())
        counts[name] += 1
        named[f"{name}{counts[name]}"] = layer
    return nn.Sequential(named)


_NAMES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "norm",
    nn.LayerNorm: "norm",
    nn.LocalResponseNorm: "norm",
    nn.MaxPool2d: "pool",
    nn.AdaptiveAvgPool2d: "global_pool",
    nn.Linear: "fc",
    BasicBlock: "block",
}


def channels_last(shape: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Whether features of this shape are (H, W, C), as in Swin and ConvNeXt: their first two sides are in the
    image's ratio (H, W), but for a rounded pixel, and their last two are not."""

    def pixels(height: int, width: int) -> bool:
        return abs(height - width * image[0] / image[1]) <= 1

    return len(shape) == 3 and pixels(*shape[:2]) and not pixels(*shape[1:])


class ChannelsFirst(nn.Module):
    """Maps whose channels come last."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, C, H, W)."""
        return x.permute(0, 3, 1, 2)


class Kind(NamedTuple):
    """A kind of place on a trunk, and the head that hangs there."""

    dimensions: int  # of the features, without the batch
    build: Callable[[Mapping[str, Any], "_Builder", int], nn.Sequential]


class _Builder:
    """Layers in a row, and the shape that the last of them gives."""

    def __init__(self, where: str, input_shape: tuple[int, ...]) -> None:
        self.where = where
        self.shape = tuple(input_shape)
        self.layers: list[nn.Module] = []

    def add(self, layer: nn.Module) -> None:
        """Put a layer after the others."""
        try:
            shape = _shape_after(layer, self.shape)
        except RuntimeError as error:
            raise UserError(
                f"{self.where} has a {type(layer).__name__} on {tuple(self.shape)}, which leaves less than one "
                f"pixel or does not fit: take fewer poolings, smaller strides or fewer layers"
            ) from error
        self.shape = shape
        self.layers.append(layer)

    def classify(self, spec: Mapping[str, Any], num_classes: int) -> nn.Sequential:
        """All layers, then `fc` and the classifier."""
        for width in _numbers(spec["fc"], "fc", self.where):
            self.add(nn.Linear(self.shape[0], width))
            self.add(nn.ReLU())
        self.add(nn.Linear(self.shape[0], num_classes))
        return nn.Sequential(*self.layers)


def _on_maps(spec: Mapping[str, Any], head: _Builder, num_classes: int) -> nn.Sequential:
    """On features (C, H, W)."""
    _convolutions(spec, head)
    if spec["global_pool"]:
        head.add(nn.AdaptiveAvgPool2d(1))
    head.add(nn.Flatten())
    return head.classify(spec, num_classes)


def _to_maps(
    spec: Mapping[str, Any], head: _Builder, num_classes: int, image: tuple[int, int]
) -> nn.Sequential:
    """On features (C, H, W), from there to (K, *image)."""
    where = head.where
    if spec["global_pool"] or _numbers(spec["fc"], "fc", where):
        raise UserError(f"{where} gives a map: allowed are convolutions, with fc: [] and global_pool: false")
    _convolutions(spec, head)
    height, width = head.shape[1:]
    finer = image[0] // height
    if (height * finer, width * finer) != image:
        raise UserError(
            f"{where} has {height}×{width} pixels after its convolutions, of which the image's "
            f"{image[0]}×{image[1]} are no multiple: take other strides and poolings, or another place"
        )
    head.add(nn.Conv2d(head.shape[0], num_classes * finer**2, 1))
    if finer > 1:
        head.add(nn.PixelShuffle(finer))
    return nn.Sequential(*head.layers)


def _convolutions(spec: Mapping[str, Any], head: _Builder) -> None:
    """All layers before the classifier."""
    where = head.where
    before, blocks, convs = _checked(spec, where)
    if "layer" in before:
        raise UserError(f"{where} has before: layer, which is for tokens and vectors: take batch")
    kernels = _each(spec, "kernel", len(convs), where)
    strides = _each(spec, "stride", len(convs), where)
    norms = _each(spec, "norm", len(convs), where, NORMS)
    pools = _each(spec, "pool", len(convs), where, POOLS)
    for name in before:
        head.add(_layer(name, head.shape[0]))
    for _ in range(blocks):
        head.add(BasicBlock(head.shape[0], head.shape[0]))
    depthwise = _each(spec, "depthwise", len(convs), where, FLAGS)
    residual = _residual(spec, head.shape[0], convs, kernels, strides, where)
    for width, kernel, stride, apart, skip, norm, pool in zip(
        convs, kernels, strides, depthwise, residual, norms, pools, strict=True
    ):
        layers = _convolution(head.shape[0], width, kernel, stride, apart, norm == "batch")
        if skip:
            head.add(Residual(*layers))
        else:
            for layer in layers:
                head.add(layer)
        # Pooling and ReLU commute; in this order ReLU has a quarter of the work. LRN has to see what ReLU gives.
        if pool and norm != "lrn":
            head.add(_layer(f"pool{pool}", width))
        head.add(nn.ReLU())
        if norm == "lrn":
            head.add(_layer("lrn", width))
            if pool:
                head.add(_layer(f"pool{pool}", width))


def _convolution(
    channels: int, width: int, kernel: int, stride: int, depthwise: bool, normalised: bool
) -> list[nn.Module]:
    """A convolution, or a depthwise and a pointwise one with ReLU between them, each with its batch norm."""

    def conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not normalised)
        return [layer, _layer("batch", outputs)] if normalised else [layer]

    if not depthwise:
        return conv(channels, width, kernel, stride)
    return [
        *conv(channels, channels, kernel, stride, groups=channels),
        nn.ReLU(),
        *conv(channels, width, 1, 1),
    ]


class Residual(nn.Sequential):
    """Layers that keep the shape of their input, and what went in added to what comes out."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + super().forward(x)


def _residual(
    spec: Mapping[str, Any],
    channels: int,
    convs: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    where: str,
) -> list[bool]:
    """Which convolutions have a way around them."""
    wanted = _each(spec, "residual", len(convs), where, FLAGS)
    inputs = [channels, *convs][: len(convs)]
    fits = [
        before == width and kernel % 2 == 1 and stride == 1
        for before, width, kernel, stride in zip(inputs, convs, kernels, strides, strict=True)
    ]
    if spec["residual"] is True:
        if not any(fits):
            raise UserError(
                f"{where} has residual: true, but no convolution keeps width and size: two of the same width in a "
                "row, an odd kernel and stride 1 do"
            )
        return fits
    for n, (want, fit) in enumerate(zip(wanted, fits, strict=True)):
        if want and not fit:
            raise UserError(
                f"{where} has residual for convolution {n + 1}, which takes {inputs[n]} channels to {convs[n]}, "
                f"kernel {kernels[n]}, stride {strides[n]}: it is for those that keep width and size, with an odd "
                "kernel"
            )
    return wanted


def _on_tokens(spec: Mapping[str, Any], head: _Builder, num_classes: int) -> nn.Sequential:
    """On features (T, D), the tokens of a transformer."""
    before, blocks, convs = _checked(spec, head.where)
    if convs or blocks or spec["global_pool"] or any(name != "layer" for name in before):
        raise UserError(
            f"{head.where} needs pixels, but the trunk has tokens there, {tuple(head.shape)}: allowed are tokens, "
            "fc and before: [layer], with convs: [] and global_pool: false"
        )
    for name in before:
        head.add(_layer(name, head.shape[-1]))
    head.add(token_pool(spec["tokens"], head.shape[-1]))
    return head.classify(spec, num_classes)


def _on_vectors(spec: Mapping[str, Any], head: _Builder, num_classes: int) -> nn.Sequential:
    """On features (F,), where the trunk is flat."""
    before, blocks, convs = _checked(spec, head.where)
    if convs or blocks or spec["global_pool"] or any(name not in ("relu", "layer") for name in before):
        raise UserError(
            f"{head.where} needs pixels, but the trunk is flat there, {tuple(head.shape)}: allowed are fc and "
            f"before: [relu] or [layer], with convs: [] and global_pool: false"
        )
    for name in before:
        head.add(_layer(name, head.shape[0]))
    return head.classify(spec, num_classes)


# What an exit can hang on; a head is built by the first that fits.
KINDS = {"maps": Kind(3, _on_maps), "tokens": Kind(2, _on_tokens), "vectors": Kind(1, _on_vectors)}


def _kind(shape: tuple[int, ...], where: str) -> Kind:
    for kind in KINDS.values():
        if kind.dimensions == len(shape):
            return kind
    raise UserError(
        f"{where} hangs on features of shape {tuple(shape)}: a head is for {' or '.join(KINDS)}, of "
        f"{' or '.join(str(kind.dimensions) for kind in KINDS.values())} dimensions; give it a `head` of its own"
    )


def _own_head(
    spec: Mapping[str, Any], where: str, shape: tuple[int, ...], answer: tuple[int, ...]
) -> nn.Module:
    """What the function `head` gives, if it is a head, to logits of the shape `answer`."""
    others = [key for key in spec if key not in ("after", "head")]
    if others:
        raise UserError(f"{where} has a head of its own and {others[0]!r}: leave one of them out")
    if not callable(spec["head"]):
        raise UserError(
            f"{where} has head: {spec['head']!r}: it is a function of shape and num_classes that gives a module"
        )
    try:
        head = spec["head"](shape=shape, num_classes=answer[0])
    except TypeError as error:  # what Python raises on wrong arguments
        reason = reason_of(error)
        raise UserError(f"{where} has a head that cannot be made ({reason})") from error
    if not isinstance(head, nn.Module):
        raise UserError(f"{where} has a head that is {type(head).__name__}: it is a torch.nn.Module")
    try:
        given = _shape_after(head, shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # of layers on a shape, and ours below
        reason = reason_of(error)
        raise UserError(f"{where} has a head that does not fit features {shape} ({reason})") from error
    if given != answer:
        raise UserError(f"{where} has a head that gives {given}: it gives logits, {answer} here")
    return head


def _shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Worked out for two samples on the meta device: nothing is computed, and batch norm accepts a single pixel."""
    x = torch.zeros(2, *shape, device="meta")
    with torch.no_grad():
        given = copy.deepcopy(module).to("meta")(x)
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"it gives {type(given).__name__}, not a tensor")
    return tuple(given.shape[1:])


def _checked(spec: Mapping[str, Any], where: str) -> tuple[list[str], int, list[int]]:
    """`before`, `blocks` and `convs`, and `global_pool` looked at."""
    before, blocks = spec["before"], spec["blocks"]
    if not isinstance(before, list | tuple) or any(name not in BEFORE for name in before):
        raise UserError(f"{where} has before: {before!r}: it is a list of {', '.join(BEFORE)}, or []")
    if type(spec["global_pool"]) is not bool:
        raise UserError(f"{where} has global_pool: {spec['global_pool']!r}: it is true or false")
    if spec["tokens"] not in TOKENS:
        raise UserError(f"{where} has tokens: {spec['tokens']!r}: it is one of {', '.join(TOKENS)}")
    if not is_whole(blocks, 0):
        raise UserError(
            f"{where} has blocks: {blocks!r}: it is a whole number of residual blocks, 0 for none"
        )
    return list(before), blocks, _numbers(spec["convs"], "convs", where)


def _layer(name: str, channels: int) -> nn.Module:
    """One of BEFORE, with the constants of the authors' released code."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "pool2": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
        "pool3": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
        "lrn": released_lrn,
        "batch": lambda: batch_norm(channels),
        "layer": lambda: nn.LayerNorm(channels),
    }
    return layers[name]()


def _numbers(values: Any, key: str, where: str) -> list[int]:
    if not isinstance(values, list | tuple) or not all(is_whole(value) for value in values):
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
            names = "true or false" if allowed is FLAGS else f"one of {', '.join(map(str, allowed))}"
            raise UserError(f"{where} has {key}: {item!r}: it is {names}")
        if not allowed and not is_whole(item):
            raise UserError(f"{where} has {key}: {item!r}: it is a whole number above 0")
    return values[:count]
