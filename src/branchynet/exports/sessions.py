"""An export's ONNX models on ONNX Runtime: opened only where they are what the manifest says. No PyTorch here.

Shapes: B batch.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from branchynet.errors import UserError, reason_of
from branchynet.exports.external import has_external_data
from branchynet.exports.manifest import Manifest, ModelFile
from branchynet.exports.tensors import MOST, Tensor, Tensors, of_segment, of_single

if TYPE_CHECKING:
    import onnxruntime as ort

DTYPES = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}

# From the inputs by name, (B, …) each, to the outputs, (B, …) each, in the model's order.
Call = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def open_models(folder: Path, manifest: Manifest, files: Mapping[str, bytes], threads: int) -> list[Call]:
    """The models of an ONNX export, shallow to deep.

    Args:
        files: their bytes, by name.
        threads: of computation.

    Raises:
        UserError: one that ONNX Runtime cannot load, that has data elsewhere, or that is not what the manifest
            says; or ONNX Runtime is missing.
    """
    sessions = {folder / name: _session(folder / name, content, threads) for name, content in files.items()}
    stated = list(manifest.files.values())
    if manifest.format == "single":
        wanted = of_single(manifest.input_shape, manifest.num_exits)
        if (
            manifest.format_version == 1
        ):  # its thresholds may be left out, so ONNX Runtime lists them elsewhere
            wanted = wanted._replace(inputs=wanted.inputs[:1])
        wants = [wanted]
    else:
        wants = []
        given: tuple[int, ...] = manifest.input_shape
        beside = [*manifest.beside, {}]
        for n, (file, session) in enumerate(sessions.items(), start=1):
            takes, gives = beside[n - 1 : n + 1]
            behind = _features(file, _tensors(session), len(gives)) if n < manifest.num_exits else None
            wants.append(of_segment(n, given, behind, takes, gives, manifest.answer))
            given = behind or given
    for (file, session), wanted, each in zip(sessions.items(), wants, stated, strict=True):
        _check(file, _tensors(session), wanted, each)
    return [_call(file, session) for file, session in sessions.items()]


def _session(file: Path, content: bytes, threads: int) -> "ort.InferenceSession":
    try:
        import onnxruntime

        from branchynet.runtime.session import load_session
    except ImportError as error:
        raise UserError("this export needs the package onnxruntime: install it") from error
    try:
        elsewhere = has_external_data(content)
        session = None if elsewhere else load_session(content, threads)
    except Exception as error:  # ONNX Runtime has a dozen of its own
        raise UserError(
            f"{file} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {reason_of(error, 200)}"
        ) from error
    if session is None:
        raise UserError(f"{file} has data in other files: those of an export have not, so it is not loaded")
    return session


def _call(file: Path, session: "ort.InferenceSession") -> Call:
    def call(given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            outputs = session.run(None, given)
        except Exception as error:
            raise UserError(f"{file} cannot be run by ONNX Runtime: {reason_of(error, 200)}") from error
        rows = len(next(iter(given.values())))
        for tensor, output in zip(session.get_outputs(), outputs, strict=True):
            # What it gives need not be what it said that it gives.
            if output.shape[:1] != (rows,) or output.ndim != len(tensor.shape):
                raise UserError(
                    f"{file} is damaged: {tensor.name} has the shape {output.shape} for {rows} images; export "
                    f"the run again"
                )
        return outputs

    return call


def _tensors(session: "ort.InferenceSession") -> Tensors:
    def tensor(found: Any) -> Tensor:
        first, *others = found.shape or [0]
        shape = [size if isinstance(size, int) else "?" for size in others]
        batch = first if isinstance(first, int) else "B"
        return Tensor(found.name, DTYPES.get(found.type, found.type), "", (batch, *shape))

    return Tensors(tuple(map(tensor, session.get_inputs())), tuple(map(tensor, session.get_outputs())))


def _features(file: Path, found: Tensors, more: int) -> tuple[int, ...]:
    """The shape of the features that a segment hands on, without the batch: its last output's.

    Args:
        more: how many outputs stand after them, because it hands on more.
    """
    features = found.outputs[-1 - more :][0]
    stated = features.shape[1:]
    shape = tuple(size for size in stated if isinstance(size, int) and size > 0)
    if not shape or shape != stated or math.prod(shape) > MOST:
        raise UserError(
            f"{file} is damaged: it hands on {_shown(features)}, where features of at most {MOST:,} values "
            f"belong; export the run again"
        )
    return shape


def _check(file: Path, found: Tensors, wanted: Tensors, stated: ModelFile) -> None:
    """A UserError where a model has other inputs or outputs than it has to, or than its manifest states."""
    for side in Tensors._fields:
        texts = [[_shown(each) for each in getattr(tensors, side)] for tensors in (found, wanted)]
        if stated.tensors is not None:
            texts.append([_shown(each) for each in getattr(stated.tensors, side)])
        has, *others = texts
        for other in others:
            if has != other:
                raise UserError(
                    f"{file} is damaged: its {side} are {', '.join(has)}, its manifest says {', '.join(other)}; "
                    f"export the run again"
                )


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name} ({', '.join(map(str, tensor.shape))}) {tensor.dtype}"
