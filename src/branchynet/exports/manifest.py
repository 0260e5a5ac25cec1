"""manifest.json: all that a host has to know of an export, beside its models.

Shapes: C channels, H, W, K classes, N exits. Nothing here needs PyTorch.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import branchynet
from branchynet.data.image_files import CHANNELS, SIZES, ImageFiles
from branchynet.errors import UserError

FILE = "manifest.json"
VERSION = 2  # of the export's form; raised when an older reader would misread it
READABLE = (1, 2)  # 1: the single model counts exits from 0
FORMATS = ("segments", "single", "torch")


@dataclass(frozen=True)
class Cost:
    """What one image costs: multiply-accumulates, and microseconds at batch 1."""

    macs: int
    latency_us: float


@dataclass(frozen=True)
class Costs:
    """As the run measured them that was exported: heads, criterion and decision included.

    The models' normalisation and confidence came with the export and are not in them.
    """

    engine: str
    threads: int
    machine: str
    baseline: Cost
    exits: tuple[Cost, ...]  # N: leaving at exit n, all heads on the way included


@dataclass(frozen=True)
class Manifest:
    """What an export holds and how it is used.

    A model takes bytes, (B, C, H, W) uint8, and normalises them itself: (x / 255 - mean) / std.
    """

    format: str  # segments | single | torch
    experiment: str
    criterion: str  # a name of branchynet.exits.criteria
    thresholds: tuple[float, ...]  # N-1, of the operating point
    classes: tuple[str, ...]  # K names
    input_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]  # C, of values / 255
    std: tuple[float, ...]
    costs: Costs
    image_files: ImageFiles = field(default_factory=ImageFiles)
    files: Mapping[str, str] = field(default_factory=dict)  # name: sha256 (hex), shallow to deep
    format_version: int = VERSION

    @property
    def num_exits(self) -> int:
        """N."""
        return len(self.costs.exits)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder/manifest.json`."""
    costs = manifest.costs
    content = {
        "format_version": manifest.format_version,
        "branchynet": branchynet.__version__,
        "format": manifest.format,
        "experiment": manifest.experiment,
        "criterion": manifest.criterion,
        "thresholds": list(manifest.thresholds),
        "classes": list(manifest.classes),
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NCHW",
            "shape": list(manifest.input_shape),
            "batch": 1 if manifest.format == "single" else "any",
        },
        "normalisation": {"inside": True, "mean": list(manifest.mean), "std": list(manifest.std)},
        "image_files": asdict(manifest.image_files),
        "costs": {
            "engine": costs.engine,
            "threads": costs.threads,
            "machine": costs.machine,
            "baseline": vars(costs.baseline),
            "exits": [vars(cost) for cost in costs.exits],
        },
        "files": [{"name": name, "sha256": digest} for name, digest in manifest.files.items()],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/manifest.json`.

    Raises:
        UserError: no export, a manifest that is damaged, or one of a later version.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{folder} is no export: there is no {FILE}; `branchynet export run=…` makes one")
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): export the run again") from None
    version = _value(file, content, "format_version")
    if version not in READABLE:
        raise UserError(
            f"{file} has the format_version {version!r}, this branchynet reads {' and '.join(map(str, READABLE))}: "
            f"take the branchynet that wrote it, or export the run again"
        )
    values = {key: _value(file, content, key) for key in _CHECKS}
    image_files = {key: _value(file, content, f"image_files.{key}") for key in content["image_files"]}
    exits, shape = values["costs.exits"], values["input.shape"]
    manifest = Manifest(
        format=values["format"],
        experiment=values["experiment"],
        criterion=values["criterion"],
        thresholds=tuple(map(float, values["thresholds"])),
        classes=tuple(values["classes"]),
        input_shape=tuple(shape),
        mean=tuple(map(float, values["normalisation.mean"])),
        std=tuple(map(float, values["normalisation.std"])),
        costs=Costs(
            engine=values["costs.engine"],
            threads=values["costs.threads"],
            machine=values["costs.machine"],
            baseline=_cost(values["costs.baseline"]),
            exits=tuple(map(_cost, exits)),
        ),
        image_files=_image_files(image_files),
        files={entry["name"]: entry["sha256"] for entry in values["files"]},
        format_version=version,
    )
    background, mean = manifest.image_files.background, manifest.mean
    for key, count, wanted in (
        ("thresholds", len(manifest.thresholds), len(exits) - 1),
        ("files", len(manifest.files), 1 if manifest.format == "single" else len(exits)),
        ("normalisation.mean", len(manifest.mean), shape[0]),
        ("normalisation.std", len(manifest.std), shape[0]),
        ("image_files.background", len(background or mean), shape[0]),
    ):
        if count != wanted:
            raise _damaged(file, f"{key} has {count} entries where {wanted} belong")
    return manifest


def read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """The models' bytes by name, each with the checksum that the manifest states.

    Raises:
        UserError: a file that is missing or not the one that was written.
    """
    contents = {}
    for name, digest in manifest.files.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{folder / name} cannot be read ({error.strerror}): export the run again"
            ) from None
        if checksum(contents[name]) != digest:
            raise UserError(
                f"{folder / name} is damaged: its checksum is not the manifest's; export the run again"
            )
    return contents


def checksum(content: bytes) -> str:
    """sha256, hex."""
    return hashlib.sha256(content).hexdigest()


def _value(file: Path, content: Any, key: str) -> Any:
    """The value at a dotted key, as `_CHECKS` wants it."""
    value = content
    for step in key.split("."):
        if not isinstance(value, dict) or step not in value:
            raise _damaged(file, f"it has no {key}")
        value = value[step]
    allowed, what = {**_CHECKS, **_LATER}.get(key, (lambda _: True, ""))
    if not allowed(value):
        raise _damaged(file, f"{key} is {str(value)[:80]!r}, not {what}")
    return value


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is damaged: {reason}; export the run again")


def _cost(value: Mapping[str, Any]) -> Cost:
    return Cost(value["macs"], float(value["latency_us"]))


def _image_files(found: Mapping[str, Any]) -> ImageFiles:
    """What the manifest says of image files; an older one lacks some, a later one may say more."""
    known: dict[str, Any] = {each.name: found[each.name] for each in fields(ImageFiles) if each.name in found}
    for key, value in known.items():
        known[key] = tuple(value) if isinstance(value, list) else value
    return ImageFiles(**known)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # nan is not


def _is_cost(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"macs", "latency_us"} <= value.keys()
        and type(value["macs"]) is int
        and value["macs"] >= 0
        and _is_number(value["latency_us"])
    )


def _is_file(value: Any) -> bool:
    # A plain name: nothing beside the export's own folder is ever read.
    return (
        isinstance(value, dict)
        and {"name", "sha256"} <= value.keys()
        and _is_text(value["name"])
        and not set(value["name"]) & set("/\\\0")
        and value["name"] not in (".", "..")
        and _is_text(value["sha256"])
    )


def _list_of(allowed: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(allowed, value))


_NUMBERS = (_list_of(_is_number), "a list of numbers")
_TEXT = (_is_text, "a text")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda value: value in FORMATS, f"one of {', '.join(FORMATS)}"),
    "experiment": _TEXT,
    "criterion": _TEXT,
    "thresholds": (_list_of(_is_number, least=0), "a list of numbers"),
    "classes": (_list_of(lambda value: isinstance(value, str), least=2), "a list of names"),
    "input.dtype": (lambda value: value == "uint8", "uint8"),
    "input.layout": (lambda value: value == "NCHW", "NCHW"),
    "input.shape": (
        lambda value: _list_of(_is_whole, least=3)(value) and len(value) == 3,
        "channels, height and width",
    ),
    "normalisation.mean": _NUMBERS,
    "normalisation.std": _NUMBERS,
    "image_files.size": (lambda value: value in SIZES, f"one of {', '.join(SIZES)}"),
    "image_files.channels": (lambda value: value in CHANNELS, f"one of {', '.join(CHANNELS)}"),
    "costs.engine": _TEXT,
    "costs.threads": (_is_whole, "a whole number above 0"),
    "costs.machine": _TEXT,
    "costs.baseline": (_is_cost, "macs and latency_us"),
    "costs.exits": (_list_of(_is_cost), "a list of macs and latency_us"),
    "files": (_list_of(_is_file), "a list of names and checksums"),
}
# What exports of before lack.
_LATER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "image_files.background": (
        lambda value: value is None or _list_of(_is_byte)(value),
        "null or a list of 0 … 255",
    ),
    "image_files.invert": (lambda value: type(value) is bool, "true or false"),
    "image_files.border": (
        lambda value: value is None or (_list_of(_is_byte)(value) and len(value) == 2),
        "null or two of 0 … 255",
    ),
}
