"""ONNX Runtime's sessions, as we want all of them. No PyTorch."""

import onnxruntime as ort


def load_session(model: bytes, threads: int) -> ort.InferenceSession:
    """A session on the CPU for an ONNX model, on `threads` threads of computation."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # none: an error is an exception, which says the same
    # Not what the bytes look like: ONNX Runtime has a format of its own, which nobody here writes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
