"""Writes a data set as image files, a folder for each class: something to try `data=folder` on.

python docs/as_folder.py digits_cluttered photos
python docs/as_folder.py cifar10 first --root /path/to/sets --classes 0,1,2,3,4
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from branchynet.data.checked import ImageSet
from branchynet.data.datasets import load_dataset
from branchynet.errors import UserError


def write(split: ImageSet, classes: dict[int, str], most: int | None, folder: Path) -> int:
    """PNG files `<folder>/<class>/<number>.png` of the first `most` images of these classes; how many."""
    wanted = torch.isin(split.y, torch.tensor(list(classes))).nonzero()[:most, 0].tolist()
    for name in classes.values():
        (folder / name).mkdir(parents=True)
    for number in wanted:
        pixels = split.x[number].permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(folder / classes[int(split.y[number])] / f"{number:05d}.png")
    return len(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description="a data set as image files, a folder for each class")
    parser.add_argument("name", help="as in data=<name>")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--root", help="where published sets lie; nothing is downloaded")
    parser.add_argument("--classes", help="their numbers, such as 0,1,2; all of them where this is left out")
    parser.add_argument("--most", type=int, help="at most so many images of each split")
    wanted = parser.parse_args()
    if wanted.folder.exists():
        raise UserError(f"{wanted.folder} is there already: name a new folder")
    data = load_dataset(wanted.name, wanted.root, download=False)
    numbers = range(len(data.classes))
    if wanted.classes:
        numbers = [int(number) for number in wanted.classes.split(",")]
    # A slash, as in "T-shirt/top", would be a folder of its own.
    classes = {number: data.classes[number].replace("/", "-") for number in numbers}
    for split, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        if images is not None:
            count = write(images, classes, wanted.most, wanted.folder / split)
            print(f"{wanted.folder / split}: {count:,} images of {len(classes)} classes")


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        sys.exit(f"as_folder.py: {mistake}")
