"""An export in another process: the same answers, and really no PyTorch there."""

import subprocess
import sys

import numpy as np
import pytest

from branchynet.exports.load import load_export
from branchynet.exports.replay import ALONE, replay


@pytest.mark.parametrize("name", ["segments", "single"])
def test_another_process_without_torch_says_the_same(name, folders, pixels, middling):
    points = np.float32([middling, (0.5, 2.2)])
    answers = replay(folders[name], pixels, points, trust=False)
    for answer, thresholds in zip(answers, points, strict=True):
        here = load_export(folders[name])
        here.thresholds = thresholds
        for ours, theirs in zip(here.answer(pixels), answer, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_programs_of_torch_are_replayed_where_they_are_trusted(folders, pixels, middling):
    points = np.float32([middling])
    (answer,) = replay(folders["torch"], pixels[: ALONE + 5], points, trust=True)
    here = load_export(folders["torch"], trust=True).answer(pixels[: ALONE + 5])
    for ours, theirs in zip(here, answer, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.raises(RuntimeError, match="trust=true"):
        replay(folders["torch"], pixels[:3], points, trust=False)


@pytest.mark.parametrize("count", [1, ALONE, ALONE + 1])
def test_any_number_of_images_is_replayed(count, folders, pixels, middling):
    (answer,) = replay(folders["segments"], pixels[:count], np.float32([middling]), trust=False)
    assert [len(column) for column in answer] == [count] * 4


def test_a_failure_says_what_the_process_said(tmp_path, pixels):
    with pytest.raises(RuntimeError, match=r"(?s)does not run in another process:.*no export"):
        replay(tmp_path, pixels[:3], np.float32([[1, 1]]), trust=False)


def test_that_process_really_has_no_torch_and_loading_needs_none():
    code = (
        "import sys; import branchynet; branchynet.load_export; assert 'torch' not in sys.modules;"
        "from branchynet.exports.replay import NoTorch; sys.meta_path.insert(0, NoTorch());"
        "import numpy\n"
        "try: import torch\n"
        "except ImportError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr
