"""An export, loaded and run: NumPy and ONNX Runtime, no PyTorch.

Shapes: B batch, C channels, H, W, N exits.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from branchynet.errors import UserError, reason_of
from branchynet.exports.face import OnImages
from branchynet.exports.manifest import Manifest, read_files, read_manifest
from branchynet.exports.sessions import Call, open_models
from branchynet.runtime.base import Outcome, check_threads, check_thresholds
from branchynet.runtime.compaction import Scratch, by_compaction, numbers
from branchynet.runtime.profile import Profile


class Answer(NamedTuple):
    """An `Outcome`, and how probable the exit that was taken finds its prediction."""

    prediction: np.ndarray  # (B,) int64; of maps (B, H, W)
    exit: np.ndarray  # (B,) int64, 1 … N
    uncertainty: np.ndarray  # (B,) float32
    confidence: (
        np.ndarray
    )  # (B,) float32, the largest softmax probability; of maps the mean of the pixels' own

    @property
    def exit_index(self) -> np.ndarray:
        """As an outcome's."""
        return self.exit - 1


# From images (B, C, H, W) uint8 and N-1 thresholds to answers.
Program = Callable[[np.ndarray, Sequence[float]], Answer]
# Segment, head, criterion: from features (B, …), and what else the one before hands on, to prediction, uncertainty,
# confidence and, but for the last one, what the next one takes.
Model = Callable[..., Sequence[np.ndarray]]


class Exported(OnImages):
    """A network with exits as it was exported. See `branchynet.exports.face.OnImages`."""

    def __init__(self, manifest: Manifest, program: Program) -> None:
        self.manifest = manifest
        self._program = program
        self.thresholds = manifest.thresholds

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.manifest.input_shape

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, self.manifest.num_exits)

    @property
    def profile(self) -> Profile:
        return self.manifest.profile

    def run_once(self, images: np.ndarray) -> Outcome:
        return Outcome(*self._answer(images)[:3])

    def answer(self, images: Any) -> Answer:
        """As `run`, with the confidence of every prediction."""
        return self.controlled(self.checked(images), self._answer)

    def _answer(self, images: np.ndarray) -> Answer:
        answer = self._program(images, self._thresholds)
        _check(answer, len(self.classes), self.manifest.num_exits)
        return answer


def load_export(folder: Path | str, threads: int = 1, trust: bool = False) -> Exported:
    """Load what `branchynet export` wrote; checksums are verified.

    The ONNX formats run no code of their own, whoever made them. PyTorch's loader of exported programs does
    use pickle and evaluates expressions, so the format `torch` is loaded only where it is trusted.

    Args:
        folder: with its manifest.json.
        threads: of computation.
        trust: whether the export is your own, or of somebody whose code you would run; for format torch.

    Raises:
        UserError: no export, a damaged one, one that is not trusted, or ONNX Runtime is missing.
    """
    folder = Path(folder)
    check_threads(threads)
    manifest = read_manifest(folder)
    if manifest.format == "torch" and not trust:
        raise UserError(
            f"{folder} holds torch.export programs, and loading those can run code that is hidden in them: "
            f"if it is your own, say trust=true, else take an export of format segments or single"
        )
    files = read_files(folder, manifest)
    if manifest.format == "torch":
        modules = [_torch_program(folder / name, content) for name, content in files.items()]
        return Exported(manifest, by_exit([torch_step(module, threads) for module in modules]))
    calls = open_models(folder, manifest, files, threads)
    if manifest.format == "single":
        return Exported(manifest, _one_by_one(calls[0], manifest.format_version))
    names = [
        ["image" if n == 0 else f"features_{n}", *(f"{name}_{n}" for name in takes)]
        for n, takes in enumerate(manifest.beside)
    ]
    return Exported(manifest, by_exit(list(map(_onnx_step, calls, names))))


def _check(answer: Answer, classes: int, exits: int) -> None:
    """A UserError where no network that is whole answers so."""
    for what, wrong, values in (
        ("class number", (answer.prediction < 0) | (answer.prediction >= classes), answer.prediction),
        ("exit", (answer.exit < 1) | (answer.exit > exits), answer.exit),
        ("uncertainty of", ~np.isfinite(answer.uncertainty), answer.uncertainty),
        ("confidence of", ~((answer.confidence >= 0) & (answer.confidence < 1.01)), answer.confidence),
    ):
        if wrong.any():
            raise UserError(
                f"the network answers with the {what} {values[wrong][0]}, of {classes} classes and {exits} exits: "
                f"its weights or what is told of it are damaged"
            )


def by_exit(steps: Sequence[Model]) -> Program:
    """The program that runs N steps one after the other; after each, the remaining rows alone go on."""

    scratch = Scratch()

    told = len(Answer._fields) - 1  # all but the exit

    def step(n: int, handed: Sequence[np.ndarray]) -> Sequence[Any]:
        found = steps[n](*handed)
        return found[told:] or handed, *found[:told]

    def run(x: np.ndarray, thresholds: Sequence[float]) -> Answer:
        return Answer(*by_compaction(x, thresholds, step, scratch.take, numbers))

    return run


def _one_by_one(call: Call, version: int) -> Program:
    """The program of a single model with the exits inside: it takes one image at a time."""
    counted_from = 0 if version == 1 else 1

    def run(x: np.ndarray, thresholds: Sequence[float]) -> Answer:
        limits = np.array(thresholds, np.float32)
        answers = [call({"image": x[i : i + 1], "thresholds": limits}) for i in range(len(x))]
        answer = Answer(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))
        return answer._replace(exit=answer.exit - counted_from + 1)

    return run


def _onnx_step(call: Call, names: Sequence[str]) -> Model:
    return lambda *given: call(dict(zip(names, given, strict=True)))


def torch_step(module: Callable[..., Any], threads: int) -> Model:
    """A PyTorch module, or an exported program's, as a step."""
    import torch

    from branchynet.runtime.early_exit import torch_threads

    @torch.inference_mode()
    def run(*given: np.ndarray) -> list[np.ndarray]:
        with torch_threads(threads):
            return [output.numpy() for output in module(*map(torch.tensor, given))]

    return run


def _torch_program(file: Path, content: bytes) -> Callable[..., Any]:
    import torch

    try:
        return torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # about anything, on what is no program
        reason = reason_of(error, 200)
        raise UserError(f"{file} cannot be loaded by PyTorch {torch.__version__}: {reason}") from error
