"""The study of a search: trials drawn, trained, told, counted; by as many processes as take part.

All that they share is in the storage. A trial is an ordinary run below the search's folder, judged on validation.
"""

import logging
import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra import compose
from omegaconf import OmegaConf
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from branchynet.callbacks.trial import Trial
from branchynet.commands import app
from branchynet.commands.paths import settle_paths
from branchynet.commands.search_report import AS_IT_STANDS, history, said_of, write_search, write_trials
from branchynet.commands.settings import check_settings
from branchynet.commands.space import draw, lies_at, turns, written
from branchynet.commands.train import settled
from branchynet.commands.train_run import train_run, without
from branchynet.errors import UnknownName, UserError, counted, reason_of
from branchynet.evaluation.worth import OBJECTIVES
from branchynet.runs.auto import resolved
from branchynet.runs.build import build_data, build_network, made
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import first_difference, forget_run, start_run
from branchynet.runtime.costs import Macs
from branchynet.training.seeds import derive_seed

log = logging.getLogger(__name__)

GRACE = 4  # heartbeats that may be missing
SAME = 5  # so many trials that all fail, the last ones alike, end a search
TRIES = 5  # to open a storage that others are making, too
# Settings that may differ from machine to machine, of one search.
OF_A_MACHINE = (
    *("cache", "logger", "optimized_metric", "trainer", "engine"),
    *("data.root", "data.download", "data.path", "data.num_workers", "data.cache", "data.keep"),
)


@dataclass(frozen=True)
class Plan:
    """A search.

    Args:
        search: its settings, as `branchynet.commands.settings.Search` says.
        space: what is drawn, see `branchynet.commands.space`.
        base: what all trials have on their command lines.
        whole: the same with what is drawn in the others' place: of the reference.
        settings: a trial's, without what is drawn.
        folder: of the search.
        again: the command that goes on with it.
    """

    search: Mapping[str, Any]
    space: Mapping[str, Any]
    base: Sequence[str]
    whole: Sequence[str]
    settings: Mapping[str, Any]
    folder: Path
    again: str

    def words(self, drawn: Sequence[str]) -> list[str]:
        """A trial's command line; where nothing is drawn, the reference's."""
        return [*(self.base if drawn else self.whole), *drawn]

    @cached_property
    def stands(self) -> dict[str, Any] | None:
        """Where in the space the reference lies, None where it does not: as `lies_at` tells."""
        return lies_at(self.space, self.settings) if self.search["reference"] else None

    @property
    def objectives(self) -> list[str]:
        return list(self.search["objectives"])

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        return ["maximize" if OBJECTIVES[name] else "minimize" for name in self.objectives]


def search_run(plan: Plan) -> None:
    """Train trials until there are as many as are wanted, whoever trained them; then write what was found.

    Raises:
        UserError: settings that are not allowed, a storage that cannot be used, another search in it, or trials
            that all fail alike.
    """
    with quiet():
        study = open_study(plan)
        work = Work(plan, study)
        try:
            go_on(plan, study, work)
        except KeyboardInterrupt:
            work.give_back()
            write_search(plan, study.get_trials())
            done = len(that_count(study.get_trials()))
            wanted = plan.search["trials"]
            app.fail(f"stopped after {done} of {wanted} trials; `{plan.again}` goes on", code=130)
        table = write_search(plan, study.get_trials())
    print(table)
    if work.bugs:
        app.fail(f"{counted(work.bugs, 'trial')} failed by a bug, see above", code=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own lines, and what it says of its own code; ours come from `Work`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings(
            "ignore", message=".*is already reported.*"
        )  # by a trial that is gone on with
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def go_on(plan: Plan, study: optuna.Study, work: "Work") -> None:
    """Until there are enough trials. Those that others are at are waited for until it is seen that they live."""
    silence = GRACE * plan.search["heartbeat"]
    end: float | None = None
    while True:
        fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        if len(that_count(trials)) < plan.search["trials"]:
            end = None
            work.one()
            check_hope(study.get_trials(deepcopy=False))
            continue
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if not running:
            return
        if end is None:
            end = time.monotonic() + silence + plan.search["heartbeat"]
            log.info("%s at work in other processes …", counted(len(running), "trial"))
        if time.monotonic() > end:
            log.info("the process that is the last one writes the table with all trials")
            return
        time.sleep(min(1.0, plan.search["heartbeat"] / 4))


def that_count(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that are at work or have ended, but not those that were cut off and are tried again."""
    again = {number for trial in trials for number in history(trial)}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in again]


def check_hope(trials: Sequence[FrozenTrial]) -> None:
    """A UserError where all trials have failed, the last ones in the same way: the others would, too.

    The reference draws nothing, so that it says nothing of what is drawn.
    """
    ended = [trial for trial in trials if trial.state.is_finished() and trial.user_attrs.get("overrides")]
    reasons = [trial.user_attrs.get("failed") for trial in ended]
    if len(ended) >= SAME and all(reasons) and len(set(reasons[-SAME:])) == 1:
        raise UserError(
            f"all {len(ended)} trials that drew something failed, the last {SAME} of them so: {reasons[-1]}"
        )


class Failed(Exception):
    """A trial whose settings fit no network, or whose training failed: it is told, and the search goes on."""


class Lost(Exception):
    """A trial that another process has taken over: ours gave no sign of life for too long."""


class Work:
    """One process's part in a search."""

    def __init__(self, plan: Plan, study: optuna.Study) -> None:
        self.plan = plan
        self.study = study
        self.number: int | None = None  # of the trial that is at work
        self.bugs = 0

    def one(self) -> None:
        """Draw and train one trial."""
        try:
            self.study.optimize(self.train, n_trials=1, catch=(Failed,))
        except (Lost, ValueError, UpdateFinishedTrialError) as error:
            # Optuna refuses to hear of a trial that has ended for it.
            if self.number is None or self.frozen().state != TrialState.FAIL:
                raise
            log.warning("trial %d was taken over by another process (%s)", self.number, reason_of(error))
        finally:
            ended = self.number is not None and self.frozen().state.is_finished()
            if ended and self.frozen().state != TrialState.FAIL:
                log.info("trial %d: %s", self.number, said_of(self.frozen(), self.plan.objectives))
            if ended:
                write_trials(self.plan, self.study.get_trials())
        self.number = None

    def frozen(self) -> FrozenTrial:
        """The trial that is at work, as the storage has it."""
        assert self.number is not None
        return self.study.get_trials(deepcopy=False)[self.number]

    def give_back(self) -> None:
        """Let the trial that was stopped be the next one that anybody trains."""
        if self.number is not None and self.frozen().state == TrialState.FAIL:
            again = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
            again(self.study, self.study.get_trials()[self.number])

    def train(self, trial: optuna.Trial) -> list[float]:
        """The trial's values, as `plan.objectives` names them."""
        self.number = trial.number
        # One that was cut off is gone on with in its folder: what is there is not trained again.
        begun = (history(self.frozen()) or [trial.number])[0]
        folder = self.plan.folder / "trials" / f"{begun:03d}"
        try:
            reference = self.plan.search["reference"] and begun == 0
            drawn = {}
            if not reference:
                drawn = draw(self.plan.space, trial)
            elif self.plan.stands is not None:
                draw(self.plan.space, trial)  # what stands: so that the sampler learns what it came to
            words = [written(name, value) for name, value in drawn.items()]
            log.info("trial %d: %s", trial.number, " ".join(words) or AS_IT_STANDS)
            for name, value in (("overrides", words), ("run", str(folder))):
                trial.set_user_attr(name, value)
            whole = self.plan.words(words)
            settings = settled_trial(whole)
            if settings["cache"] is None:  # one for all trials there has to be
                settings["cache"] = str(self.plan.folder / "baselines")
            start_run(folder, settings, whole)
            watched = Trial(self.plan.search["max_loss"], self.telling(trial), self.looking(trial))
            found = train_run(OmegaConf.create(settings), folder, watched)
        except optuna.TrialPruned:
            forget_run(folder)  # which leaves one alone that has begun
            raise
        except UpdateFinishedTrialError as error:
            raise Lost(reason_of(error)) from error
        except (KeyboardInterrupt, SystemExit):  # Lightning makes the latter of the former
            raise KeyboardInterrupt from None
        except Exception as error:
            forget_run(folder)
            raise Failed(self.failed(trial, error)) from error
        trial.set_user_attr("worth", found)
        return [found[name] for name in self.plan.objectives]

    def looking(self, trial: optuna.Trial) -> Callable[[Macs], None]:
        """What the trial calls before it trains: where gain is looked for, one without any is not trained."""

        def look(macs: Macs) -> None:
            if "gain" in self.plan.objectives and macs.exits[0] >= macs.baseline:
                share = macs.exits[0] / macs.baseline
                trial.set_user_attr(
                    "failed", f"no gain is possible: the way to exit 1 costs {share:.2f} baselines"
                )
                raise optuna.TrialPruned("not trained")

        return look

    def telling(self, trial: optuna.Trial) -> Callable[[int, float], None]:
        """What the trial calls after every epoch: it may end it. Of two objectives Optuna ends none."""
        if len(self.plan.objectives) > 1:
            return lambda epoch, accuracy: None
        # More accuracy is better, whatever the objective is.
        sign = 1 if OBJECTIVES[self.plan.objectives[0]] else -1

        def tell(epoch: int, accuracy: float) -> None:
            trial.report(sign * accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"after {counted(epoch + 1, 'epoch')}")

        return tell

    def failed(self, trial: optuna.Trial, error: Exception) -> str:
        """One line, told and kept; of a bug of ours the traceback, too."""
        message = app.user_message(error)
        if message is None:
            self.bugs += 1
            traceback.print_exception(error)
            message = f"{type(error).__name__}: {reason_of(error)}"
        trial.set_user_attr("failed", message)
        log.warning("trial %d failed: %s", trial.number, message)
        return message


def settled_trial(words: Sequence[str]) -> dict[str, Any]:
    """A trial's settings: those of a training with these words on its command line."""
    config = compose("train", overrides=list(words))
    settle_paths(config)
    return settled(plain(config))[0]


def check_names(space: Mapping[str, Any], base: Sequence[str]) -> None:
    """A UserError where something of a space has a name that none has: trials would fail of it, one by one.

    What is a name and fits no network, as a kernel larger than the map, is not looked at: other draws may fit.

    Args:
        space: what is drawn.
        base: what all trials have on their command lines.
    """
    data = None  # the same for all draws
    for drawn in turns(space):
        words = [*base, *(written(name, value) for name, value in drawn.items())]
        config = compose("train", overrides=words)
        settle_paths(config)
        settings = plain(config)
        check_settings(settings)
        data = build_data(settings["data"]) if data is None else data
        try:
            model = resolved(settings["model"], data.input_shape, data.num_classes)
            build_network(OmegaConf.create(model), data.input_shape, data.num_classes, settings["seed"])
        except UnknownName as error:
            raise UserError(f"the space draws what is not there: {error}") from error
        except UserError:
            continue


class Reseeded(BaseSampler):
    """A sampler whose draws depend on the seed, the trial's number and the trials before it, and on nothing else.

    So a search that was stopped draws what it would have drawn, and processes that begin at once draw each its own.

    Args:
        make: from a seed to a sampler.
        seed: of the search.
        first: what trial 0 is to draw, by name; None: what the sampler would have it draw.
    """

    def __init__(
        self, make: Callable[..., BaseSampler], seed: int, first: Mapping[str, Any] | None = None
    ) -> None:
        self.make, self.seed, self.first = make, seed, first
        self.inner = make(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.inner = self.make(seed=derive_seed(self.seed, f"trial {trial.number}") % 2**32)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        if self._is_given(trial):
            return {}
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> Any:
        if self._is_given(trial):
            return {}
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any
    ) -> Any:
        if self.first is not None and self._is_given(trial):
            return self.first[name]
        return self.inner.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)

    def _is_given(self, trial: FrozenTrial) -> bool:
        return self.first is not None and trial.number == 0

    def reseed_rng(self) -> None:
        """Of threads, which a search here has none of."""


def open_study(plan: Plan) -> optuna.Study:
    """The study in the storage, made if it is not there.

    Raises:
        UserError: a sampler, a pruner or a storage that cannot be used, or a study of another search.
    """
    make = made("search.sampler", {**plan.search["sampler"], "_partial_": True})
    try:
        sampler = Reseeded(make, plan.search["seed"], plan.stands)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the settings of search.sampler are refused: {reason_of(error)}; see conf/search/sampler"
        ) from error
    pruner = made("search.pruner", plan.search["pruner"], optuna.pruners.BasePruner)
    if len(plan.objectives) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
        log.info("no trial is ended early: with two objectives Optuna cannot")
    url = plan.search["storage"]
    if url is None:
        plan.folder.mkdir(parents=True, exist_ok=True)
        file = str(plan.folder / "search.db")
        url = URL.create("sqlite", database=file).render_as_string(hide_password=False)
    for attempt in range(TRIES):
        try:
            study = optuna.create_study(
                storage=connect(url, plan),
                study_name=plan.search["study"],
                directions=plan.directions,
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )
            break
        except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
            # Two that make the same tables at once: one of them finds them there the next time.
            if attempt == TRIES - 1 or not isinstance(error, SQLAlchemyError | StorageInternalError):
                raise UserError(
                    f"search.storage={shown(url)}: it cannot be used ({reason_of(error)}); it is the address of a "
                    "database that SQLAlchemy knows, or null for a file in the search's folder"
                ) from error
            time.sleep(random.uniform(0.1, 1.0))
    check_same(study, plan)
    return study


