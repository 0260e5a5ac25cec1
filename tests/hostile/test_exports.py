"""Exports that are damaged or lie: `predict` refuses them in one line. A line below is a case: file, damage."""

import child
import damage
import numpy as np
import pytest

CASES = """
manifest.json | gone
manifest.json | empty
manifest.json | cut
manifest.json | text []
manifest.json | text {"format_version": 99}
manifest.json | folder
manifest.json | fifo
manifest.json | device
manifest.json | huge
manifest.json | set format "nosuch"
manifest.json | set criterion "nosuch"
manifest.json | set thresholds [0.1,0.2]
manifest.json | set thresholds []
manifest.json | set thresholds [NaN]
manifest.json | set thresholds [0.123]
manifest.json | set thresholds ["a"]
manifest.json | set classes ["a","b"]
manifest.json | set classes []
manifest.json | set input.shape [1,100000,100000]
manifest.json | set input.shape [3,28,28]
manifest.json | set input.shape [1,28]
manifest.json | set input.shape [0,28,28]
manifest.json | set normalisation.mean [NaN]
manifest.json | set normalisation.std [0]
manifest.json | set normalisation.mean [0.1,0.2]
manifest.json | set costs.exits []
manifest.json | set costs.exits.0.macs 0
manifest.json | set costs.exits.0.latency_us Infinity
manifest.json | set costs.exits.0.latency_us -1
manifest.json | set costs.baseline.latency_us 0
manifest.json | set files []
manifest.json | set files.0.name "../segment-1.onnx"
manifest.json | set files.0.name "/dev/zero"
manifest.json | set files.0.sha256 "00"
manifest.json | drop files
manifest.json | drop costs
segment-1.onnx | gone
segment-1.onnx | empty
segment-1.onnx | cut
segment-1.onnx | flipped
segment-1.onnx | folder
segment-1.onnx | fifo
segment-1.onnx | device
segment-1.onnx | huge
segment-2.onnx | text no model
"""


@pytest.mark.parametrize(
    ("file", "how"),
    [[part.strip() for part in line.split("|")] for line in CASES.strip().splitlines()],
)
def test_refused_in_a_line(file, how, export, tmp_path):
    damage.copy_damaged(export, tmp_path / "export", file, how)
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 28, 28), np.uint8))
    child.call(["predict", "export=export", "input=images.npy"], tmp_path, seconds=30).refused()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "images.npy"]
