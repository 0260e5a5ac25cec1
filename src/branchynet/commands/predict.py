"""`branchynet predict`: images to classes, with the exit that each left at and what that cost.

Shapes: B batch, C channels, H, W, N exits.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from branchynet.commands import app
from branchynet.data.files import FileProblem
from branchynet.data.pictures import find_images, read_array, read_image
from branchynet.errors import UserError, check_choice, check_flag, is_number
from branchynet.exports.load import Exported, load_export
from branchynet.exports.manifest import Manifest
from branchynet.reporting.text import aligned
from branchynet.runs.atomic import replacing

BATCH = 64  # images at a time
COLUMNS = ("image", "class", "confidence", "exit", "uncertainty", "macs", "latency_us")

Row = dict[str, str | int | float]
# Of a batch of images: their names and bytes (B, C, H, W).
Batches = Iterator[tuple[list[str], np.ndarray]]


def main() -> None:
    app.quote_paths()
    app.start(predict, "predict")


def predict(config: DictConfig, _: Path) -> None:
    """Classify what `config` names and print or write a row for every image.

    Raises:
        UserError: a setting that is not allowed, no export or run, no images; and at the very end, if any
            image could not be read.
    """
    check_choice("format", config.format, tuple(WRITERS))
    for name in ("overwrite", "trust"):
        check_flag(name, config[name])
    if config.input in (None, ""):
        raise UserError("predict wants input=<image file, folder or .npy file>")
    exported = open_network(config)
    source = Path(str(config.input))
    problems: list[FileProblem] = []
    try:
        batches, total = read(source, exported.manifest, problems)
    except FileProblem as problem:
        raise UserError(f"input={source}: {problem}") from None
    check_output(config.output, source)
    with opened(config.output, config.overwrite) as file:
        WRITERS[config.format](rows(exported, batches), exported.manifest, file)
        if problems and not source.is_dir():
            raise UserError(str(problems[0]))  # inside: then what stood in the output's place stays there
    if problems:
        raise UserError(f"{len(problems)} of {total} images were left out for the reasons above")


def open_network(config: DictConfig) -> Exported:
    """What `export=` or `run=` names, with the thresholds that are asked for."""
    if (config.export is None) == (config.run is None):
        raise UserError("predict wants one of export=<export folder> and run=<run folder>")
    if config.export is not None:
        exported = load_export(Path(str(config.export)), config.threads, config.trust)
    else:
        # Only here: torch takes seconds to import, and an export does without.
        from branchynet.commands.export import describe
        from branchynet.exports.write import in_memory
        from branchynet.runs.finished_run import open_run

        run = open_run(Path(str(config.run)), config.trust)
        exported = in_memory(run.network, run.criteria, describe(run, "torch"), config.threads)
    if config.thresholds is not None:
        values = config.thresholds
        plain = OmegaConf.to_container(values) if OmegaConf.is_config(values) else values
        if not isinstance(plain, list) or not all(map(is_number, plain)):
            raise UserError(f"thresholds={plain}: it is a list of numbers, such as [0.3]")
        exported.thresholds = plain
    return exported


def read(source: Path, manifest: Manifest, problems: list[FileProblem]) -> tuple[Batches, int]:
    """The images of a file or a folder, in batches, and how many there are.

    Of a folder's images those that cannot be read get a line on stderr and are left out.

    Args:
        problems: what was wrong with them is added here as the batches are taken.

    Raises:
        FileProblem: there is nothing to read, or an array that does not fit.
    """
    if source.suffix == ".npy":
        x = read_array(source, manifest.input_shape)
        return _array_batches(source.name, x), len(x)
    if source.is_dir():
        files = find_images(source)
        return _file_batches(files, source, manifest, problems), len(files)
    return _file_batches([source], source.parent, manifest, problems), 1


def _array_batches(name: str, x: np.ndarray) -> Batches:
    for start in range(0, len(x), BATCH):
        part = np.ascontiguousarray(x[start : start + BATCH])
        yield [f"{name}[{i}]" for i in range(start, start + len(part))], part


def _file_batches(
    files: Sequence[Path], folder: Path, manifest: Manifest, problems: list[FileProblem]
) -> Batches:
    alone = len(files) == 1
    names: list[str] = []
    images: list[np.ndarray] = []
    # On stderr and on a terminal only; gone at the end.
    bar = tqdm(files, unit="image", leave=False, disable=True if alone else None)
    for file in bar:
        try:
            images.append(read_image(file, manifest.input_shape, manifest.size, manifest.channels))
            names.append(file.relative_to(folder).as_posix())
        except FileProblem as problem:
            problems.append(problem)
            if not alone:
                tqdm.write(f"branchynet: {app.one_line(str(problem))}", file=sys.stderr)
        if len(images) == BATCH:
            yield names, np.stack(images)
            names, images = [], []
    if images:
        yield names, np.stack(images)


def rows(exported: Exported, batches: Batches) -> Iterator[Row]:
    """A row for every image, as `COLUMNS`; exits count from 1, costs are the manifest's."""
    manifest = exported.manifest
    for names, x in batches:
        for name, answer in zip(names, zip(*exported.answer(x), strict=True), strict=True):
            prediction, exit, uncertainty, confidence = (value.item() for value in answer)
            cost = manifest.costs.exits[exit - 1]
            values = (
                name,
                manifest.classes[prediction],
                confidence,
                exit,
                uncertainty,
                *vars(cost).values(),
            )
            yield dict(zip(COLUMNS, values, strict=True))


