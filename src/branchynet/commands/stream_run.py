"""A finished run on streams of its test images that become harder."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from branchynet.commands import control
from branchynet.data.batches import at_once
from branchynet.data.drift import DRIFTS, drifted, rising
from branchynet.data.mapped import forget
from branchynet.data.normalise import normalisation, normalise
from branchynet.errors import UserError, check_choice, check_flag, check_whole
from branchynet.evaluation.evidence import trace
from branchynet.evaluation.streams import (
    Course,
    Outcome,
    Stream,
    adaptive,
    bandit,
    fixed,
    held,
    outcome,
    to_the_end,
    weight_for,
)
from branchynet.reporting.files import write_stream
from branchynet.reporting.streams import stream_rows
from branchynet.reporting.text import aligned
from branchynet.runs.finished_run import FinishedRun, open_run
from branchynet.runs.run_config import plain
from branchynet.runs.stored import read_trace
from branchynet.runs.writable import check_writable
from branchynet.runtime.controller import RATES, Controller

log = logging.getLogger(__name__)
MANY = 2000  # images at once, where they are small
MOST = 10_000_000  # images of a stream


def stream_run(config: DictConfig, folder: Path) -> dict[str, list[Outcome]]:
    """Run the streams, print and write what came of them.

    Returns:
        By kind of drift, the outcomes.

    Raises:
        UserError: settings that are not allowed, or a run that lacks what they need.
    """
    check_flag("trust", config.trust)
    kinds = plain(config.drift)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not kinds:
        raise UserError(f"drift={kinds}: it is one of {', '.join(DRIFTS)}, or a list of them")
    for kind in kinds:
        check_choice("drift", kind, tuple(DRIFTS))
    check_whole("seed", config.seed, 0)
    check_whole("window", config.window)
    check_whole("images", config.images, 2 * config.window, MOST, ": two windows at least")
    rising(config.images, config.begin, config.end, config.strength)
    if not control.wanted(config.controller):
        raise UserError("controller=none holds nothing: take latency, macs or rates")
    if control.state_file(config.controller) is not None:
        raise UserError("controller.state is for predict: a stream here begins anew")
    run = open_run(config.run, trust=config.trust)
    run.look_for_images(**config.data)
    controller = control.build_controller(config.controller, run.profile)
    check_writable(folder, "name another one by hydra.run.dir=<folder>")

    streams, courses, outcomes = [], {}, {}
    for kind in kinds:
        log.info("%s …", kind)
        made = make_stream(run, kind, config)
        streams.append(made)
        courses[kind] = run_all(made, run, config)
        outcomes[kind] = [outcome(made, each, controller, config.window) for each in courses[kind]]
    print(aligned(stream_rows(outcomes, controller)))
    command = " ".join(["branchynet stream run=<run folder>", *asked()])
    write_stream(
        folder, run.result["experiment"], command, streams, courses, outcomes, controller, config.window
    )
    log.info("written to:  %s", folder)
    return outcomes


def asked() -> list[str]:
    """What was asked for on the command line, but for places on this machine."""
    places = ("run=", "data.", "hydra.", "trust=", "-")
    return [word for word in sys.argv[1:] if "=" in word and not word.startswith(places)]


def make_stream(run: FinishedRun, kind: str, config: DictConfig) -> Stream:
    """The test images in a random order, again and again, as they become harder; and what all exits say of them."""
    images, label = run.data.images("test"), run.data.labels("test")
    random = torch.Generator().manual_seed(config.seed)
    rounds = -(-config.images // len(images))
    order = torch.cat([torch.randperm(len(images), generator=random) for _ in range(rounds)])[: config.images]
    strength = rising(config.images, config.begin, config.end, config.strength)
    factors = normalisation(run.facts.mean, run.facts.std)
    uncertainty, prediction, size = [], [], at_once(run.data.input_shape, MANY)
    for number, (chosen, how_much) in enumerate(zip(order.split(size), strength.split(size), strict=True)):
        x = drifted(images[chosen], kind, how_much, config.seed + number)
        forget(images)
        found = trace(run.network, run.criteria, normalise(x, *factors), label[chosen])
        uncertainty.append(found.uncertainty.numpy())
        prediction.append(found.prediction.numpy())
    return Stream(
        kind=kind,
        uncertainty=np.concatenate(uncertainty),
        prediction=np.concatenate(prediction),
        label=label[order].numpy(),
        begin=round(config.begin * config.images),
        end=min(round(config.end * config.images), config.images - 1),
    )


def run_all(stream: Stream, run: FinishedRun, config: DictConfig) -> Sequence[Course]:
    """Every way of setting thresholds."""
    profile = run.profile

    def make(tell: Callable[[str], None]) -> Controller:
        made = control.build_controller(config.controller, profile)
        made.tell = tell
        return made

    controller = make(print)
    kind = "macs" if controller.hold == RATES else controller.hold
    costs = profile.costs[kind]
    budget = profile.mean_cost(kind) if isinstance(controller.target, tuple) else controller.target
    validation = read_trace(run.folder / "trace-val.npz").uncertainty.numpy()
    weight = weight_for(validation, profile, costs, budget)
    return [
        fixed(stream, profile),
        held(stream, make),
        adaptive(stream, profile, config.window),
        bandit(stream, profile, costs, weight),
        to_the_end(stream, profile),
    ]
