"""An export's loop over single images, in a process of its own: what is to be timed or counted from outside.

`python -m branchynet.exports.loop <export> <images.npy> <rounds> <T_1,T_2,…>` runs each image `rounds` times,
one by one, after a warm-up through every exit, and prints the microseconds per image; 0 rounds: that alone.
"""

import sys
import time

import numpy as np

from branchynet.exports.load import load_export
from branchynet.runtime.base import forced

WARM_UP = 3  # images through every exit: the first calls allocate and choose kernels


def main(folder: str, images: str, rounds: str, thresholds: str) -> None:
    exported = load_export(folder)
    x = np.load(images)
    exits = len(exported.thresholds) + 1
    for n in range(exits):
        exported.thresholds = forced(n, exits)
        for _ in range(WARM_UP):
            exported.run_once(x[:1])
    exported.thresholds = tuple(float(value) for value in thresholds.split(","))
    run = exported.run_once
    start = time.perf_counter()
    for _ in range(int(rounds)):
        for i in range(len(x)):
            run(x[i : i + 1])
    print(1e6 * (time.perf_counter() - start) / max(int(rounds) * len(x), 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
