"""Export to ONNX, and ONNX Runtime.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.runtime.blocks import keep_in_blocks
from branchynet.runtime.session import load_session


class OnnxModel:
    """An ONNX model on ONNX Runtime, on the CPU. See `branchynet.runtime.host.Model`."""

    def __init__(self, model: bytes, threads: int) -> None:
        model = keep_in_blocks(onnx.load_from_string(model)).SerializeToString()
        self._session = load_session(model, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def bind(self, x: np.ndarray, outputs: Sequence[np.ndarray]) -> Callable[[], object]:
        binding = self._session.io_binding()
        binding.bind_cpu_input("x", x)
        for name, output in zip(self._outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(output))
        call = partial(self._session.run_with_iobinding, binding)
        vars(call)["arrays"] = (x, outputs)  # for as long as the call lives, whatever the binding holds
        return call


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
    return export_model(module, torch.zeros(3, *shape), "x").SerializeToString()


def export_model(
    module: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """`module` as an ONNX model, for any batch unless the example has one image.

    Args:
        example: (B, …), of the type that the model will take.
        output_names: None leaves them to the exporter.
    """
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        # The exporter's own, about its own: deprecated calls inside torch.export and onnxscript.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=any_batch(example),
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source it comes from: most of a small model's bytes
    return model


def any_batch(example: Tensor) -> tuple[dict[int, Any]] | None:
    """`dynamic_shapes` of PyTorch's exporters: the batch of the one input, unless the example has one image."""
    return None if len(example) == 1 else ({0: torch.export.Dim("batch")},)


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
