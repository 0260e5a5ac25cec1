"""What every engine shares: what it needs, thresholds, threads. None of it needs PyTorch."""

import math
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from branchynet.errors import ArgumentError, UserError
from branchynet.runtime.base import Backend, Outcome, check_threads, check_thresholds, forced
from branchynet.runtime.catalogue import ENGINES


def loaded(code):
    """What a new process has imported after that code."""
    code += "\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_it_imports_no_torch_and_needs_none():
    """Where exported models run there may be none."""
    assert "torch" not in loaded("import branchynet.runtime.base")
    assert "branchynet.runtime.base" in loaded(
        "import sys; sys.modules['torch'] = None; import branchynet.runtime.base"
    )


NEEDED = {
    "onnxruntime": ["onnxruntime", "onnx", "onnxscript"],
    "openvino": ["openvino"],
    "openvino_bf16": ["openvino"],
}


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_engine_says_what_it_needs(name):
    assert list(ENGINES[name].packages) == NEEDED.get(name, [])


@pytest.mark.parametrize(("name", "missing"), [(name, each) for name in NEEDED for each in NEEDED[name]])
def test_a_missing_package_is_named_in_one_line(name, missing, monkeypatch):
    for package in NEEDED[name]:
        # None is as if it were not installed; the others are there, whether they are or not.
        monkeypatch.setitem(sys.modules, package, None if package == missing else sys)
    with pytest.raises(UserError, match=rf"^engine={name} needs .*\b{missing}\b") as caught:
        ENGINES[name].check()
    assert "\n" not in str(caught.value) and "or take engine=torch" in str(caught.value)
    monkeypatch.setitem(sys.modules, missing, sys)
    ENGINES[name].check()


def test_only_the_packages_that_are_missing_are_missed(monkeypatch):
    class Mine(Backend):
        name = "mine"
        packages: ClassVar = {"sys": "sys", "no_such_package": "the package no-such-package: pip install it"}
        engine = classifier = chain = None

    with pytest.raises(
        UserError, match=r"^engine=mine needs the package no-such-package: pip install it, or"
    ):
        Mine().check()
    monkeypatch.setitem(sys.modules, "no_such_package", sys)
    Mine().check()


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", None])
def test_a_number_of_threads_is_a_whole_one_above_0(threads):
    check_threads(1)
    with pytest.raises(ArgumentError, match=f"^threads={threads}: it is a whole number above 0$"):
        check_threads(threads)


def test_threads_have_an_end():
    with pytest.raises(
        ArgumentError, match=r"^threads=100000: it is at most \d+: this machine has \d+ cores$"
    ):
        check_threads(100_000)


def test_thresholds_are_as_float32_holds_them():
    assert check_thresholds((0.1, math.inf), 3) == (float(np.float32(0.1)), math.inf)
    assert check_thresholds(np.float32([0.1]), 2) == (float(np.float32(0.1)),)
    assert check_thresholds((), 1) == ()
    # A warning would be an error.
    assert check_thresholds((1e300, -1e300), 3) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [((), ["0 thresholds", "3 exits", "give 2"]), ((1, 2, 3), ["3 thresholds"]), ((1.0, math.nan), ["nan"])],
)
def test_wrong_thresholds_get_one_line(thresholds, words):
    with pytest.raises(UserError) as caught:
        check_thresholds(thresholds, 3)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_forced_thresholds_let_nobody_out_before_and_everybody_there():
    assert forced(0, 3) == (math.inf, -math.inf)
    assert forced(1, 3) == (-math.inf, math.inf)
    assert forced(2, 3) == (-math.inf, -math.inf)
    assert forced(0, 1) == ()


def test_exits_count_from_1_and_their_index_from_0():
    outcome = Outcome(np.array([7, 7]), np.array([1, 3]), np.float32([0.5, 0.5]))
    assert outcome.exit_index.tolist() == [0, 2] and outcome._fields == ("prediction", "exit", "uncertainty")
