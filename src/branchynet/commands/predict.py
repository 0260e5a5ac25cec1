"""`branchynet predict`: images to classes, with the exit that each left at and what that cost.

Shapes: B batch, C channels, H, W, N exits.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from branchynet.commands import app, control, terminal
from branchynet.commands.paths import quote_paths
from branchynet.data.files import FileProblem, check_there
from branchynet.data.image_files import background_of, is_far
from branchynet.data.pictures import find_images, left_out, read_array, read_image
from branchynet.errors import UserError, check_choice, check_flag, counted, is_number, one_line, printable
from branchynet.exports.load import Exported, load_export
from branchynet.exports.manifest import Manifest
from branchynet.reporting.text import aligned
from branchynet.runs.atomic import replacing
from branchynet.runtime.adapt import adapt

BATCH = 64  # images at a time
ADAPTIVE = "adaptive"  # the thresholds
SHOWN = 1000  # rows of a table: all of them have to be known for its columns' widths
COLUMNS = ("image", "class", "confidence", "exit", "uncertainty", "macs", "latency_us")

Row = dict[str, str | int | float]
# Of a batch of images: their names and bytes (B, C, H, W).
Batches = Iterator[tuple[list[str], np.ndarray]]


def main() -> None:
    quote_paths()
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
    controlled = control.wanted(config.controller)
    if controlled and config.thresholds is not None:
        raise UserError("a controller sets the thresholds: leave thresholds out, and give controller.limit")
    if (config.export is None) == (config.run is None):
        raise UserError("predict wants one of export=<export folder> and run=<run folder>")
    # Before the network is loaded, which takes longer.
    source = Path(str(config.input))
    try:
        if not os.path.isdir(source):
            check_there(source)
        check_output(config.output, source)
    except FileProblem as problem:
        raise UserError(f"input={source}: {problem}") from None
    exported = open_network(config)
    masks = masks_folder(config.masks, exported.manifest, config.overwrite)
    state = None
    if controlled:
        exported.controller = control.build_controller(config.controller, exported.profile)
        state = control.state_file(config.controller)
        if state is not None and os.path.exists(state):
            exported.controller.load(state)
    problems: list[FileProblem] = []
    far: list[str] = []
    try:
        batches, total = read(source, exported.manifest, problems, far)
    except FileProblem as problem:
        raise UserError(f"input={source}: {problem}") from None
    said = set_thresholds(exported, config.thresholds, source)
    images, were = counted(total, "image"), "was" if total == 1 else "were"
    with opened(config.output, config.overwrite) as file:
        WRITERS[config.format](rows(exported, batches, masks), exported.manifest, file)
        # Inside: then what stood in the output's place stays there.
        if problems and not os.path.isdir(source):
            raise UserError(str(problems[0]))
        if len(problems) == total:
            raise UserError(f"none of {images} could be read, for the reasons above")
        if exported.controller is not None:
            said = exported.controller.sentence()
        if said and config.format == "table":
            print(said, file=file)
    if exported.controller is not None and state is not None:
        exported.controller.save(state)
    if said and config.format != "table":
        terminal.tell(said)
    border = exported.manifest.image_files.border
    if far and border:
        terminal.tell(
            f"{len(far)} of {images} {'has' if total == 1 else 'have'} another border than the training images "
            f"({border[0]} … {border[1]} of 255), {far[0]} first: if dark and light are swapped, set "
            "image_files.invert"
        )
    if problems:
        raise UserError(f"{len(problems)} of {images} {were} left out for the reasons above")


def open_network(config: DictConfig) -> Exported:
    """What `export=` or `run=` names, with the thresholds that are asked for."""
    if config.export is not None:
        exported = load_export(Path(str(config.export)), config.threads, config.trust)
    else:
        # Only here: torch takes seconds to import, and an export does without.
        from branchynet.commands.export import describe
        from branchynet.exports.write import in_memory
        from branchynet.runs.finished_run import open_run

        run = open_run(Path(str(config.run)), config.trust)
        exported = in_memory(run.network, run.criteria, describe(run, "torch"), config.threads)
    exported.manifest = with_rule(exported.manifest, config.image_files)
    return exported


def set_thresholds(exported: Exported, given: Any, source: Path) -> str:
    """Set the thresholds that are asked for; where they were found here, a sentence says so, else it is empty."""
    if given == ADAPTIVE:
        found = adapt(exported.profile, *every_answer(exported, source))
        exported.thresholds = found.thresholds
        values = ", ".join(f"{value:.4g}" for value in exported.thresholds)
        return (
            f"Adapted: at the thresholds {values} the answers of {100 * found.disagreement:.2f} % of these images "
            f"are not the last exit's; on validation it was {100 * found.allowed:.2f} %. Estimated accuracy: "
            f"{100 * found.accuracy:.1f} %."
        )
    if given is not None:
        plain = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
        if not isinstance(plain, list) or not all(map(is_number, plain)):
            raise UserError(f"thresholds={plain}: it is a list of numbers, such as [0.3], or {ADAPTIVE}")
        exported.thresholds = plain
    return ""


def every_answer(exported: Exported, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """What all exits say of all images that can be read: uncertainty (S, N) and prediction (S, N)."""
    # What cannot be read is left out, and told as the images are read to be answered.
    batches, _ = read(source, exported.manifest, [], [], quiet=True)
    found = [exported.every_exit(x) for _, x in batches]
    if not found:
        raise UserError(f"thresholds={ADAPTIVE}: of input={source} no image could be read")
    uncertainty, prediction = zip(*found, strict=True)
    return np.concatenate(uncertainty), np.concatenate(prediction)


def with_rule(manifest: Manifest, given: DictConfig) -> Manifest:
    """The manifest with what the settings say of image files in the place of its own."""
    if not OmegaConf.is_dict(given):
        raise UserError(f"image_files={given}: it is a group, such as image_files.invert=true")
    rule = manifest.image_files
    if given.invert is not None:
        rule = replace(rule, invert=given.invert)
    if given.background is not None:
        value = given.background
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        rule = replace(rule, background=background_of(plain, manifest.input_shape[0]))
    return replace(manifest, image_files=rule)


def read(
    source: Path,
    manifest: Manifest,
    problems: list[FileProblem],
    far: list[str],
    quiet: bool = False,
) -> tuple[Batches, int]:
    """The images of a file or a folder, in batches, and how many there are.

    Of a folder's images those that cannot be read get a line on stderr and are left out; so do, in one line, files
    of other formats.

    Args:
        problems: what was wrong with them is added here as the batches are taken.
        far: and here the names of those whose border is not the training images'.
        quiet: no lines on stderr.

    Raises:
        FileProblem: there is nothing to read, or an array that does not fit.
    """
    if source.suffix.lower() == ".npy":
        x = read_array(source, manifest.input_shape)
        return _array_batches(source.name, x), len(x)
    if not os.path.isdir(source):
        return _file_batches([source], None, manifest, problems, far, quiet), 1
    files = find_images(source, problems)
    for problem in problems if not quiet else ():
        terminal.tell(one_line(str(problem)))
    if not quiet and (others := left_out(source)):
        terminal.tell(f"of {source} files are left out whose format is not read: {others}")
    return _file_batches(files, source, manifest, problems, far, quiet), len(files) + len(problems)


def _array_batches(name: str, x: np.ndarray) -> Batches:
    for start in range(0, len(x), BATCH):
        part = np.ascontiguousarray(x[start : start + BATCH])
        yield [f"{name}[{i}]" for i in range(start, start + len(part))], part


def _file_batches(
    files: Sequence[Path],
    folder: Path | None,
    manifest: Manifest,
    problems: list[FileProblem],
    far: list[str],
    quiet: bool,
) -> Batches:
    """`folder` is what they are named below; None for a single file, whose problem the caller tells."""
    rule = manifest.image_files
    names: list[str] = []
    images: list[np.ndarray] = []
    # On stderr and on a terminal only; gone at the end.
    bar = tqdm(files, unit="image", leave=False, disable=True if folder is None else None)
    for file in bar:
        try:
            images.append(read_image(file, manifest.input_shape, rule))
            names.append(file.name if folder is None else file.relative_to(folder).as_posix())
            if rule.border is not None and is_far(images[-1], rule.border):
                far.append(names[-1])
        except FileProblem as problem:
            problems.append(problem)
            if folder is not None and not quiet:
                with tqdm.external_write_mode(sys.stderr):
                    terminal.tell(one_line(str(problem)))
        if len(images) == BATCH:
            yield names, np.stack(images)
            names, images = [], []
    if images:
        yield names, np.stack(images)


def masks_folder(given: Any, manifest: Manifest, overwrite: bool) -> Path | None:
    """Where maps are written, made where it is not there; None: nowhere.

    Raises:
        UserError: a network that gives none, or a folder that holds something or cannot be made.
    """
    if given is None:
        return None
    if not manifest.maps:
        raise UserError(
            f"masks={given}: this network gives one class for an image, and no maps; leave it out"
        )
    folder = Path(str(given))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"masks={given} cannot be written ({error.strerror}): name a folder") from error
    if any(folder.iterdir()) and not overwrite:
        raise UserError(f"the folder masks={given} is not empty: add overwrite=true, or name another one")
    return folder


def write_mask(folder: Path, name: str, mask: np.ndarray) -> None:
    """A map (H, W) as a grey PNG of the class numbers, under the image's name and `.png`."""
    from PIL import Image  # only here: most networks give no maps

    path = folder / f"{name}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8)).save(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): set masks=<folder>") from error


