"""A batch with exits really taken, against the ways in which public implementations run one.

    python benchmarks/batched_rivals.py                       # three networks with random weights
    python benchmarks/batched_rivals.py --run <run folder>    # a trained one at its operating point
    python benchmarks/batched_rivals.py --images 64 --batch 32 --rounds 1 --models b_lenet    # to see that it works

All in eager PyTorch, on the same images, in turns; the rivals are written here, as such code is written:

loop       Python over the samples, one at a time, leaving at the first exit that is sure
masks      every layer on the whole batch, and masks that pick each sample's exit from the logits afterwards
engine     ours: after each exit the remaining rows alone go on

The rivals have the network's modules as they are; and once more, below, in the form that the engine gives them
(`branchynet.runtime.for_inference`), which public code does not. Everyone's exits and predictions are compared,
too. Aim at batch 256: 3 times the throughput of both.

It takes a quarter of a minute for B-LeNet and B-AlexNet each, four minutes for B-ResNet-110.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from _cases import Case, cases, in_rounds, parser, print_machine, ratio
from torch import Tensor

from branchynet.runtime.early_exit import TorchEngine, torch_threads
from branchynet.runtime.for_inference import frozen
from branchynet.runtime.steps import ExitStep, exit_steps, steps_for_inference


def main() -> None:
    options = parser(__doc__, images=1024, rounds=5)
    options.add_argument("--batch", type=int, default=256)
    arguments = options.parse_args()
    print_machine(arguments)
    print(f"Eager PyTorch, batches of {arguments.batch}, medians of {arguments.rounds} rounds in turns.")
    with torch_threads(arguments.threads):
        for case in cases(arguments):
            compare(case, arguments)


def compare(case: Case, arguments: argparse.Namespace) -> None:
    """Prints a table: a row for each way."""
    network = frozen(case.network)
    batches = [
        torch.from_numpy(part)
        for part in np.split(case.images, range(arguments.batch, len(case.images), arguments.batch))
    ]
    engine = TorchEngine(network, case.criteria, case.thresholds)
    # The engine's thresholds, as float32 holds them.
    ways = {"engine": lambda x: engine.run(x.numpy())[:2]}
    forms = {
        "": exit_steps(network, [frozen(criterion) for criterion in case.criteria]),
        ", our form": steps_for_inference(network, case.criteria),
    }
    for form, steps in forms.items():
        for rival in (loop, masks):
            ways[rival.__name__ + form] = partial(rival, steps, engine.thresholds)
    answers = {
        name: [np.concatenate(part) for part in zip(*map(way, batches), strict=True)]
        for name, way in ways.items()
    }
    seconds = in_rounds(
        {name: partial(run_all, way, batches) for name, way in ways.items()}, arguments.rounds
    )
    rates = np.bincount(answers["engine"][1] - 1, minlength=network.num_exits) / len(case.images)
    print(f"\n{case.name}: leaving {', '.join(f'{100 * rate:.1f}' for rate in rates)} %.\n")
    print("| | images a second | the engine is … times as fast | samples with another exit or answer |")
    print("|---|---:|---:|---:|")
    for name, found in answers.items():
        differs = (found[0] != answers["engine"][0]) | (found[1] != answers["engine"][1])
        speed = len(case.images) / np.median(seconds[name])
        print(
            f"| {name} | {speed:,.0f} | {ratio(seconds[name], seconds['engine']):.2f} | {differs.sum()} |",
            flush=True,
        )


def run_all(way, batches: list[Tensor]) -> None:
    for batch in batches:
        way(batch)


@torch.inference_mode()
def loop(steps: list[ExitStep], thresholds, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and exit (B,) each."""
    predictions, exits = [], []
    for sample in x:
        features = sample.unsqueeze(0)
        for n, step in enumerate(steps):
            features = step.segment(features)
            logits = step.head(features)
            if n == len(thresholds) or uncertainty(step, logits, features).item() < thresholds[n]:
                predictions.append(logits.argmax(dim=1).item())
                exits.append(n + 1)
                break
    return np.array(predictions), np.array(exits)


@torch.inference_mode()
def masks(steps: list[ExitStep], thresholds, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and exit (B,) each."""
    prediction = torch.zeros(len(x), dtype=torch.int64)
    exits = torch.zeros(len(x), dtype=torch.int64)  # counted from 1; 0: not left yet
    for n, step in enumerate(steps):
        x = step.segment(x)
        logits = step.head(x)
        sure = torch.ones(len(x), dtype=torch.bool)
        if n < len(thresholds):
            sure = uncertainty(step, logits, x) < thresholds[n]
        leaving = sure & (exits == 0)
        prediction[leaving] = logits[leaving].argmax(dim=1)
        exits[leaving] = n + 1
    return prediction.numpy(), exits.numpy()


def uncertainty(step: ExitStep, logits: Tensor, features: Tensor) -> Tensor:
    """(B,)."""
    return step.criterion(logits, features) if step.criterion.of_features else step.criterion(logits)


if __name__ == "__main__":
    main()