def connect(url: str, plan: Plan) -> RDBStorage:
    """The storage, with signs of life of the trials that are at work."""
    heartbeat, retries = plan.search["heartbeat"], plan.search["retries"]
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}  # seconds that a process waits while another one writes
    return RDBStorage(
        url,
        engine_kwargs=options,
        heartbeat_interval=heartbeat,
        grace_period=GRACE * heartbeat,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
            max_retry=retries, inherit_intermediate_values=True
        ),
    )


def shown(url: str) -> str:
    """An address without its password."""
    try:
        return make_url(url).render_as_string()
    except SQLAlchemyError:
        return url


def check_same(study: optuna.Study, plan: Plan) -> None:
    """A UserError if the study is of another search: its trials would not compare."""
    ours = {
        "space": plan.space,
        "objectives": plan.objectives,
        "reference": plan.search["reference"],
        "max_loss": plan.search["max_loss"],
        "settings": without(plan.settings, OF_A_MACHINE),
    }
    theirs = study.user_attrs.get("search")
    if theirs is None:
        study.set_user_attr("search", ours)
        return
    other = first_difference(theirs, ours)
    if other is not None:
        raise UserError(
            f"search.study={study.study_name}: there is a search with other settings in this storage "
            f"({other.removeprefix('settings.')}): name another one, or another folder by hydra.run.dir=<folder>"
        )
