"""What `auto` stands for on machines with and without a GPU."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.training import hardware


@pytest.fixture(params=[True, False], ids=["gpu", "no gpu"])
def gpu(request, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: request.param)
    return request.param


def test_compiling_is_for_gpus_unless_it_is_asked_for(gpu):
    assert hardware.resolve_compile("auto", "auto") is gpu
    assert hardware.resolve_compile("auto", "gpu") is gpu
    assert hardware.resolve_compile("auto", "cpu") is False
    assert hardware.resolve_compile(True, "cpu") is True
    assert hardware.resolve_compile(False, "auto") is False


def test_channels_last_is_the_default_everywhere(gpu):
    assert hardware.resolve_channels_last("auto") is True
    assert hardware.resolve_channels_last(False) is False


def test_anything_else_gets_one_line():
    for value in ("on", 1, None):
        with pytest.raises(UserError, match=f"compile={value}: it is auto, true or false"):
            hardware.resolve_compile(value, "cpu")


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, "32-true"),
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, "32-true"),
        ({"avx512_f": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"neon": True, "bf16": True}, "bf16-mixed"),
    ],
)
def test_precision_on_a_cpu_follows_its_instructions(capabilities, precision, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities, raising=False)
    assert hardware.resolve_precision("auto", "auto", 28_000_000) == precision
    # LeNet's: bfloat16 slows it down.
    assert hardware.resolve_precision("auto", "auto", 1_140_000) == "32-true"
    assert hardware.resolve_precision("16-mixed", "auto", 1_140_000) == "16-mixed"


@pytest.mark.parametrize("supported", [True, False])
def test_precision_on_a_gpu_is_the_gpus_and_not_the_cpus(supported, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: supported)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": not supported}, raising=False)
    expected, other = ("bf16-mixed", "32-true") if supported else ("32-true", "bf16-mixed")
    assert hardware.resolve_precision("auto", "gpu", 28_000_000) == expected
    assert hardware.resolve_precision("auto", "cpu", 28_000_000) == other


def test_a_torch_that_does_not_tell_what_the_cpu_has_trains_in_float32(monkeypatch):
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    assert hardware.resolve_precision("auto", "cpu", 28_000_000) == "32-true"


def test_one_gpu_launches_a_step_as_a_graph():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert hardware.compile_options(gpu, 1) == {"triton.cudagraphs": True}
    assert hardware.compile_options(gpu, 2) is None and hardware.compile_options(cpu, 1) is None
