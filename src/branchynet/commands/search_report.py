"""What a search leaves: a table of all trials, and the best ones as experiments that can be trained."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from branchynet.errors import counted
from branchynet.evaluation.worth import OBJECTIVES
from branchynet.reporting.text import aligned
from branchynet.runs.atomic import replacing, write_csv

if TYPE_CHECKING:
    from branchynet.commands.search_run import Plan

VALUES = ("gain", "accuracy", "macs", "highest_accuracy", "macs_to_the_end")
SHOWN, WIDE = 10, 80  # trials in the terminal, and letters of what was drawn
# Groups that stand above all others, and of which an experiment says what they came to.
ABOVE = ("experiment", "debug")
AS_IT_STANDS = "nothing: the settings as they stand"


def said_of(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    """What came of a trial, in a line."""
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        return f"ended early, after {counted(len(trial.intermediate_values), 'epoch')}"
    if trial.state == TrialState.COMPLETE:
        names = dict.fromkeys([*objectives, "gain", "accuracy"])
        return ", ".join(f"{name} {_cell(name, worth_of(trial).get(name))}" for name in names)
    return str(trial.user_attrs.get("failed", "cut off"))


def history(trial: FrozenTrial) -> list[int]:
    """The numbers of the trials that were cut off and that this one goes on with, the first one first."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def went_on(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Of the trials that were cut off and gone on with, the number of the one that does."""
    return {found[-1]: trial.number for trial in trials if (found := history(trial))}


def heading_of(trials: Sequence[FrozenTrial]) -> str:
    """How many there are, and what came of them; one that went on under another number counts once."""
    others = went_on(trials)
    count = [trial for trial in trials if trial.number not in others]
    more = f" Numbers go on to {len(trials) - 1}, for {len(others)} cut off went on under another."
    return f"{counted(len(count), 'trial')}: {_counts(count)}.{more if others else ''}"


def worth_of(trial: FrozenTrial) -> dict[str, Any]:
    """What it was found to be worth, see `branchynet.evaluation.worth`; nothing where it has not ended well."""
    found: dict[str, Any] = trial.user_attrs.get("worth", {})
    return found


def best(trials: Sequence[FrozenTrial], objectives: Sequence[str], most: int) -> list[FrozenTrial]:
    """The best trials first; of two objectives those of the frontier, by the first one.

    Args:
        trials: of a study.
        objectives: their names.
        most: how many, where there is one objective.
    """
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    signs = [1 if OBJECTIVES[name] else -1 for name in objectives]
    # More is better; of equals the first one.
    worth = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in ended}
    ended.sort(key=lambda trial: tuple(-value for value in worth[trial.number]))
    if len(objectives) == 1:
        return ended[:most]
    frontier: list[FrozenTrial] = []
    highest = -math.inf
    for trial in ended:
        if worth[trial.number][1] > highest:
            frontier.append(trial)
            highest = worth[trial.number][1]
    return frontier


def write_search(plan: "Plan", trials: Sequence[FrozenTrial]) -> str:
    """Write `trials.csv`, `search.md` and the best trials as `conf/experiment/best_<n>.yaml`.

    Returns:
        What is told at the end.
    """
    folder, objectives = plan.folder, plan.objectives
    found = best(trials, objectives, plan.search["best"])
    write_trials(plan, trials)
    configs = folder / "conf" / "experiment"
    files = {f"best_{n}": trial for n, trial in enumerate(found, 1)}
    for name, trial in files.items():
        with replacing(configs / f"{name}.yaml") as temporary:
            temporary.write_text(experiment(plan, trial, name), encoding="utf-8")
    for path in configs.glob("best_*.yaml"):
        if path.stem not in files:  # a frontier may have become shorter
            path.unlink()
    values = list(dict.fromkeys([*objectives, *VALUES[:3]]))  # what is looked for, and what most want to know
    rows = [["trial", *(name.replace("_", " ") for name in values), "drawn"]]
    for trial in found if len(objectives) > 1 else best(trials, objectives, SHOWN):
        drawn = _drawn(trial)
        drawn = drawn if len(drawn) <= WIDE else f"{drawn[:WIDE]}…"
        rows.append([str(trial.number), *(_cell(v, worth_of(trial).get(v)) for v in values), drawn])
    heading = heading_of(trials)
    told = [heading]
    if found:
        told += [
            aligned(rows),
            *_compared(plan, trials, found[0]),
            "All on validation, whose images chose among the trials: what the best ones are worth, a training "
            f"says that is looked at on test. The best {'are' if len(files) > 1 else 'is'} {', '.join(files)}:",
            f"  branchynet train --config-dir {quote(str(folder / 'conf'))} experiment=best_1",
            f"or, without training again:  branchynet train resume={quote(found[0].user_attrs['run'])}",
        ]
    told.append(
        f"all trials: {folder / 'search.md'}, trials.csv; tensorboard --logdir {quote(str(folder / 'trials'))}"
    )
    return "\n".join(told)


def write_trials(plan: "Plan", trials: Sequence[FrozenTrial]) -> None:
    """Write `trials.csv` and `search.md` alone, which a search that is at work has, too."""
    _write_csv(plan.folder / "trials.csv", trials)
    with replacing(plan.folder / "search.md") as temporary:
        temporary.write_text(_markdown(plan, trials), encoding="utf-8")


