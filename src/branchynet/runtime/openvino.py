"""OpenVINO on the CPU, an optional extra: `pip install 'branchynet[openvino]'`.

Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from branchynet.errors import check_choice
from branchynet.runtime.host import HostBackend, Load

if TYPE_CHECKING:
    import openvino as ov

PRECISIONS = ("f32", "bf16")


class OpenVino(HostBackend):
    """OpenVINO, one model per segment.

    Args:
        precision: see `OpenVinoModel`.
    """

    packages: ClassVar = {"openvino": "the package openvino: pip install 'branchynet[openvino]'"}

    def __init__(self, precision: str = "f32") -> None:
        check_choice("precision", precision, PRECISIONS)
        self.precision = precision
        self.exact = precision == "f32"
        self.name = "openvino" if self.exact else f"openvino_{precision}"

    def load(self, threads: int) -> Load:
        return lambda model: OpenVinoModel(model, threads, self.precision)


class OpenVinoModel:
    """An ONNX model on OpenVINO. See `branchynet.runtime.host.Model`.

    The first binding to one row gets a model of its own, compiled for that shape alone, and stays bound: a
    model for any number of rows works out its shapes in every call. All others share such a one.

    Args:
        model: with inputs (R, …) float32, for any R.
        threads: of computation.
        precision: f32, or bf16 for convolutions and matrix products: faster where the processor has
            instructions for them (AlexNet 1.6 times with AVX-512). What it gives then differs from PyTorch's in
            the third digit, so thresholds are to be swept with its own outputs
            (`branchynet.runtime.trace_engine`).
    """

    def __init__(self, model: bytes, threads: int, precision: str = "f32") -> None:
        import openvino as ov  # an extra, so not when this file is imported

        self._core, self._tensor = ov.Core(), ov.Tensor
        self._model = self._core.read_model(model)
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": precision,
            # Several engines live in one process, and would all be pinned to the same core.
            "ENABLE_CPU_PINNING": False,
        }
        self._one: ov.InferRequest | None = None
        self._any: ov.InferRequest | None = None

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Callable[[], object]:
        if len(inputs[0]) == 1 and self._one is None:
            model = self._model.clone()
            model.reshape({index: list(given.shape) for index, given in enumerate(inputs)})
            request = self._one = self._compile(model)
        else:
            request = self._any = self._any or self._compile(self._model)
        for index, given in enumerate(inputs):
            request.set_input_tensor(index, self._tensor(given, shared_memory=True))
        for index, output in enumerate(outputs):
            request.set_output_tensor(index, self._tensor(output, shared_memory=True))
        call = partial(request.infer, share_outputs=True)
        vars(call)["arrays"] = (inputs, outputs)  # the request may know addresses only
        return call

    def _compile(self, model: ov.Model) -> ov.InferRequest:
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
