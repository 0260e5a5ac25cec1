"""Runs that are damaged or lie: refused in one line. A line of CASES is a case: commands, file, damage."""

import hashlib

import child
import damage
import numpy as np
import pytest

BOMB = r"a: &a [x,x,x,x,x,x,x]\n" + "".join(
    rf"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in ("ab", "bc", "cd", "de", "ef", "fg", "gh", "hi")
)
CASES = f"""
evaluate predict resume | result.json | empty
evaluate predict resume | result.json | cut
evaluate predict resume | result.json | text {{}}
evaluate predict resume | result.json | text []
evaluate predict resume | result.json | folder
evaluate predict resume | result.json | fifo
evaluate predict resume | result.json | device
evaluate predict resume | result.json | huge
evaluate predict | result.json | set knee.thresholds [0.1,0.2]
evaluate predict | result.json | set knee.thresholds [NaN]
evaluate predict | result.json | set knee.thresholds "0.1"
evaluate predict | result.json | set exits.0.macs 0
evaluate predict | result.json | set exits.0.latency_us Infinity
evaluate predict | result.json | set baseline.latency_us 0
evaluate predict | result.json | set baseline.accuracy 1.5
evaluate predict | result.json | set threads -1
evaluate predict | result.json | drop knee
evaluate predict | result.json | drop exits
predict | data.json | cut
predict | data.json | set mean [NaN]
predict | data.json | set std [0]
predict | data.json | set mean [0.1,0.2,0.3]
predict | data.json | set classes ["a","b"]
predict | data.json | set input_shape [1,100000,100000]
predict | data.json | set input_shape [1,-8,8]
predict | data.json | fifo
predict | checkpoints/joint/best.ckpt | gone
predict | checkpoints/joint/best.ckpt | empty
predict | checkpoints/joint/best.ckpt | cut
predict | checkpoints/joint/best.ckpt | fifo
predict | checkpoints/joint/best.ckpt | device
predict | checkpoints/joint/best.ckpt | huge
predict | criterion.pt | cut
predict | criterion.pt | fifo
evaluate | trace-val.npz | cut
evaluate | trace-val.npz | flipped
evaluate | trace-val.npz | fifo
evaluate | trace-test.npz | text no trace
evaluate | baseline.npz | cut
evaluate | baseline.npz | folder
evaluate | costs.csv | empty
evaluate | costs.csv | cut
evaluate predict resume | .hydra/config.yaml | gone
evaluate predict resume | .hydra/config.yaml | empty
evaluate predict resume | .hydra/config.yaml | text a: [
evaluate predict resume | .hydra/config.yaml | text a: &a [*a]
evaluate predict resume | .hydra/config.yaml | text {BOMB}
evaluate predict resume | .hydra/config.yaml | text !!python/object/apply:os.mkdir [PWNED]
evaluate predict resume | .hydra/config.yaml | fifo
evaluate predict resume | .hydra/config.yaml | huge
predict | .hydra/config.yaml | swap branchynet.networks.lenet.lenet os.system
predict | .hydra/config.yaml | swap branchynet.networks.lenet.lenet builtins.exec
"""


def cases(table):
    rows = [[part.strip() for part in line.split("|")] for line in table.strip().splitlines()]
    return [
        pytest.param(command, file, how, id=f"{command} {file} {how[:40]}")
        for commands, file, how in rows
        for command in commands.split()
    ]


def contents(folder):
    """Of all regular files."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 10**9)
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in files}


@pytest.mark.parametrize(("command", "file", "how"), cases(CASES))
def test_refused_in_a_line_and_nothing_changed(command, file, how, finished, tmp_path):
    run = damage.copy_damaged(finished, tmp_path / "run", file, how)
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 28, 28), np.uint8))
    before = contents(tmp_path)
    words = {
        "evaluate": ["evaluate", "run=run", "from=trace", "hydra.run.dir=evaluated"],
        "predict": ["predict", "run=run", "input=images.npy"],
        "resume": ["train", "resume=run"],
    }
    child.call(words[command], tmp_path, seconds=60).refused()
    assert contents(tmp_path) == before
    assert not (tmp_path / "PWNED").exists() and not (tmp_path / "evaluated").exists()
    assert run.is_dir()
