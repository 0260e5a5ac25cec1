"""`branchynet export`: a finished run's network as models that need nothing of it."""

import os
import re
import shutil
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from branchynet.commands import app
from branchynet.commands.paths import quote_paths
from branchynet.data.batches import at_once
from branchynet.data.image_files import Border, ImageFiles, background_of, border_of
from branchynet.errors import UserError, check_choice, check_flag, check_whole, printable
from branchynet.exports.manifest import FILE, FORMATS, SCHEMA, Cost, Costs, Manifest
from branchynet.reporting.text import aligned
from branchynet.runs.writable import check_writable

if TYPE_CHECKING:
    from branchynet.exports.agreement import Agreement
    from branchynet.runs.finished_run import FinishedRun

# Beyond it an export's uncertainty or confidence is not the network's, rounded otherwise.
ROUNDING = 1e-4


def main() -> None:
    quote_paths()
    app.start(export, "export")


def export(config: DictConfig, _: Path) -> Manifest:
    """Write the export that `config` asks for, compare it with the network, and print what was written.

    Nothing is at its final place before the comparison has passed.

    Returns:
        The manifest as written.

    Raises:
        UserError: a setting that is not allowed, no finished run, or a folder that is not free.
        RuntimeError: the export's answers are not the network's.
    """
    check_choice("format", config.format, FORMATS)
    if not OmegaConf.is_dict(config.image_files):
        raise UserError(f"image_files={config.image_files}: it is a group, such as image_files.size=refuse")
    rule: dict[str, Any] = OmegaConf.to_container(config.image_files)  # type: ignore[assignment]
    ImageFiles(**{**rule, "background": None, "size": rule["size"] or "bilinear"})
    check_whole("compare", config.compare, hint=", of images")
    for name in ("overwrite", "trust"):
        check_flag(name, config[name])
    if config.run is None:
        raise UserError("export wants a finished run: `branchynet export run=<run folder>`")
    source = Path(str(config.run))
    output = Path(str(config.output)) if config.output else source / f"export-{config.format}"
    check_free(output, config.overwrite)

    # Only now: torch takes seconds to import, and help has to answer at once.
    import torch

    from branchynet.data.mapped import walk
    from branchynet.exports.agreement import agreement
    from branchynet.exports.replay import CHUNK
    from branchynet.exports.write import write_export
    from branchynet.runs.atomic import put_in_place
    from branchynet.runs.finished_run import open_run

    run = open_run(source, config.trust)
    check_writable(output.parent, "set output=<folder>")
    run.look_for_images(**config.data)
    # An older run has not measured it.
    border = run.facts.border or border_of(part.numpy() for part in walk(run.data.images("train")))
    manifest = describe(run, config.format, border, **rule)
    x = run.data.images("test")[: config.compare].numpy()
    batches = run.data.batches("test", at_once(run.data.input_shape, CHUNK), torch.arange(len(x)))
    normalised = (part for part, _ in batches)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_scratch(output)
        scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
        try:
            scratch.chmod(0o755)
            written = write_export(scratch, run.network, run.criteria, manifest)
            found = agreement(scratch, run.network, run.criteria, manifest, x, normalised)
            unexplained = found.operating_point.unexplained + found.elsewhere.unexplained
            if unexplained or max(found.uncertainty, found.confidence) > ROUNDING:
                raise RuntimeError(f"the export's answers are not the network's: {found}")
            take_along(output, scratch)
            put_in_place(scratch, output)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}): set output=<folder>") from error
    print(summary(output, written, found))
    return written


def describe(
    run: "FinishedRun", format: str, border: Border | None = None, background: Any = None, **rule: Any
) -> Manifest:
    """The manifest of a run's export, without files yet.

    Args:
        run: the run.
        format: of the export.
        border: of the training images; None: what the run says, if it does.
        background: see `background_of`; None: the border's colour.
        rule: of `ImageFiles`.

    Raises:
        UserError: the run's files are damaged, or do not say what the images are.
    """
    result, facts, maps = run.result, run.facts, run.task.partly
    border = border or facts.border
    if background is not None:
        background = background_of(background, facts.input_shape[0])
    elif border is not None:
        background = border.colour
    means = None if border is None else (border.darkest, border.lightest)
    if rule.get("size") is None:
        rule = {**rule, "size": run.files_size}
    try:
        experiment = result["experiment"]
        costs = Costs(
            engine=result["engine"],
            threads=result["threads"],
            machine=result["machine"],
            baseline=Cost(result["baseline"]["macs"], result["baseline"]["latency_us"]),
            exits=tuple(Cost(cost["macs"], cost["latency_us"]) for cost in result["exits"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{run.folder / 'result.json'} is damaged: it has no {error}; train again") from error
    return Manifest(
        format=format,
        experiment=experiment,
        criterion=run.criterion_name,
        thresholds=run.thresholds,
        classes=facts.classes,
        input_shape=facts.input_shape,
        mean=facts.mean,
        std=facts.std,
        costs=costs,
        image_files=ImageFiles(background=background, border=means, **rule),
        unit=run.criteria[0].unit,
        most=run.criteria[0].largest(len(facts.classes)),
        certificate=run.certificate,
        # An older run may have left no trace of validation.
        validation=None if maps or not (run.folder / "trace-val.npz").is_file() else run.profile.validation,
        maps=maps,
    )


# The names of what an export holds: overwrite=true takes nothing else away.
_EXPORTS = re.compile(r"manifest(\.schema)?\.json|model\.onnx|segment-\d+\.(onnx|pt2)").fullmatch


def check_free(output: Path, overwrite: bool) -> None:
    """A UserError if `output` is a file, or a folder that holds something, unless that may be written over."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file: name a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise UserError(f"the folder {output} is not empty: add overwrite=true, or set output=<folder>")


def summary(output: Path, manifest: Manifest, found: "Agreement") -> str:
    """What was written, and how it compares, for the terminal."""
    names = [*manifest.files, FILE, SCHEMA]
    sizes = [f"{(output / name).stat().st_size:,}" for name in names]
    table = aligned([["file", "bytes"], *([name, size] for name, size in zip(names, sizes, strict=True))])
    where = "in a process of its own" + ("" if manifest.format == "torch" else " without torch")
    point, elsewhere = found.operating_point, found.elsewhere
    text = (
        f"Run {where} on {found.images} test images, and compared with the network: at the operating point "
        f"{point.differences} leave at another exit or get another class, {point.near_threshold} lie within "
        f"rounding of a threshold; with half of them leaving at every exit, and with all at each, "
        f"{elsewhere.differences} and {elsewhere.near_threshold}. Uncertainties differ by at most "
        f"{found.uncertainty:.0e}, confidences by {found.confidence:.0e}."
    )
    return "\n".join(
        [printable(f"{manifest.experiment} as {manifest.format}: {output}"), table, *textwrap.wrap(text, 100)]
    )


def remove_scratch(output: Path) -> None:
    """Remove what exports to this folder that were killed have left; younger ones may still be at work."""
    ours = re.compile(rf"\.{re.escape(output.name)}-[a-z0-9_]{{8}}").fullmatch
    for left in output.parent.iterdir():
        if ours(left.name) and time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def take_along(old: Path, new: Path) -> None:
    """Let the folder `new` have all that is in `old` and no part of an export: the same files, not copies."""
    for path in old.iterdir() if old.is_dir() else ():
        if _EXPORTS(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=os.link)
        else:
            os.link(path, new / path.name, follow_symlinks=False)
