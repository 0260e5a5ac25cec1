"""Modules as ONNX models.

Shapes: B batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx


def export(module: nn.Module, *shapes: Sequence[int]) -> bytes:
    """`module` as an ONNX model with inputs (B, *shape) float32 for any B: `x`, and more of them `x2`, `x3`, …"""
    # Three samples: 0 and 1 would be taken for constants.
    examples = {"x" if n == 1 else f"x{n}": torch.zeros(3, *shape) for n, shape in enumerate(shapes, start=1)}
    return export_model(module, examples).SerializeToString()


def export_model(
    module: nn.Module, examples: Mapping[str, Tensor], output_names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """`module` as an ONNX model, for any batch unless the examples have one image.

    Args:
        examples: (B, …) each, by the inputs' names, of the types that the model will take.
        output_names: None leaves them to the exporter.
    """
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"), translations_kept():
        # The exporter's own, about its own: deprecated calls inside torch.export and onnxscript.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # all inputs have one batch
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            dynamo=True,
            verbose=False,
            input_names=list(examples),
            output_names=output_names,
            dynamic_shapes=any_batch(*examples.values()),
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source it comes from: most of a small model's bytes
    return model


def any_batch(*examples: Tensor) -> tuple[dict[int, Any], ...] | None:
    """`dynamic_shapes` of PyTorch's exporters: the batch of all inputs, unless the examples have one image."""
    return None if len(examples[0]) == 1 else ({0: torch.export.Dim("batch")},) * len(examples)


# The same function for the same function, which is called once for the same arguments.
_once = cache(cache)


@contextmanager
def translations_kept() -> Iterator[None]:
    """The exporter reads its table of translations anew for every model, half of a small one's time: here once.

    Only inside, for others may add to theirs. Another PyTorch may lack what is replaced here; then it is slower.
    """
    name = "from_torchlib"
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = vars(ONNXRegistry)[name]
    except (ImportError, KeyError):
        yield
        return
    setattr(ONNXRegistry, name, staticmethod(_once(read.__get__(None, ONNXRegistry))))
    try:
        yield
    finally:
        setattr(ONNXRegistry, name, read)


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
