"""No command looks anything up or sends anything: what the system calls say, of libraries in C++, too."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

CHAIN = """
import sys
from branchynet.__main__ import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["branchynet", *line.split()]
    main()
"""
LINES = """\
train experiment=b_lenet_digits trainer=cpu epochs.baseline=1 epochs.joint=1 schedule=none engine=torch \
engine.seconds=0.01 engine.compare=[] logger=none cache=null hydra.run.dir=run data=arrays \
data.path=data.npz data.validation_size=40
evaluate run=run sweep/rule=knee
export run=run output=export compare=5
predict export=export input=x.npy
"""
TRACED = "strace -f --seccomp-bpf -e trace=connect,sendto,sendmsg -o calls"


@pytest.mark.skipif(shutil.which("strace") is None, reason="wants strace")
def test_no_command_connects_to_anything(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (160, 28, 28), np.uint8), np.arange(160) % 10
    np.savez(tmp_path / "data.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    np.save(tmp_path / "x.npy", x[:3])
    done = subprocess.run(
        [*TRACED.split(), sys.executable, "-c", CHAIN],
        input=LINES,
        cwd=tmp_path,
        # As users have it: nothing is switched off from outside, and a library's own cache folder is empty.
        env={**{k: v for k, v in os.environ.items() if "TELEMETRY" not in k}, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "3 images left" in done.stdout
    calls = (tmp_path / "calls").read_text(errors="replace")
    assert "+++ exited with 0 +++" in calls, "it was watched"
    assert not [line for line in calls.splitlines() if "AF_INET" in line]
