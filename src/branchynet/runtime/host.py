"""Engines with one exported model per segment and a loop in the host: ONNX Runtime and OpenVINO.

Shapes: B batch, C channels, H, W, N exits, R rows.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend, Outcome, check_thresholds
from branchynet.runtime.compaction import Scratch, by_compaction, numbers
from branchynet.runtime.for_inference import frozen
from branchynet.runtime.steps import ModelStep, exit_steps, without_repeats
from branchynet.runtime.to_onnx import export


class Model(Protocol):
    """A loaded model that takes its input from the caller's memory, and writes its outputs there."""

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Callable[[], object]:
        """A function that runs the model from inputs to outputs, (R, …) each, in the model's order.

        The arrays lie in one piece; the function keeps them. With more rows than one it is to be called before
        the model is bound again.
        """


# From an ONNX model with inputs (B, …) float32, for any B.
Load = Callable[[bytes], Model]


class HostBackend(Backend):
    """An engine that loads ONNX models."""

    @abstractmethod
    def load(self, threads: int) -> Load:
        """How it loads a model that is to run on `threads` threads."""

    def engine(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        threads: int,
    ) -> "HostEngine":
        return HostEngine(network, criteria, thresholds, input_shape, self.load(threads))

    def classifier(
        self, module: nn.Module, input_shape: tuple[int, int, int], threads: int
    ) -> "HostClassifier":
        return HostClassifier(module, input_shape, self.load(threads))

    def chain(
        self, modules: Sequence[nn.Module], input_shape: tuple[int, int, int], threads: int
    ) -> "HostChain":
        return HostChain(modules, input_shape, self.load(threads))


class HostEngine:
    """See `branchynet.runtime.base.Engine`.

    Model n holds segment n, head n, the criterion and the argmax. For batch 1 every model's inputs and outputs
    are bound to memory once: what segment n writes is what segment n+1 reads, and nothing is copied but the
    image. Where exit n+1 averages or looks back, exit n's answer or state goes the same way. A batch is bound
    again at every exit, because its rows change; what is copied then is the rows that stay, where others left.
    """

    def __init__(
        self,
        network: BranchedNetwork,
        criteria: Sequence[Criterion],
        thresholds: Sequence[float],
        input_shape: tuple[int, int, int],
        load: Load,
    ) -> None:
        network = without_repeats(frozen(network), criteria)
        steps = exit_steps(network, [frozen(criterion) for criterion in criteria])
        self._input = np.zeros((1, *input_shape), np.float32)
        self.models: list[Model] = []
        # The shape of what model n hands on, without the rows; None: its own input, where segment n is the
        # identity, or nothing, where it is the last.
        self.features: list[tuple[int, ...] | None] = []
        # Of a prediction, without the rows: () of a class, (H, W) of a map.
        self.answer: tuple[int, ...] = ()
        # The widths W of what else it hands on, (R, W) each, in the models' order: see `HandsOn`.
        self.beside: list[tuple[int, ...]] = []
        self._calls: list[tuple[Callable[[], object], np.ndarray, np.ndarray]] = []
        self._scratch = Scratch()
        inputs = [self._input]
        for n, step in enumerate(steps):
            forwards = n < len(steps) - 1 and not isinstance(step.segment, nn.Identity)
            with torch.inference_mode():
                features, answer, _, *beside = step(*(torch.zeros(2, *x.shape[1:]) for x in inputs))
            model = load(export(ModelStep(step, forwards), *(x.shape[1:] for x in inputs)))
            self.models.append(model)
            self.features.append(tuple(features.shape[1:]) if forwards else None)
            self.answer = tuple(answer.shape[2:])
            self.beside.append(tuple(each.shape[1] for each in beside))
            room = np.empty((1, *features.shape[1:]), np.float32) if forwards else None
            prediction, uncertainty, behind, inputs_behind = _memory(
                inputs[0], self.answer, room, self.beside[n]
            )
            call = model.bind(inputs, [prediction, uncertainty, *behind])
            self._calls.append((call, prediction, uncertainty))
            inputs = inputs_behind
        self.thresholds = thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self.models))
        # One tuple per exit, so that the loop looks nothing up; the last exit takes whatever comes.
        limits = [*self._thresholds, np.inf]
        exits = np.arange(1, len(limits) + 1)
        exits.flags.writeable = False
        self._loop = [
            (exits[n : n + 1], *call, limit)
            for n, (call, limit) in enumerate(zip(self._calls, limits, strict=True))
        ]

    def run(self, x: np.ndarray) -> Outcome:
        if x.shape != self._input.shape:
            x = np.ascontiguousarray(x, np.float32)
            return Outcome(*by_compaction(x, self._thresholds, self._step, self._scratch.take, numbers))
        self._input[...] = x
        for taken, call, prediction, uncertainty, limit in self._loop:  # noqa: B007
            call()
            if uncertainty[0] < limit:
                break
        # Copies: the next run writes into these two; `taken` is the same for every run, and read-only.
        return Outcome(prediction.copy(), taken, uncertainty.copy())

    def _step(
        self, n: int, handed: Sequence[np.ndarray]
    ) -> tuple[Sequence[np.ndarray], np.ndarray, np.ndarray]:
        x, shape = handed[0], self.features[n]
        room = None if shape is None else self._scratch.array((len(x), *shape), beside=x)
        prediction, uncertainty, behind, handed_on = _memory(x, self.answer, room, self.beside[n])
        self.models[n].bind(handed, [prediction, uncertainty, *behind])()
        return handed_on, prediction, uncertainty


