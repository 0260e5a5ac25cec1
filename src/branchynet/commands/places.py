"""`branchynet places`: where exits can hang on a trunk, and what it has cost by then."""

import csv
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from branchynet.commands import app
from branchynet.commands.paths import quote_paths
from branchynet.errors import UserError, check_choice, is_whole
from branchynet.reporting.text import aligned
from branchynet.runs.run_config import plain

FORMATS = ("table", "csv")
COLUMNS = (
    "place",
    "kind",
    "shape",
    "macs",
    "macs_share",
    "parameters",
    "parameters_share",
    "exit",
    "head_macs",
)


def main() -> None:
    quote_paths()
    app.start(places, "places")


def places(config: DictConfig, _: Path) -> None:
    """Print the table that `config` asks for."""
    check_choice("format", config.format, FORMATS)
    # Only now: torch takes seconds to import, and help has to answer at once.
    from torch import nn

    from branchynet.networks.places import default_head, head_macs, survey
    from branchynet.runs.auto import trunk_settings
    from branchynet.runs.build import as_images_are, made

    shape, classes = images_of(config)
    trunk = made("model.trunk", trunk_settings(plain(config.model.trunk), shape, classes), nn.Module)
    with as_images_are("model", config.model.trunk):
        found = survey(trunk, shape)
    image = shape[1:]
    rows: list[dict[str, Any]] = []
    for place in found.places:
        spec = default_head(place, image, found.maps)
        head = head_macs(place, spec, classes, image, found.maps) if place.takes_exit else None
        rows.append(
            {
                "place": place.name,
                "kind": place.kind or "other",
                "shape": "×".join(map(str, place.shape)),
                "macs": place.macs,
                "macs_share": place.macs / found.macs,
                "parameters": place.parameters,
                "parameters_share": place.parameters / max(found.parameters, 1),
                "exit": "yes" if place.takes_exit else ", next: ".join(filter(None, ("no", place.nearest))),
                "head_macs": head,
            }
        )
    if config.format == "csv":
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    images = "×".join(map(str, shape))
    print(
        f"{config.model.name}, images {images}, {classes} classes: {found.macs / 1e6:,.2f} M MACs, "
        f"{found.parameters / 1e6:,.2f} M parameters"
    )
    heads = ["place", "kind", "shape", "MACs, M", "%", "parameters, M", "%", "exit", "its head, M MACs"]
    print(aligned([heads, *(_cells(row) for row in rows)]))
    print(
        "An exit hangs on a place by model.exits.0.after=<place>, or model.exits=auto model.exits.count=3 places "
        "them. The head is the default one."
    )


def images_of(config: DictConfig) -> tuple[tuple[int, int, int], int]:
    """The images' shape (C, H, W) and the number of classes: as they are said, else the data set's."""
    shape, classes = plain(config.shape), config.classes
    if shape is not None or classes is not None:
        if not isinstance(shape, list) or len(shape) != 3 or not all(map(is_whole, shape)):
            raise UserError(f"shape={shape}: it is channels, height and width, such as [3,224,224]")
        if not is_whole(classes):
            raise UserError(f"classes={classes}: it is a whole number, and goes with shape")
        return (shape[0], shape[1], shape[2]), classes
    from branchynet.runs.build import build_data

    data = build_data(config.data)
    return data.input_shape, data.num_classes


def _cells(row: dict[str, Any]) -> list[str]:
    head = row["head_macs"]
    return [
        row["place"],
        row["kind"],
        row["shape"],
        f"{row['macs'] / 1e6:,.2f}",
        f"{100 * row['macs_share']:.1f}",
        f"{row['parameters'] / 1e6:,.3f}",
        f"{100 * row['parameters_share']:.1f}",
        row["exit"],
        "" if head is None else f"{head / 1e6:,.2f}",
    ]
