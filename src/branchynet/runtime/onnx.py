"""Export to ONNX, and ONNX Runtime.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion


class OnnxModel:
    """An ONNX model on ONNX Runtime, on the CPU. See `branchynet.runtime.host.Model`."""

    def __init__(self, model: bytes, threads: int) -> None:
        self._session = load_session(model, threads)

    def bind(self, x: np.ndarray, outputs: Sequence[np.ndarray]) -> Callable[[], object]:
        return partial(self._session.run_with_iobinding, bind(self._session, x, outputs))


class Step(nn.Module):
    """Segment, head, criterion and argmax: (prediction, uncertainty[, features])."""

    def __init__(self, segment: nn.Module, head: nn.Module, criterion: Criterion, forwards: bool) -> None:
        super().__init__()
        self.segment, self.head, self.criterion, self.forwards = segment, head, criterion, forwards

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.segment(x)
        logits = self.head(features)
        outputs = (logits.argmax(dim=1), self.criterion(logits))
        return (*outputs, features) if self.forwards else outputs


class Argmax(nn.Module):
    """From images (B, C, H, W) to classes (B,)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).argmax(dim=1)


def export(module: nn.Module, shape: Sequence[int]) -> bytes:
    """`module` as an ONNX model with the input `x`, (B, *shape) float32, for any B."""
    # Three samples: 0 and 1 would be taken for constants.
    example = torch.zeros(3, *shape)
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        # The exporter's own, about its own: deprecated calls inside torch.export and onnxscript.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def make_session(module: nn.Module, shape: Sequence[int], threads: int) -> ort.InferenceSession:
    """A session on the CPU for `module` on inputs (B, *shape)."""
    return load_session(export(module, shape), threads)


def load_session(model: bytes, threads: int) -> ort.InferenceSession:
    """A session on the CPU for an ONNX model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors only
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bind(session: ort.InferenceSession, x: np.ndarray, outputs: Sequence[np.ndarray]) -> ort.IOBinding:
    """A binding of the session's one input and its outputs, in order, to these arrays' memory.

    The caller keeps the arrays: the binding knows addresses only.
    """
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
    for output, array in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(output.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding


class _quiet:
    """No logging below errors from these loggers inside."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