def experiment(plan: "Plan", trial: FrozenTrial, name: str) -> str:
    """A trial as an experiment: the groups that it chooses, and the settings that differ from theirs."""
    words = plan.words(trial.user_attrs["overrides"])
    whole = compose("train", words, return_hydra_config=True)
    usual = compose("train", [], return_hydra_config=True).hydra.runtime.choices
    groups = {
        group: option
        for group, option in whole.hydra.runtime.choices.items()
        if not group.startswith("hydra/") and group not in ABOVE and option != usual.get(group)
    }
    chosen = compose("train", [f"{group}={option}" for group, option in groups.items()])
    settings = differing(_unresolved(whole), _unresolved(chosen))
    settings["name"] = f"{whole.name}_trial_{trial.number}"
    found = worth_of(trial)
    gain, accuracy, before = found["gain"], 100 * found["accuracy"], 100 * found["baseline_accuracy"]
    head = [
        "# @package _global_",
        f"# Claim:    none yet: trial {trial.number} of a search, chosen by validation among {_counts_of(plan)}.",
        f"# Command:  branchynet train --config-dir {quote(str(plan.folder / 'conf'))} experiment={name}",
        f"# Result:   on validation {before:.2f} → {accuracy:.2f} %, gain in MACs {gain:.3f}; on test not known.",
    ]
    content: dict[str, Any] = {}
    if groups:
        content["defaults"] = [{f"override /{group}": _option(option)} for group, option in groups.items()]
    body = yaml.safe_dump(
        {**content, **settings}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    return "\n".join(head) + "\n" + body


def differing(whole: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `whole` that are not as in `usual`, nested as there; lists are taken whole."""
    found: dict[str, Any] = {}
    for name, value in whole.items():
        if name in usual and value == usual[name]:
            continue
        if isinstance(value, Mapping) and isinstance(usual.get(name), Mapping):
            found[name] = differing(value, usual[name])
        else:
            found[name] = value
    return found


def _unresolved(config: DictConfig) -> dict[str, Any]:
    """Plain values, with interpolations as they stand: so that `seed=1` still reaches all that it reaches."""
    settings: Any = OmegaConf.to_container(config, resolve=False)
    settings.pop("hydra", None)
    return settings


def _option(option: str) -> Any:
    """The name of an option, or the names of several ones, which Hydra keeps as the text of a list."""
    return yaml.safe_load(option) if option.startswith("[") else option


def _compared(plan: "Plan", trials: Sequence[FrozenTrial], winner: FrozenTrial) -> list[str]:
    """The best trial beside the reference."""
    first = [t for t in trials if t.state == TrialState.COMPLETE and not t.user_attrs.get("overrides")]
    if not plan.search["reference"] or not first:
        return []
    said = f"The settings as they stand (trial {first[0].number}): {said_of(first[0], plan.objectives)}."
    if winner.number == first[0].number:
        return [f"{said} Nothing better was found."]
    return [f"{said} Trial {winner.number}: {said_of(winner, plan.objectives)}."]


def _drawn(trial: FrozenTrial) -> str:
    return " ".join(trial.user_attrs.get("overrides", ())) or AS_IT_STANDS


def _counts_of(plan: "Plan") -> str:
    return counted(plan.search["trials"], "trial")


def _counts(trials: Sequence[FrozenTrial]) -> str:
    words = {"COMPLETE": "trained to the end", "PRUNED": "ended early", "FAIL": "failed or cut off"}
    words |= {"RUNNING": "at work", "WAITING": "waiting"}
    numbers = {state: sum(trial.state.name == state for trial in trials) for state in words}
    return ", ".join(f"{number} {words[state]}" for state, number in numbers.items() if number)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if "accuracy" in name:
        return f"{100 * value:.2f} %"
    return f"{value / 1e6:,.3f} M" if name.startswith("macs") else f"{value:.3f}"


def _write_csv(path: Path, trials: Sequence[FrozenTrial]) -> None:
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    header = ["trial", "state", *VALUES, "baseline_accuracy", "epochs", "seconds", "run", "failed", *params]
    rows = []
    for trial in trials:
        found, attrs = worth_of(trial), trial.user_attrs
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        rows.append(
            [
                *(trial.number, trial.state.name.lower()),
                *(found.get(name, "") for name in (*VALUES, "baseline_accuracy")),
                *(len(trial.intermediate_values), seconds, attrs.get("run", ""), attrs.get("failed", "")),
                *(trial.params.get(name, "") for name in params),
            ]
        )
    write_csv(path, header, rows)


def _markdown(plan: "Plan", trials: Sequence[FrozenTrial]) -> str:
    objectives = " and ".join(plan.objectives)
    found = best(trials, plan.objectives, plan.search["best"])
    lines = [
        f"# A search: {plan.settings['name']}",
        "",
        f"{heading_of(trials)} What is looked for: {objectives}, a loss of "
        f"{100 * plan.search['max_loss']:g} % allowed. All numbers are of the validation split, costs are MACs "
        "with all heads on the way.",
        "",
        "```",
        plan.again,
        "```",
        "",
        "| trial | " + " | ".join(name.replace("_", " ") for name in VALUES) + " | what came of it | drawn |",
        "|---" * (len(VALUES) + 3) + "|",
    ]
    order = {trial.number: place for place, trial in enumerate(best(trials, plan.objectives, len(trials)))}
    stars, others = {trial.number for trial in found}, went_on(trials)
    for trial in sorted(trials, key=lambda trial: (order.get(trial.number, len(order)), trial.number)):
        state = "trained" if trial.state == TrialState.COMPLETE else said_of(trial, plan.objectives)
        if trial.number in others:
            state = f"cut off, went on as trial {others[trial.number]}"
        drawn = _drawn(trial)
        cells = [_cell(name, worth_of(trial).get(name)) for name in VALUES]
        number = f"**{trial.number}**" if trial.number in stars else str(trial.number)
        line = [number, *cells, state.replace("|", "\\|"), f"`{drawn}`"]
        lines.append(f"| {' | '.join(line)} |")
    lines += [
        "",
        "The best ones, in bold, are experiments in `conf/` once the search has ended.",
        "",
    ]
    return "\n".join(lines)
