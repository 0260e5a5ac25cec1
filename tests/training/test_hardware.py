"""What `auto` stands for on machines with and without a GPU."""

import pytest

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
