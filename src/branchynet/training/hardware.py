"""What `auto` stands for: choices in training that depend on the machine alone."""

from collections.abc import Mapping
from typing import Any

import torch

from branchynet.errors import not_allowed

# Below this number of multiply-accumulates per image bfloat16 does not pay: it slowed LeNet down, and not AlexNet.
SMALL_MACS = 5_000_000


def trains_on_gpu(accelerator: str) -> bool:
    """Whether Lightning's `accelerator` (auto | cpu | gpu …) means a CUDA GPU on this machine."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def resolve_channels_last(value: Any) -> bool:
    """`auto` is true: it was 1.2 to 1.4 times faster on CPUs for LeNet, AlexNet and ResNet.

    On GPUs it is the layout that half-precision convolutions are written for; not measured here.
    """
    return _flag("channels_last", value, auto=True)


def resolve_compile(value: Any, accelerator: str) -> bool:
    """`auto` compiles for a GPU only.

    On two CPU cores compiling takes one to two minutes, and what it gives is 309 images a second of ResNet-110
    where eager PyTorch trains 326 (bfloat16, batches of 128, AVX-512), or 54 where it trains 38 (float32, AVX2).
    """
    return _flag("compile", value, auto=trains_on_gpu(accelerator))


def compile_options(device: torch.device, processes: int) -> dict[str, Any] | None:
    """What `torch.compile` is told in training: on one GPU to launch a step's layers together, as CUDA graphs.

    There the layers of small networks take less time than it takes the host to launch them one by one: an epoch
    of ResNet-20 (45,000 images in batches of 128, bfloat16, an H200, beside other trainings) took 5.0 s
    without and 2.7 s with.

    Args:
        device: where training runs.
        processes: that train together; graphs and their exchange of gradients were not tried.
    """
    return {"triton.cudagraphs": True} if device.type == "cuda" and processes == 1 else None


def resolve_precision(value: Any, accelerator: str, macs: int) -> Any:
    """`auto` is `bf16-mixed` where the machine computes in bfloat16 itself and the network is worth it.

    On one core with AVX-512 and its bfloat16 that trained AlexNet (28 million MACs) 1.8 and ResNet-110 (253
    million) 1.4 times as fast, but LeNet (1.1 million) 0.6 times: there the casts cost more than they save. Where
    bfloat16 is emulated, it is slower than float32.

    Args:
        value: `auto`, or what Lightning is to judge.
        macs: of the trunk, per image.
    """
    if value != "auto":
        return value
    worth_it = macs >= SMALL_MACS and _has_bfloat16(trains_on_gpu(accelerator))
    return "bf16-mixed" if worth_it else "32-true"


def _has_bfloat16(gpu: bool) -> bool:
    if gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older versions of torch do not tell what a CPU has.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _flag(name: str, value: Any, auto: bool) -> bool:
    if value == "auto":
        return auto
    if not isinstance(value, bool):
        raise not_allowed(name, value, "auto, true or false")
    return value
