"""From a config to the objects of a run, and through its stages."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

import branchynet
from branchynet.callbacks.progress import EpochProgress
from branchynet.callbacks.threshold_sweep import ThresholdSweep
from branchynet.callbacks.trial import Trial, read_trial
from branchynet.commands import checks
from branchynet.commands.hparams import flat_hparams
from branchynet.commands.observers import build_callbacks, build_loggers, of_tensorboard
from branchynet.commands.pages import evaluation_of, wants_page
from branchynet.commands.paths import INITS
from branchynet.commands.rivals import rivals_of
from branchynet.data.doubts import doubts
from branchynet.data.module import ImageData
from branchynet.errors import UserError, settings_of
from branchynet.evaluation.evidence import try_criterion
from branchynet.evaluation.fitting import images_to_fit_on
from branchynet.exits.rules import check_rule
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.weights import pretrained_state
from branchynet.runs import baseline_cache
from branchynet.runs.build import (
    build_class_weights,
    build_data,
    build_gradients,
    build_network,
    build_objective,
    build_sweep,
    build_task,
    load_weights,
    made,
)
from branchynet.runs.image_facts import check_same_images, facts_of, write_facts
from branchynet.runs.result_schema import NAME as RESULT
from branchynet.runs.result_schema import find_result, read_result
from branchynet.runs.run_config import plain
from branchynet.runs.teacher import build_teacher
from branchynet.runtime.costs import count_macs
from branchynet.training.averaging import check_decay
from branchynet.training.hardware import (
    resolve_channels_last,
    resolve_compile,
    resolve_precision,
    trains_on_gpu,
)
from branchynet.training.module import BranchyClassifier, logged_names
from branchynet.training.objective import Joint
from branchynet.training.ranks import ALONE, Ranks, ranks_outside
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import fit, quieten_logs
from branchynet.training.teacher import Teacher

log = logging.getLogger(__name__)

# What the baseline's weights do not depend on. All other settings are part of the cache's key, so that one that is
# forgotten here costs a training, and never reuses a wrong baseline.
NOT_OF_BASELINE = (
    *("name", "study", "resume", "resume_sweep", "cache", "logger", "debug", "experiment"),
    *("optimized_metric", "page"),
    *("init", "freeze", "weights", "objective", "criterion", "combine", "sweep", "engine"),
    "task",  # what it is shows in the images' labels
    *("model.name", "model.exits", "epochs.joint"),
    "model.weights",  # what they are is known by the trunk's initial weights
    # Where the images are and how they are moved, but not what a batch holds.
    *("data.root", "data.download", "data.path", "data.num_workers", "data.eval_batch_size"),
    *("data.keep", "data.cache"),
    "data.calibration",  # what it leaves for training is known by the images themselves
    *("data.rivals", "data.classes"),  # shown beside the results
)


def train_run(
    config: DictConfig, folder: Path, trial: Trial | None = None, data: ImageData | None = None
) -> dict[str, Any]:
    """Train the baseline and all exits, then sweep; every stage that `folder` holds already is taken from it.

    Args:
        config: the run's settings.
        folder: the run's.
        trial: of a search: then the network is judged on validation alone, in place of the sweep.
        data: its images, where they are read already.

    Returns:
        What stands in `folder/result.json`, of a trial in `folder/trial.json`; nothing in a process that only
        trains along with another.
    """
    ranks = ranks_outside()
    found = find_result(folder)
    if ranks.agreed("finished", found is not None):
        log.info("this run is finished: %s", folder / RESULT)
        return found or {}
    quieten_logs()

    data = build_data(config.data) if data is None else data
    task = build_task(config.task)
    task.check(data.labels("val"), data.input_shape, data.data_name)
    facts = facts_of(data)
    check_same_images(folder, facts)
    for doubt in doubts(data):
        log.warning("%s: %s", data.data_name, doubt)
    images = len(data.images("train"))
    gpu = trains_on_gpu(config.trainer.accelerator)
    checks.check_memory(config.model, facts.input_shape, facts.num_classes, min(data.batch_size, images), gpu)
    network = build_network(config.model, facts.input_shape, facts.num_classes, config.seed)
    checks.check_task(task, network, facts.input_shape, facts.num_classes)
    # Everything that can be wrong with the settings is looked at before the first epoch, not after the last.
    rates = plain(config.optimizer)
    trunk_lr = rates.pop("trunk_lr", None)  # older runs, and optimisers of somebody's own, have none
    optimizer = made("optimizer", rates)
    weights_file = config.model.get("weights")
    checks.check_init(config.init, weights_file)
    checks.check_epochs(plain(config.epochs))
    checks.check_optimizer(optimizer, plain(config.schedule), plain(config.epochs), images, data.batch_size)
    if config.ema is not None:
        check_decay(config.ema)
    frozen, norms_frozen = checks.check_freeze(config.freeze, config.init, network)
    checks.check_trunk_lr(trunk_lr, config.freeze, config.init)
    of_classes = build_class_weights(config, data.labels("train"), facts.num_classes)
    objective = build_objective(config, network.num_exits, frozen, of_classes)
    gradients = build_gradients(config)
    taught_by = build_teacher(objective, facts)
    if taught_by is not None and task.partly:
        raise UserError(f"objective.teacher: with task={task.name} take last or average, or objective=joint")
    only_last = Joint((*[0.0] * (network.num_exits - 1), 1.0), config.label_smoothing, of_classes)
    baseline = build_network(config.model, facts.input_shape, facts.num_classes, config.seed)
    settings = build_sweep(config, config.name, config.seed, rivals=rivals_of(config.data), task=task)
    try_criterion(settings.criterion, network, data)
    with settings_of("combine"):
        settings.combining.check(network.num_exits)
    with settings_of("sweep.rule"):
        check_rule(settings.rule, network.num_exits)
    with settings_of("sweep"):
        images_to_fit_on(settings.criterion, settings.combining, data, settings.fit_share)
    hparams = flat_hparams(config, objective.weights, settings)
    resolved = OmegaConf.to_yaml(config, resolve=True)
    command = (
        evaluation_of(folder) if wants_page(config) and not task.partly else None
    )  # a page counts right answers
    sweep = ThresholdSweep(
        baseline, folder, settings, plain(config.criterion), hparams, resolved, plain(config.combine), command
    )
    ending: list[Callback] = [sweep]
    if trial is not None:
        trial.look(count_macs(network, facts.input_shape))
        ending = trial.callbacks(baseline, folder, settings, hparams)
    weights = (only_last.weights, objective.weights)
    trainer = checks.check_trainer(
        trainer_settings(config.trainer, network, data), stage_callbacks(config, weights), ranks.size
    )
    module = partial(
        BranchyClassifier,
        optimizer=optimizer,
        schedule=partial(build_schedule, plain(config.schedule)),
        seed=config.seed,
        channels_last=resolve_channels_last(config.channels_last),
        compile=resolve_compile(config.compile, config.trainer.accelerator),
        trunk_lr=trunk_lr,
        right=task.right,
    )

    if config.init not in INITS:
        load_weights(network, Path(config.init))
    loggers = build_loggers(plain(config.get("logger")), folder, hparams)
    stage = partial(fit, data=data, trainer=trainer, logger=loggers, ema=config.ema)
    if ranks.first:
        write_facts(folder, facts)
    if weights_file is not None and not (folder / "checkpoints" / "baseline.pt").is_file():
        load_pretrained(baseline, Path(weights_file), whole=config.init == "pretrained")
    train_baseline(
        config,
        folder,
        baseline,
        data,
        partial(stage, callbacks=stage_callbacks(config, weights)),
        partial(
            module,
            baseline,
            only_last,
            stage="baseline",
            freeze_batch_norms=norms_frozen and weights_file is not None,
        ),
        loggers,
        of_classes,
        ranks,
    )
    if config.init in ("baseline", "pretrained"):
        network.load_trunk_state_dict(baseline.trunk_state_dict())
    teacher = None
    if taught_by is not None:
        data.numbered = True
        teacher = Teacher(taught_by, {split: len(data.images(split)) for split in ("train", "val")})
    stage(
        module(
            network,
            objective,
            stage="joint",
            freeze_trunk=frozen,
            freeze_batch_norms=norms_frozen,
            gradients=gradients,
            teacher=teacher,
        ),
        epochs=config.epochs.joint,
        folder=folder / "checkpoints" / "joint",
        callbacks=[*stage_callbacks(config, weights), *ending],
    )
    if not ranks.first:
        return {}
    if trial is not None:
        return read_trial(folder)
    log.info("figure:      %s", folder / "figures" / "trade_off.png")
    if of_tensorboard(loggers):
        log.info("TensorBoard: tensorboard --logdir %s", log_folder(folder))
    return read_result(folder)


def stage_callbacks(config: DictConfig, weights: Sequence[Sequence[float]]) -> list[Callback]:
    """A stage's own: those of the group `callbacks`, and our progress bar where there is no other.

    Args:
        config: the run's settings.
        weights: of the exits, in each of the stages.
    """
    first, *others = map(logged_names, weights)
    shared = [name for name in first if all(name in names for names in others)]
    callbacks = build_callbacks(plain(config.get("callbacks")), shared)
    if not any(isinstance(callback, ProgressBar) for callback in callbacks):
        callbacks.insert(0, EpochProgress())
    return callbacks


def trainer_settings(trainer: DictConfig, network: BranchedNetwork, data: ImageData) -> dict[str, Any]:
    """The arguments of Lightning's Trainer, with what `auto` stands for on this machine, for this trunk."""
    settings = plain(trainer)
    macs = count_macs(network, data.input_shape).baseline
    precision = resolve_precision(settings["precision"], settings["accelerator"], macs)
    return {**settings, "precision": precision}