def write_table(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    """The rows, and exit rates and mean costs below them."""
    kept = list(rows)
    if not kept:
        return
    cells = [
        [
            str(row["image"]),
            str(row["class"]),
            f"{100 * float(row['confidence']):.2f}",
            str(row["exit"]),
            f"{float(row['macs']) / 1e6:,.3f}",
            f"{float(row['latency_us']):,.1f}",
        ]
        for row in kept
    ]
    print(aligned([["image", "class", "confidence %", "exit", "MACs, M", "latency, µs"], *cells]), file=file)
    taken = [sum(row["exit"] == n for row in kept) for n in range(1, manifest.num_exits + 1)]
    macs, latency = (float(np.mean([float(row[key]) for row in kept])) for key in ("macs", "latency_us"))
    costs = manifest.costs
    threads = "1 thread" if costs.threads == 1 else f"{costs.threads} threads"
    print(
        f"{len(kept)} images left at exits 1 … {len(taken)}: {', '.join(map(str, taken))}. On average "
        f"{macs / 1e6:,.3f} M MACs and {latency:,.1f} µs;",
        f"the baseline takes {costs.baseline.macs / 1e6:,.3f} M and {costs.baseline.latency_us:,.1f} µs.",
        f"Latencies are the run's, not of these images: {costs.engine}, {threads}, batch 1, {costs.machine}.",
        sep="\n",
        file=file,
    )


def write_csv(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_jsonl(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    for row in rows:
        print(json.dumps(row, ensure_ascii=False), file=file)


WRITERS: dict[str, Callable[[Iterable[Row], Manifest, TextIO], None]] = {
    "table": write_table,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def check_output(output: object, source: Path) -> None:
    """A UserError if writing the output would write over something that is read, by whatever name."""
    if output is None:
        return
    path = Path(str(output))
    if not path.is_file():
        return
    inputs = find_images(source) if source.is_dir() else [source]
    if any(file.samefile(path) for file in inputs):
        raise UserError(f"output={path} is one of the images to be classified: name another file")


@contextmanager
def opened(output: object, overwrite: bool) -> Iterator[TextIO]:
    """The file to write, or the terminal; whoever stops reading there (`| head`) is no mistake."""
    if output is not None:
        path = Path(str(output))
        if path.exists() and not overwrite:
            raise UserError(f"output={path} is there already: add overwrite=true, or name another file")
        if path.exists() and not path.is_file():
            raise UserError(f"output={path} is no file: name one")
        # In the place of a link's target, not of the link; and only once all is written.
        path = path.resolve()
        if not path.parent.is_dir():
            raise UserError(f"output={path} cannot be written (there is no folder {path.parent})")
        try:
            with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise UserError(f"output={path} cannot be written ({error.strerror})") from error
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
