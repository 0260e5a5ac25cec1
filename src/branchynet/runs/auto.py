"""Settings of a model that are taken from the images: `auto` in `model.trunk`, and exits that are placed by MACs.

They are resolved once, before a run begins, so that its settings say what was built.
Shapes: C channels, H, W pixels, K classes.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from branchynet.errors import UserError, settings_of
from branchynet.networks.automatic import AUTO, is_auto
from branchynet.networks.places import auto_exits, survey
from branchynet.runs.build import CHANNELS, CLASSES, SIZES, as_images_are, made


def wants_images(model: Mapping[str, Any]) -> bool:
    """Whether something of it is taken from the images."""
    return is_auto(model["exits"]) or AUTO in model["trunk"].values()


def trunk_settings(
    trunk: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> dict[str, Any]:
    """The trunk's settings with what `auto` stands for.

    Raises:
        UserError: `auto` where nothing is known, or images of unequal sides for a trunk that has one size.
    """
    channels, height, width = input_shape
    values = (
        dict.fromkeys(CHANNELS, channels) | dict.fromkeys(CLASSES, num_classes) | dict.fromkeys(SIZES, height)
    )
    found = dict(trunk)
    for name in [name for name, value in trunk.items() if value == AUTO]:
        if name not in values:
            raise UserError(f"model.trunk.{name}=auto: that is known of {', '.join(values)} alone")
        if name in SIZES and height != width:
            raise UserError(f"model.trunk.{name}=auto: the images are {height}×{width}, not of equal sides")
        found[name] = values[name]
    return found


def resolved(model: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int) -> dict[str, Any]:
    """The model's settings with what `auto` stands for, the exits as a list.

    Args:
        model: its settings, plain values.
        input_shape: (C, H, W).
        num_classes: K.
    """
    found = {**model, "trunk": trunk_settings(model["trunk"], input_shape, num_classes)}
    if is_auto(found["exits"]):
        with settings_of("model"), as_images_are("model", found["trunk"]):
            trunk = survey(made("model.trunk", found["trunk"], nn.Module), input_shape)
            found["exits"] = auto_exits(trunk, found["exits"], input_shape[1:])
    return found
