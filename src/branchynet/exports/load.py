"""An export, loaded and run: NumPy and ONNX Runtime, no PyTorch.

Shapes: B batch, C channels, H, W, N exits.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from branchynet.errors import UserError
from branchynet.exports.face import OnImages
from branchynet.exports.manifest import Manifest, read_files, read_manifest
from branchynet.runtime.base import Outcome, check_threads, check_thresholds
from branchynet.runtime.compaction import Scratch, by_compaction, numbers

if TYPE_CHECKING:
    import onnxruntime as ort


class Answer(NamedTuple):
    """An `Outcome`, and how probable the exit that was taken finds its prediction."""

    prediction: np.ndarray  # (B,) int64
    exit: np.ndarray  # (B,) int64, 1 … N
    uncertainty: np.ndarray  # (B,) float32
    confidence: np.ndarray  # (B,) float32, the largest softmax probability

    @property
    def exit_index(self) -> np.ndarray:
        """As an outcome's."""
        return self.exit - 1


# From images (B, C, H, W) uint8 and N-1 thresholds to answers.
Program = Callable[[np.ndarray, Sequence[float]], Answer]
# Segment, head, criterion: from features (B, …) to prediction, uncertainty, confidence and, but for the last
# one, features.
Model = Callable[[np.ndarray], Sequence[np.ndarray]]


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

    def run(self, images: Any) -> Outcome:
        return Outcome(*self.answer(images)[:3])

    def answer(self, images: Any) -> Answer:
        """As `run`, with the confidence of every prediction."""
        return self._program(self.checked(images), self._thresholds)


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
        modules = map(_torch_program, files.values())
        return Exported(manifest, by_exit([torch_step(module, threads) for module in modules]))
    sessions = [_session(folder / name, content, threads) for name, content in files.items()]
    _check_input(folder, sessions[0], manifest.input_shape)
    if manifest.format == "single":
        return Exported(manifest, _one_by_one(sessions[0], manifest.format_version))
    return Exported(manifest, by_exit([_onnx_step(session) for session in sessions]))


def by_exit(steps: Sequence[Model]) -> Program:
    """The program that runs N steps one after the other; after each, the remaining rows alone go on."""

    scratch = Scratch()

    def step(n: int, x: np.ndarray) -> Sequence[np.ndarray]:
        *answers, features = steps[n](x) if n < len(steps) - 1 else [*steps[n](x), x]
        return features, *answers

    def run(x: np.ndarray, thresholds: Sequence[float]) -> Answer:
        return Answer(*by_compaction(x, thresholds, step, scratch.take, numbers))

    return run


def _one_by_one(session: "ort.InferenceSession", version: int) -> Program:
    """The program of a single model with the exits inside: it takes one image at a time."""
    counted_from = 0 if version == 1 else 1

    def run(x: np.ndarray, thresholds: Sequence[float]) -> Answer:
        limits = np.array(thresholds, np.float32)
        answers = [
            session.run(list(Answer._fields), {"image": x[i : i + 1], "thresholds": limits})
            for i in range(len(x))
        ]
        answer = Answer(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))
        return answer._replace(exit=answer.exit - counted_from + 1)

    return run


def _onnx_step(session: "ort.InferenceSession") -> Model:
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


def _session(file: Path, content: bytes, threads: int) -> "ort.InferenceSession":
    try:
        import onnxruntime

        from branchynet.runtime.session import load_session
    except ImportError as error:
        raise UserError("this export needs the package onnxruntime: install it") from error
    try:
        return load_session(content, threads)
    except Exception as error:  # ONNX Runtime has a dozen of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {reason}"
        ) from error


def _check_input(folder: Path, session: "ort.InferenceSession", shape: tuple[int, ...]) -> None:
    first = session.get_inputs()[0]
    if (first.name, first.type, tuple(first.shape[1:])) != ("image", "tensor(uint8)", shape):
        raise UserError(
            f"{folder} is damaged: its model takes {first.name} {first.type} {first.shape}, its manifest says "
            f"image (B, {', '.join(map(str, shape))}) uint8; export the run again"
        )


def torch_step(module: Callable[..., Any], threads: int) -> Model:
    """A PyTorch module, or an exported program's, as a step."""
    import torch

    from branchynet.runtime.early_exit import torch_threads

    @torch.inference_mode()
    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch_threads(threads):
            return [output.numpy() for output in module(torch.tensor(x))]

    return run


def _torch_program(content: bytes) -> Callable[..., Any]:
    import torch

    return torch.export.load(io.BytesIO(content)).module()
