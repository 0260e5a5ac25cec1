"""manifest.json: all that a host has to know of an export, beside its models.

Shapes: C channels, H, W, K classes, N exits. Nothing here needs PyTorch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import branchynet
from branchynet.data.image_files import ImageFiles
from branchynet.errors import UserError, reason_of
from branchynet.exits.certificate import Certificate
from branchynet.exports import form, wording
from branchynet.exports.tensors import BESIDE, Tensor, Tensors
from branchynet.forms import json_schema, what_is_wrong
from branchynet.regular import read_regular
from branchynet.runtime.profile import Profile, Validation, certified_by

FILE = "manifest.json"
SCHEMA = "manifest.schema.json"
VERSION = 2  # of the export's form; raised when an older reader would misread it
HANDS_ON = 3  # that of models which hand answers on: version 2 knows of features alone
LOOKS_BACK = 4  # that of models which hand a criterion's state on
MAPS = 5  # that of models which give a class for every pixel
READABLE = (1, VERSION, HANDS_ON, LOOKS_BACK, MAPS)  # 1: the single model counts exits from 0
FORMATS = ("segments", "single", "torch")
ONNX_MOST = 2**31 - 1  # bytes: protobuf's own limit


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
class ModelFile:
    """A model beside the manifest. An export of version 1 tells its checksum alone."""

    sha256: str  # hex
    bytes: int | None = None
    tensors: Tensors | None = None


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
    unit: str = ""  # of the uncertainty and the thresholds
    most: float | None = None  # the largest uncertainty that there can be; None: not known
    files: Mapping[str, ModelFile] = field(default_factory=dict)  # by name, shallow to deep
    format_version: int = VERSION
    shares: tuple[float, ...] = ()  # N, where exits average: how much of an exit's answer is the one before
    state: int = 0  # W, where models hand on W numbers an image of a criterion that looks back
    certificate: Certificate | None = None  # what is promised of the operating point; None: nothing
    validation: Validation | None = None  # what the exits said there; an older export does not say
    maps: bool = False  # whether a prediction is a class for every pixel

    @property
    def answer(self) -> tuple[int, ...]:
        """The shape of a prediction, without the batch: () of a class, (H, W) of a map."""
        return self.input_shape[1:] if self.maps else ()

    @cached_property
    def profile(self) -> Profile:
        """What is known of the network at run time.

        Raises:
            UserError: it does not say what the exits said on validation.
        """
        if self.maps:
            raise UserError(
                "this network gives maps, and controllers and adapted thresholds go by answers that are right or "
                "wrong: leave them out"
            )
        if self.validation is None:
            raise UserError(
                "this export does not say what its exits said on validation, and nothing can be held or adapted: "
                "export the run again"
            )
        exits = self.costs.exits
        costs = {"latency_us": tuple(e.latency_us for e in exits), "macs": tuple(e.macs for e in exits)}
        certified = certified_by(self.certificate, self.thresholds)
        return Profile(self.thresholds, costs, self.validation, self.most, certified)

    @property
    def beside(self) -> list[dict[str, int]]:
        """N: what the model of segment n takes beside the features, widths by name; see `tensors.BESIDE`."""
        if self.format == "single":
            return [{}] * self.num_exits
        shares = self.shares or (0.0,) * self.num_exits
        answers = [{"answer": len(self.classes)} if share else {} for share in shares]
        states = [{"state": self.state} if n and self.state else {} for n in range(self.num_exits)]
        return [{**answer, **state} for answer, state in zip(answers, states, strict=True)]

    @property
    def num_exits(self) -> int:
        """N."""
        return len(self.costs.exits)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder/manifest.json`, and its JSON Schema beside it.

    Raises:
        ValueError: a value that no manifest may have.
    """
    content = _content(manifest)
    content["sha256"] = content_checksum(content)
    form.Form.model_validate(content)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    (folder / SCHEMA).write_text(json_schema(form.Form), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/manifest.json`.

    Raises:
        UserError: no export, a manifest that is damaged, or one of a later version.
    """
    file = folder / FILE
    try:
        content = json.loads(read_regular(file))
        found = content_checksum(content) if isinstance(content, dict) else ""
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is no export: there is no {FILE}; `branchynet export run=…` makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, reason_of(error)) from None
    if not isinstance(content, dict) or "format_version" not in content:
        raise _damaged(file, "it has no format_version")
    version = content["format_version"]
    if version not in READABLE:
        raise UserError(
            f"{file} has the format_version {str(version)[:80]}, this branchynet reads "
            f"{', '.join(map(str, READABLE))}: take the branchynet that wrote it, or export the run again"
        )
    if content.get("sha256", found) != found:
        raise UserError(
            f"{file} is damaged: its content is not what was written, says its sha256; thresholds are set where "
            f"it is loaded and not in it; export the run again"
        )
    try:
        return _manifest(form.Form.model_validate(content))
    except ValidationError as error:
        raise _damaged(file, what_is_wrong(error)) from None


def read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """The models' bytes by name, each with the size and the checksum that the manifest states.

    Raises:
        UserError: a file that is missing or not the one that was written.
    """
    contents = {}
    for name, stated in manifest.files.items():
        most = stated.bytes or ONNX_MOST
        if manifest.format != "torch":
            most = min(most, ONNX_MOST)
        try:
            contents[name] = read_regular(folder / name, most)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{folder / name} cannot be read ({reason}): export the run again") from None
        if checksum(contents[name]) != stated.sha256:
            raise UserError(
                f"{folder / name} is damaged: its checksum is not the manifest's; export the run again"
            )
    return contents


def checksum(content: bytes) -> str:
    """sha256, hex."""
    return hashlib.sha256(content).hexdigest()


def content_checksum(content: Mapping[str, Any]) -> str:
    """sha256 of what a manifest says, but for its `sha256`: it tells damage, not who wrote it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return checksum(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def _content(manifest: Manifest) -> dict[str, Any]:
    """As `branchynet.exports.form.Form` has it, without its checksum."""
    costs, shape, rule = manifest.costs, manifest.input_shape, asdict(manifest.image_files)
    return {
        "format_version": manifest.format_version,
        "branchynet": branchynet.__version__,
        "format": manifest.format,
        "experiment": manifest.experiment,
        "criterion": manifest.criterion,
        **({"shares": list(manifest.shares)} if manifest.shares else {}),
        **({"state": manifest.state} if manifest.state else {}),
        **({"maps": True} if manifest.maps else {}),
        "uncertainty": {"unit": manifest.unit, "least": 0, "most": manifest.most},
        "thresholds": list(manifest.thresholds),
        **({"certificate": asdict(manifest.certificate)} if manifest.certificate else {}),
        **({"validation": _plain(asdict(manifest.validation))} if manifest.validation else {}),
        "stop_rule": wording.STOP_RULE,
        "loop": wording.loop(
            manifest.format, [name for name in BESIDE if any(name in each for each in manifest.beside)]
        ),
        "classes": list(manifest.classes),
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NCHW",
            "shape": list(shape),
            "batch": 1 if manifest.format == "single" else "any",
        },
        "normalisation": {"inside": True, "mean": list(manifest.mean), "std": list(manifest.std)},
        "image_files": {
            **{key: list(value) if isinstance(value, tuple) else value for key, value in rule.items()},
            "steps": wording.picture_steps(shape, manifest.image_files),
        },
        "costs": {
            "engine": costs.engine,
            "threads": costs.threads,
            "machine": costs.machine,
            "baseline": vars(costs.baseline),
            "exits": [vars(cost) for cost in costs.exits],
        },
        "files": [
            {"name": name, "sha256": file.sha256, "bytes": file.bytes, **_listed(file.tensors)}
            for name, file in manifest.files.items()
        ],
    }


def _plain(value: Any) -> Any:
    """With lists in the place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _listed(tensors: Tensors | None) -> dict[str, Any]:
    if tensors is None:
        return {}
    return {
        side: [{**tensor._asdict(), "shape": list(tensor.shape)} for tensor in getattr(tensors, side)]
        for side in Tensors._fields
    }


def _manifest(found: form.Form) -> Manifest:
    costs, uncertainty = found.costs, found.uncertainty
    channels, height, width = found.input.shape
    return Manifest(
        format=found.format,
        experiment=found.experiment,
        criterion=found.criterion,
        thresholds=tuple(map(float, found.thresholds)),
        classes=tuple(found.classes),
        input_shape=(channels, height, width),
        mean=tuple(map(float, found.normalisation.mean)),
        std=tuple(map(float, found.normalisation.std)),
        costs=Costs(
            engine=costs.engine,
            threads=costs.threads,
            machine=costs.machine,
            baseline=_cost(costs.baseline),
            exits=tuple(map(_cost, costs.exits)),
        ),
        image_files=_image_files(found.image_files),
        unit=uncertainty.unit if uncertainty else "",
        most=uncertainty.most if uncertainty else None,
        files={file.name: _file(file) for file in found.files},
        format_version=found.format_version,
        shares=tuple(map(float, found.shares)),
        state=found.state,
        maps=found.maps,
        certificate=None if found.certificate is None else found.certificate.content(),
        validation=None if found.validation is None else _validation(found.validation),
    )


def _validation(found: form.Validation) -> Validation:
    return Validation(
        samples=found.samples,
        exit_rates=tuple(map(float, found.exit_rates)),
        disagreement=float(found.disagreement),
        uncertainty=tuple(tuple(map(float, each)) for each in found.uncertainty),
        bins=tuple(tuple(map(float, each)) for each in found.bins),
        right=tuple(tuple(map(float, each)) for each in found.right),
    )


def _image_files(found: form.ImageFiles) -> ImageFiles:
    background = None if found.background is None else tuple(found.background)
    border = None if found.border is None else (found.border[0], found.border[1])
    return ImageFiles(found.size, found.channels, background, found.invert, border)


def _file(found: form.File) -> ModelFile:
    tensors = None
    if found.inputs is not None and found.outputs is not None:
        tensors = Tensors(tuple(map(_tensor, found.inputs)), tuple(map(_tensor, found.outputs)))
    return ModelFile(found.sha256, found.bytes, tensors)


def _tensor(found: form.Tensor) -> Tensor:
    return Tensor(found.name, found.dtype, found.layout, tuple(found.shape))


def _cost(found: form.Cost) -> Cost:
    return Cost(found.macs, float(found.latency_us))


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is damaged: {reason}; export the run again")