def said(prediction: np.ndarray, manifest: Manifest) -> str:
    """The class, or the classes of a map with their shares, the largest first."""
    if not prediction.ndim:
        return manifest.classes[prediction.item()]
    shares = np.bincount(prediction.ravel(), minlength=len(manifest.classes)) / prediction.size
    return ", ".join(
        f"{manifest.classes[k]} {100 * shares[k]:.1f} %" for k in np.argsort(-shares) if shares[k]
    )


def rows(exported: Exported, batches: Batches, masks: Path | None = None) -> Iterator[Row]:
    """A row for every image, as `COLUMNS`; exits count from 1, costs are the manifest's.

    Args:
        masks: where maps are written.
    """
    manifest = exported.manifest
    for names, x in batches:
        for name, answer in zip(names, zip(*exported.answer(x), strict=True), strict=True):
            prediction = np.asarray(answer[0])
            exit, uncertainty, confidence = (value.item() for value in answer[1:])
            if masks is not None:
                write_mask(masks, name, prediction)
            cost = manifest.costs.exits[exit - 1]
            values = (
                name,
                said(prediction, manifest),
                confidence,
                exit,
                uncertainty,
                *vars(cost).values(),
            )
            yield dict(zip(COLUMNS, values, strict=True))


def write_table(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    """The first rows, and exit rates and mean costs of all below them."""
    costs = manifest.costs
    taken = [0] * manifest.num_exits
    macs = latency = 0.0
    kept: list[Row] = []
    for row in rows:
        if len(kept) < SHOWN:
            kept.append(row)
        taken[int(row["exit"]) - 1] += 1
        macs += float(row["macs"])
        latency += float(row["latency_us"])
    total = sum(taken)
    if not total:
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
    if total > SHOWN:
        print(f"These are the first {SHOWN:,}; format=csv and format=jsonl write all.", file=file)
    threads = counted(costs.threads, "thread")
    print(
        f"{counted(total, 'image')} left at exits 1 … {len(taken)}: {', '.join(map(str, taken))}. On average "
        f"{macs / total / 1e6:,.3f} M MACs and {latency / total:,.1f} µs;",
        f"the baseline takes {costs.baseline.macs / 1e6:,.3f} M and {costs.baseline.latency_us:,.1f} µs.",
        printable(
            f"Latencies are the run's, not of these images: {costs.engine}, {threads}, batch 1, {costs.machine}."
        ),
        sep="\n",
        file=file,
    )


def write_csv(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}
        )


