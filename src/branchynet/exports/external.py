"""Whether an ONNX model keeps data in other files: those of an export never do."""

from collections.abc import Iterator
from typing import Any


def has_external_data(model: bytes) -> bool:
    """Whether a tensor of an ONNX model, wherever it hangs, is said to lie in a file or at an address in memory.

    ONNX Runtime would read it, from the working directory where the model has no place of its own.

    Raises:
        Exception: it is no ONNX model.
    """
    # A file or address is named by an entry of this key. Without it nothing needs to be looked through, and onnx,
    # which takes a moment to import, is not needed.
    if b"location" not in model:
        return False
    import onnx

    return any(
        isinstance(part, onnx.TensorProto)
        and (part.external_data or part.data_location == onnx.TensorProto.EXTERNAL)
        for part in _parts(onnx.load_model_from_string(model))
    )


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all that are inside of it."""
    yield message
    for _, value in message.ListFields():
        if hasattr(value, "ListFields"):
            yield from _parts(value)
        elif not isinstance(value, str | bytes | int | float):
            for each in value:
                if not hasattr(each, "ListFields"):
                    break  # numbers or texts
                yield from _parts(each)
