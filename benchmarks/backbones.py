"""Which backbones of torchvision and timm take exits: a table, of no images and no weights.

    python benchmarks/backbones.py                                   # those of docs/places.md
    python benchmarks/backbones.py resnet34 timm:resnet50            # others, by name

Each is made from the settings that stand in a file of `conf/model`, `_target_: torchvision.models.<name>` or
`timm.create_model`, with `auto` for all that comes from the images: 3×224×224 and 10 classes. It is laid out on the
meta device, so nothing is computed; then three exits are placed. timm's are left out where it is not installed.

It takes about a minute.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.util import find_spec

import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.places import auto_exits, survey
from branchynet.runs.auto import trunk_settings
from branchynet.runs.build import made

SHAPE, CLASSES = (3, 224, 224), 10
TORCHVISION = (
    *(
        "alexnet",
        "vgg11_bn",
        "resnet34",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "densenet121",
        "squeezenet1_1",
    ),
    *("mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_v2_s"),
    *("regnet_y_400mf", "convnext_small", "vit_b_32", "swin_v2_t", "maxvit_t", "googlenet", "inception_v3"),
)
TIMM = (
    *(
        "resnet18",
        "resnet50d",
        "efficientnet_lite0",
        "mobilenetv4_conv_small",
        "convnextv2_atto",
        "regnety_002",
    ),
    *("vit_small_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_b16_224"),
    *("ghostnetv2_100", "efficientformer_l1", "repvgg_a0", "edgenext_xx_small", "xcit_nano_12_p16_224"),
)
# What stands in the YAML file beside the name.
MORE = {"vit_b_32": {"image_size": "auto"}, "googlenet": {"aux_logits": False, "init_weights": False}}
MORE["inception_v3"] = MORE["googlenet"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("names", nargs="*", help="of torchvision, or timm:<name>")
    names = options.parse_args().names or [*TORCHVISION, *(f"timm:{name}" for name in TIMM)]
    print("| backbone | M MACs | places | that take an exit | three exits after | kind |")
    print("|---|---:|---:|---:|---|---|")
    for name in names:
        if name.startswith("timm:") and find_spec("timm") is None:
            continue
        print(f"| `{name}` | {row(name)} |", flush=True)


def settings(name: str) -> dict[str, object]:
    """The trunk's, as a file has them."""
    library, _, own = name.rpartition(":")
    if library == "timm":
        return {"_target_": "timm.create_model", "model_name": own, "num_classes": "auto", "in_chans": "auto"}
    return {"_target_": f"torchvision.models.{own}", "num_classes": "auto", **MORE.get(own, {})}


def row(name: str) -> str:
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trunk = trunk_of(name)
            found = survey(trunk, SHAPE)
            exits = auto_exits(found, {"count": 3}, SHAPE[1:])
            network = attach(trunk, exits, SHAPE, CLASSES)
    except UserError as error:
        return f"– | – | – | {error} | –"
    free = [place for place in found.places if place.takes_exit]
    kinds = dict.fromkeys(place.kind for place in free if place.name in network.places)
    after = ", ".join(f"`{place}`" for place in network.places)
    return f"{found.macs / 1e6:,.0f} | {len(found.places)} | {len(free)} | {after} | {', '.join(kinds)} |"[
        :-2
    ]


def trunk_of(name: str) -> nn.Module:
    own = trunk_settings(settings(name), SHAPE, CLASSES)
    try:
        made_trunk: nn.Module = made("model.trunk", own, nn.Module)
    except NotImplementedError:  # it computes something while it is made
        with torch.device("cpu"):
            made_trunk = made("model.trunk", own, nn.Module)
        made_trunk = made_trunk.to("meta")
    return made_trunk.eval()


if __name__ == "__main__":
    main()