def train_baseline(
    config: DictConfig,
    folder: Path,
    baseline: BranchedNetwork,
    data: ImageData,
    stage: Callable[..., dict[str, float]],
    module: Callable[[], BranchyClassifier],
    loggers: Sequence[Logger] = (),
    of_classes: Sequence[float] | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Stage 1: the trunk alone, from this run's folder, from the cache or by training.

    Of several `ranks` the first looks; the others train with it if it says so. They need not know what came out:
    joint training begins with the first one's weights.
    """
    if not ranks.first:
        if ranks.agreed("train the baseline"):
            stage(module(), epochs=config.epochs.baseline, folder=folder / "checkpoints" / "baseline")
        return
    checkpoints = folder / "checkpoints"
    cache = None if config.cache is None else Path(config.cache)
    determinants = baseline_determinants(config, data, baseline, of_classes)
    key = baseline_cache.cache_key(determinants)
    like = baseline.trunk_state_dict()
    state = baseline_cache.load(checkpoints, "baseline", like)
    if config.init == "pretrained":
        cache = None  # a file by another name
    with nullcontext() if cache is None or state is not None else baseline_cache.alone(cache, key):
        if (
            state is None
            and cache is not None
            and (state := baseline_cache.load(cache, key, like)) is not None
        ):
            log.info("the baseline is taken from %s", cache / f"{key}.pt")
            metrics = baseline_cache.load_metrics(cache, key)
            log_baseline(loggers, metrics)
            baseline_cache.store(checkpoints, "baseline", state, determinants, metrics)
        ranks.agreed("train the baseline", state is None and config.init != "pretrained")
        if state is not None:
            baseline.load_trunk_state_dict(state)
            return
        if config.init == "pretrained":
            baseline_cache.store(checkpoints, "baseline", like, determinants, {})
            return
        metrics = stage(
            module(),
            epochs=config.epochs.baseline,
            folder=checkpoints / "baseline",
        )
        # The run's own copy first: a cache that cannot be written costs nothing but the next training.
        baseline_cache.store(checkpoints, "baseline", baseline.trunk_state_dict(), determinants, metrics)
        if cache is not None:
            try:
                baseline_cache.store(cache, key, baseline.trunk_state_dict(), determinants, metrics)
            except OSError as error:
                log.warning(
                    "the baseline is not kept for other runs: cache=%s cannot be written (%s)", cache, error
                )


def load_pretrained(baseline: BranchedNetwork, path: Path, whole: bool) -> None:
    """Put trained weights from a file into the trunk, and say what of it stays new.

    Args:
        baseline: its trunk.
        path: the file.
        whole: whether nothing may stay new, for nothing is trained in stage 1.
    """
    own = baseline.trunk_state_dict()
    last = list(baseline.heads[-1].state_dict())[-1].rpartition(".")[0]
    classifier = [name for name in own if name.startswith(f"{last}.")]
    state = pretrained_state(own, path, classifier)
    new = [name for name in classifier if state[name] is own[name]]
    if new and whole:
        raise UserError(
            f"init=pretrained: the classifier in {path} is of other classes, so {last} would stay untrained: take "
            "init=baseline, which trains the trunk on from these weights"
        )
    baseline.load_trunk_state_dict(state)
    log.info("the trunk begins with the weights of %s%s", path, f"; {last} is new" if new else "")


def log_baseline(loggers: Sequence[Logger], metrics: Mapping[str, float]) -> None:
    """Log how a baseline from the cache ended where its training would have: so it lacks nothing beside others."""
    values = {tag: value for tag, value in metrics.items() if "baseline" in tag.split("/")}
    for logger in loggers if values else ():
        logger.log_metrics(values, int(metrics.get("step", 0)))
        logger.save()


def baseline_determinants(
    config: DictConfig,
    data: ImageData,
    baseline: BranchedNetwork,
    of_classes: Sequence[float] | None = None,
) -> dict[str, Any]:
    """What determines the baseline's weights, as plain values: all settings but those known not to matter, what
    `auto` stands for, the images, the trunk's initial weights and code, and the versions.

    Args:
        config: the run's settings.
        data: the images.
        baseline: not trained yet.
    """
    fixed = config.freeze == "batch_norms" and config.model.get("weights") is not None
    return {
        **without(plain(config), NOT_OF_BASELINE),
        **({"batch_norms": "fixed"} if fixed else {}),
        "trainer": trainer_settings(config.trainer, baseline, data),
        "channels_last": resolve_channels_last(config.channels_last),
        "compile": resolve_compile(config.compile, config.trainer.accelerator),
        "images": data.fingerprint(),
        "initial": baseline_cache.digest_of_trunk(baseline),
        **({} if of_classes is None else {"class_weights": list(of_classes)}),
        "cuda": torch.cuda.is_available(),
        "torch": torch.__version__,
        "branchynet": branchynet.__version__,
    }


def without(settings: Mapping[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    """The settings but those with these dotted names."""
    kept = {}
    for name, value in settings.items():
        if name in left_out:
            continue
        below = tuple(each.removeprefix(f"{name}.") for each in left_out if each.startswith(f"{name}."))
        kept[name] = without(value, below) if below and isinstance(value, Mapping) else value
    return kept


def log_folder(folder: Path) -> Path:
    """What to show in TensorBoard: all jobs of a multirun, all of outputs/ if the run lies there, or the run alone.

    Of a multirun no more, so that its jobs have short names.
    """
    if (folder.parent / "multirun.yaml").is_file():  # Hydra's
        return folder.parent
    outputs = Path("outputs").resolve()
    return Path("outputs") if folder.resolve().is_relative_to(outputs) else folder