def write_jsonl(rows: Iterable[Row], manifest: Manifest, file: TextIO) -> None:
    letters = (file.encoding or "").lower().replace("-", "") == "utf8"
    for row in rows:
        print(printable(json.dumps(row, ensure_ascii=not letters)), file=file)


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
    if not os.path.isfile(path):
        return
    inputs = find_images(source) if os.path.isdir(source) else [source]
    if any(file.samefile(path) for file in inputs if os.path.exists(file)):
        raise UserError(f"output={path} is one of the images to be classified: name another file")


@contextmanager
def opened(output: object, overwrite: bool) -> Iterator[TextIO]:
    """The file to write, which takes the output's place once all is written; or the terminal."""
    if output is None:
        yield sys.stdout
        return
    path = Path(str(output))
    if os.path.exists(path) and not overwrite:
        raise UserError(f"output={path} is there already: add overwrite=true, or name another file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"output={path} is no file: name one")
    # In the place of a link's target, not of the link.
    path = Path(os.path.realpath(path))
    if not os.path.isdir(path.parent):
        raise UserError(f"output={path} cannot be written (there is no folder {path.parent})")
    others = None
    try:
        with replacing(path) as temporary, Output(temporary.open("wb"), encoding="utf-8", newline="") as file:
            try:
                yield file
            except OSError as error:  # of what is read, or of a bug: not this file's
                others = error
                raise
    except (OSError, OutputFails) as error:
        if error is others:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"output={path} cannot be written ({reason})") from error


class OutputFails(Exception):
    """Writing the output does; no OSError, which may be another file's."""


class Output(io.TextIOWrapper):
    """The output's file: what it says when it cannot be written is told from other files' errors."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputFails(error.strerror) from error
