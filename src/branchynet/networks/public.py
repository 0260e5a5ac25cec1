"""Backbones of other packages as trunks: torchvision's, and timm's where that is installed.

Their weights are random: those that were trained elsewhere come by `model.weights`.

C channels, K classes.
"""

from typing import Any

from torch import nn

from branchynet.errors import UserError, check_whole, counted


def torchvision_trunk(model: str, num_classes: int = 1000, in_channels: int = 3, **more: Any) -> nn.Module:
    """One of torchvision's classification networks, such as `resnet18`.

    Args:
        model: its name in torchvision.
        num_classes: K.
        in_channels: C; other than 3, the first convolution is replaced by one that takes them.
        more: its own arguments, such as `image_size` of a ViT.

    Raises:
        UserError: there is no such network, or it refuses an argument.
    """
    from torchvision import models  # slow to import, so only here

    check_whole("num_classes", num_classes)
    check_whole("in_channels", in_channels)
    known = models.list_models(module=models)
    if model not in known:
        raise UserError(f"model={model}: torchvision has no such network; it has {', '.join(known)}")
    if more.get("weights") is not None:
        raise UserError("weights are not downloaded: get their file, and name it by model.weights=<file>")
    try:
        trunk: nn.Module = models.get_model(
            model, weights=None, num_classes=num_classes, **_settled(model, more)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"torchvision's {model} refuses its arguments ({error})") from error
    return trunk if in_channels == 3 else with_channels(trunk, in_channels)


def _settled(model: str, more: dict[str, Any]) -> dict[str, Any]:
    """Of networks with auxiliary classifiers, those are left out: a trunk gives one tensor."""
    if model in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True, **more}
    return more


def timm_trunk(model: str, num_classes: int = 1000, in_chans: int = 3, **more: Any) -> nn.Module:
    """One of timm's networks, such as `vit_tiny_patch16_224`.

    Args:
        model: its name in timm.
        num_classes: K.
        in_chans: C.
        more: its own arguments, such as `img_size`.

    Raises:
        UserError: timm is not installed, has no such network, or that refuses an argument.
    """
    try:
        import timm  # an extra
    except ImportError as error:
        raise UserError(
            "timm is not installed: pip install 'branchynet[timm]', or take one of torchvision's"
        ) from error
    if model not in timm.list_models():
        like = timm.list_models(f"*{model.partition('_')[0]}*")
        raise UserError(f"model={model}: timm has no such network; of that family {counted(len(like), 'name')}: "
                        f"{', '.join(like[:10])} …")  # fmt: skip
    if more.get("pretrained"):
        raise UserError("weights are not downloaded: get their file, and name it by model.weights=<file>")
    try:
        trunk: nn.Module = timm.create_model(model, num_classes=num_classes, in_chans=in_chans, **more)
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise UserError(f"timm's {model} refuses its arguments ({error})") from error
    return trunk


def with_channels(trunk: nn.Module, channels: int) -> nn.Module:
    """The trunk, its first convolution replaced by a new one that takes so many channels."""
    for name, layer in trunk.named_modules():
        if isinstance(layer, nn.Conv2d):
            new = nn.Conv2d(
                channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
            parent, _, own = name.rpartition(".")
            setattr(trunk.get_submodule(parent), own, new)
            return trunk
    raise UserError("the trunk has no convolution: it takes images as it was made for")