def _memory(
    x: np.ndarray, answer: Sequence[int], features: np.ndarray | None, beside: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Where a model writes: prediction (R, …), uncertainty (R,), what else it gives; and what the next one takes.

    Args:
        x: (R, …), its first input.
        answer: the shape of a prediction, without the rows.
        features: memory for those that it gives; None: the next one takes x again.
        beside: the widths of what else it gives.
    """
    more = [np.empty((len(x), width), np.float32) for width in beside]
    given = [*([] if features is None else [features]), *more]
    handed_on = [x if features is None else features, *more]
    return np.empty((len(x), *answer), np.int64), np.empty(len(x), np.float32), given, handed_on


class HostClassifier:
    """One undivided model, from an image (1, C, H, W) to the class or the map, with its memory bound once."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], load: Load) -> None:
        self._input = np.zeros((1, *input_shape), np.float32)
        argmax = Argmax(frozen(module))
        with torch.inference_mode():
            shape = argmax(torch.zeros(2, *input_shape)).shape[1:]
        self._prediction = np.empty((1, *shape), np.int64)
        model = load(export(argmax, input_shape))
        self._call = model.bind([self._input], [self._prediction])

    def __call__(self, x: np.ndarray) -> int | np.ndarray:
        self._input[...] = x
        self._call()
        return int(self._prediction[0]) if self._prediction.ndim == 1 else self._prediction[0].copy()


class HostChain:
    """Modules one after the other, each a model of its own, as the engine runs segments."""

    def __init__(self, modules: Sequence[nn.Module], input_shape: tuple[int, ...], load: Load) -> None:
        self._input = buffer = np.zeros((1, *input_shape), np.float32)
        self._calls = []
        for module in modules:
            module = frozen(module)
            with torch.inference_mode():
                given = module(torch.zeros(2, *buffer.shape[1:]))
            outputs = [_room_for(tensor) for tensor in ([given] if isinstance(given, Tensor) else given)]
            self._calls.append(load(export(module, buffer.shape[1:])).bind([buffer], outputs))
            buffer = outputs[0]

    def __call__(self, x: np.ndarray) -> None:
        self._input[...] = x
        for call in self._calls:
            call()


class Argmax(nn.Module):
    """From images (B, C, H, W) to classes (B, …)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).argmax(dim=1)


def _room_for(tensor: Tensor) -> np.ndarray:
    """Memory for one row of it."""
    return np.empty((1, *tensor.shape[1:]), np.dtype(str(tensor.dtype).removeprefix("torch.")))
