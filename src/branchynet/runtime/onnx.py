"""ONNX Runtime on the CPU.

Shapes: R rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from branchynet.runtime.host import HostBackend, Load

_CURE = "the packages onnxruntime, onnx and onnxscript: install them"


class OnnxRuntime(HostBackend):
    """ONNX Runtime, one model per segment."""

    name = "onnxruntime"
    packages: ClassVar = {"onnxruntime": _CURE, "onnx": _CURE, "onnxscript": _CURE}

    def load(self, threads: int) -> Load:
        return lambda model: OnnxModel(model, threads)


class OnnxModel:
    """An ONNX model on ONNX Runtime, on the CPU. See `branchynet.runtime.host.Model`."""

    def __init__(self, model: bytes, threads: int) -> None:
        # Not when this file is: OpenVINO's users need no ONNX Runtime.
        import onnx
        import onnxruntime as ort

        from branchynet.runtime.blocks import keep_in_blocks
        from branchynet.runtime.session import load_session

        model = keep_in_blocks(onnx.load_from_string(model)).SerializeToString()
        self._value = ort.OrtValue.ortvalue_from_numpy
        self._session = load_session(model, threads)
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for name, given in zip(self._inputs, inputs, strict=True):
            binding.bind_cpu_input(name, given)
        for name, output in zip(self._outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, self._value(output))
        call = partial(self._session.run_with_iobinding, binding)
        vars(call)["arrays"] = (inputs, outputs)  # for as long as the call lives, whatever the binding holds
        return call
