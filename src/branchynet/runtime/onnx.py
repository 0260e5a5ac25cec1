"""Early exit on ONNX Runtime: one model per segment, and a loop in the host.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.early_exit import frozen
from branchynet.runtime.engine import Outcome, by_compaction, check_thresholds


class OnnxEngine:
    """ONNX Runtime on the CPU. See `branchynet.runtime.engine.Engine`.

    Model n holds segment n, head n, the criterion and the argmax. For batch 1 every model's inputs and outputs
    are bound to memory once: what segment n writes is what segment n+1 reads, and nothing is copied but the
    image.
    """

    name = "onnxruntime"

    def __init__(
        self,
        network: BranchedNetwork,
        criterion: Criterion,
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        threads: int = 1,
    ) -> None:
        network = frozen(network)
        self._sessions: list[ort.InferenceSession] = []
        self._forwards: list[bool] = []  # whether model n gives features: the identity's are its input
        self._bindings: list[ort.IOBinding] = []
        self._outputs: list[tuple[np.ndarray, np.ndarray]] = []
        self._input = np.zeros((1, *input_shape), np.float32)
        # Every array that is bound, held here, for the bindings hold addresses only.
        self._buffers = [self._input]
        last = network.num_exits - 1
        for n, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
            forwards = n < last and not isinstance(segment, nn.Identity)
            buffer = self._buffers[-1]
            step = _Step(segment, head, criterion, forwards)
            with torch.inference_mode():
                features = segment(torch.zeros(2, *buffer.shape[1:]))
            session = make_session(step, buffer.shape[1:], threads)
            prediction, uncertainty = np.empty(1, np.int64), np.empty(1, np.float32)
            following = np.empty((1, *features.shape[1:]), np.float32) if forwards else buffer
            outputs = [prediction, uncertainty, *([following] if forwards else [])]
            self._sessions.append(session)
            self._forwards.append(forwards)
            self._bindings.append(bind(session, buffer, outputs))
            self._outputs.append((prediction, uncertainty))
            self._buffers.append(following)
        self.thresholds = thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self._sessions))
        # One tuple per exit, so that the loop looks nothing up; the last exit takes whatever comes.
        limits = [*self._thresholds, np.inf]
        exits = np.arange(len(limits))
        exits.flags.writeable = False
        self._loop = [
            (exits[n : n + 1], session.run_with_iobinding, binding, *outputs, limit)
            for n, (session, binding, outputs, limit) in enumerate(
                zip(self._sessions, self._bindings, self._outputs, limits, strict=True)
            )
        ]

    def run(self, x: np.ndarray) -> Outcome:
        if len(x) > 1:
            return by_compaction(x, self._thresholds, self._step)
        self._input[...] = x
        for taken, run, binding, prediction, uncertainty, limit in self._loop:  # noqa: B007
            run(binding)
            if uncertainty[0] < limit:
                break
        # Copies, for the next run writes into these two; `taken` is the same for every run, and read-only.
        return Outcome(prediction.copy(), taken, uncertainty.copy())

    def _step(self, n: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        outputs = self._sessions[n].run(None, {"x": np.ascontiguousarray(x)})
        return outputs[2] if self._forwards[n] else x, outputs[0], outputs[1]


class OnnxClassifier:
    """One undivided model on ONNX Runtime, from an image (1, C, H, W) to the class, with its memory bound once."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], threads: int) -> None:
        session = make_session(_Argmax(frozen(module)), input_shape, threads)
        self._input = np.zeros((1, *input_shape), np.float32)
        self._prediction = np.empty(1, np.int64)
        self._binding = bind(session, self._input, [self._prediction])
        self._run = session.run_with_iobinding

    def __call__(self, x: np.ndarray) -> int:
        self._input[...] = x
        self._run(self._binding)
        return int(self._prediction[0])


class OnnxChain:
    """Modules one after the other, each a model of its own, as the engine runs segments: for `trunk_only`."""

    def __init__(self, modules: Sequence[nn.Module], input_shape: tuple[int, ...], threads: int) -> None:
        self._buffers = [np.zeros((1, *input_shape), np.float32)]
        self._loop = []
        for module in modules:
            module = frozen(module)
            buffer = self._buffers[-1]
            with torch.inference_mode():
                given = module(torch.zeros(2, *buffer.shape[1:]))
            following = np.empty((1, *given.shape[1:]), np.dtype(str(given.dtype).removeprefix("torch.")))
            session = make_session(module, buffer.shape[1:], threads)
            self._loop.append((session.run_with_iobinding, bind(session, buffer, [following])))
            self._buffers.append(following)

    def __call__(self, x: np.ndarray) -> None:
        self._buffers[0][...] = x
        for run, binding in self._loop:
            run(binding)


class _Step(nn.Module):
    """Segment, head, criterion and argmax: (prediction, uncertainty[, features])."""

    def __init__(self, segment: nn.Module, head: nn.Module, criterion: Criterion, forwards: bool) -> None:
        super().__init__()
        self.segment, self.head, self.criterion, self.forwards = segment, head, criterion, forwards

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.segment(x)
        logits = self.head(features)
        outputs = (logits.argmax(dim=1), self.criterion(logits))
        return (*outputs, features) if self.forwards else outputs


class _Argmax(nn.Module):
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
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors only
    return ort.InferenceSession(export(module, shape), options, providers=["CPUExecutionProvider"])


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
