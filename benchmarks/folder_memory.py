"""Peak memory of training on folders of 10,000 and of 100,000 images, and what decoding costs, once and not again.

    python benchmarks/folder_memory.py                        # B-AlexNet, 3×32×32, an epoch of each stage
    python benchmarks/folder_memory.py --data-alone           # without training
    python benchmarks/folder_memory.py --images 500 --times 3 # to see that it works

The images are generated. Decoded, they are kept on the disk (`data.keep=disk`), whatever memory there is. Of each
number, three processes: one decodes, looks at all images (statistics, fingerprint, border) and walks through an
epoch of batches; another finds what was decoded and does the same; the third is `branchynet train` from the first
image to the report. Their peaks are the highest resident memory that Linux counted for them or a process of theirs.
Aims: ten times the images, the same peak (≤ 1.1); what is found again takes a tenth of decoding at most.

It takes a quarter of an hour on two quiet cores, and half a GiB of disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, SIZE = 10, 32  # and pixels
SETTINGS = (
    "model=b_alexnet_light",
    "data=folder",
    f"data.size={SIZE}",
    "data.keep=disk",
    "debug=fast",
    "trainer=cpu",
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=int, default=10_000, help="the smaller number")
    options.add_argument("--times", type=int, default=10, help="the larger number is so many times that")
    options.add_argument(
        "--folder", type=Path, help="where all is made and removed; default: of temporary files"
    )
    options.add_argument("--data-alone", action="store_true", help="without training")
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        print(*walk_through(arguments.child))
        return
    print("| images | decoding, s | found again, s | share | an epoch, s | peak, MB | times the first |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    first: list[float] = []
    for count in (arguments.images, arguments.times * arguments.images):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            generate(folder / "images", count)
            child = [sys.executable, __file__, "--child", str(folder / "images")]
            once, peak = peak_of(child, folder)
            again, peak_again = peak_of(child, folder)
            peaks = [max(peak, peak_again)]
            if not arguments.data_alone:
                peaks.append(peak_of(training(folder), folder)[1])
        first = first or peaks
        (decoding, _), (found, epoch) = numbers(once), numbers(again)
        print(
            f"| {count:,} | {decoding:.1f} | {found:.2f} | {found / decoding:.3f} | {epoch:.1f} | {peaks[0]:,.0f} "
            f"| {peaks[0] / first[0]:.3f} |",
            flush=True,
        )
        for peak, of_first in zip(peaks[1:], first[1:], strict=True):
            print(
                f"Training on {count:,}: {peak:,.0f} MB, {peak / of_first:.3f} times the first.", flush=True
            )


def generate(folder: Path, count: int) -> None:
    """Textures that compress as photographs do, each class of a colour of its own."""
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / str(number)).mkdir(parents=True)
    for number in range(count):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        coarse[:, :, number % 3] //= 1 + number % CLASSES
        image = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        image.save(folder / str(number % CLASSES) / f"{number:07}.jpg")


def walk_through(folder: Path) -> tuple[float, float]:
    """What a child does: seconds until the images are there, and for an epoch of training batches."""
    from branchynet.data.module import ImageData
    from branchynet.runs.image_facts import facts_of

    data = ImageData(
        "folder", path=str(folder), validation_size=None, size=SIZE, keep="disk", batch_size=64,
        augment={"flip": True, "crop_scale": [0.35, 1]},
    )  # fmt: skip
    begin = time.perf_counter()
    data.setup()
    there = time.perf_counter()
    facts_of(data)
    looked = time.perf_counter()
    for _ in data.train_dataloader():
        pass
    return there - begin, time.perf_counter() - looked


def numbers(printed: str) -> tuple[float, float]:
    """The last two of what a child has printed."""
    first, second = printed.split()[-2:]
    return float(first), float(second)


def training(folder: Path) -> list[str]:
    """The command; its files go with the folder."""
    command = [sys.executable, "-m", "branchynet", "train", *SETTINGS, "epochs.baseline=1", "epochs.joint=1"]
    return [
        *command,
        f"data.path={folder / 'images'}",
        f"hydra.run.dir={folder / 'run'}",
        "cache=null",
        "logger=none",
    ]


def peak_of(command: Sequence[str], folder: Path) -> tuple[str, float]:
    """What a process prints, and the peak of its memory in megabytes."""
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        printed = log.read().decode(errors="replace")
    if process.returncode:
        sys.exit(printed)
    return printed, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
