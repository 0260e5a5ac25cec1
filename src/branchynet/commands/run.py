"""From a config to the objects of a run, and through its stages."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

import branchynet
from branchynet.callbacks.evaluation import SweepSettings
from branchynet.callbacks.progress import EpochProgress
from branchynet.callbacks.threshold_sweep import ThresholdSweep
from branchynet.commands import checks
from branchynet.commands.image_facts import facts_of, write_facts
from branchynet.commands.run_config import plain
from branchynet.data.module import ImageData
from branchynet.networks.attach import attach
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.costs import count_macs
from branchynet.training import baseline_cache
from branchynet.training.averaging import check_decay
from branchynet.training.hardware import resolve_channels_last, resolve_compile, resolve_precision
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import exit_weights, side_weights
from branchynet.training.schedules import build_schedule
from branchynet.training.seeds import derive_seed
from branchynet.training.stages import fit, load_network

log = logging.getLogger(__name__)

# What of conf/data says where the images are and how they are moved, but not what a batch holds.
_DATA_WHERE = ("root", "download", "path", "num_workers", "eval_batch_size")


def execute(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train the baseline and all exits, then sweep; every stage that `folder` holds already is taken from it.

    Returns:
        What stands in `folder/result.json`.
    """
    result_file = folder / "result.json"
    if result_file.exists():
        log.info("this run is finished: %s", result_file)
        return json.loads(result_file.read_text())
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    data: ImageData = instantiate(config.data)
    data.setup("fit")
    facts = facts_of(data)
    network = build_network(config.model, facts.input_shape, facts.num_classes, config.seed)
    # Everything that can be wrong with the settings is looked at before the first epoch, not after the last.
    optimizer = instantiate(config.optimizer)
    checks.check_init(config.init)
    checks.check_epochs(plain(config.epochs))
    checks.check_optimizer(
        optimizer, plain(config.schedule), plain(config.epochs), len(data.images("train")), data.batch_size
    )
    trainer = trainer_settings(config.trainer, network, data)
    checks.check_trainer(trainer)
    if config.ema is not None:
        check_decay(config.ema)
    weights = joint_weights(config)
    baseline = build_network(config.model, facts.input_shape, facts.num_classes, config.seed)
    settings = SweepSettings(
        experiment=config.name,
        seed=config.seed,
        criterion=config.criterion.name,
        engine=plain(config.engine),
        **plain(config.sweep),
    )
    sweep = ThresholdSweep(baseline, folder, settings, flat_hparams(config))
    logger = instantiate(config.logger, save_dir=str(folder)) if config.logger else None
    if logger is not None:
        logger.hparams.update(sweep.hparams)  # what Lightning writes to hparams.yaml
    stage = partial(
        fit,
        data=data,
        trainer=trainer,
        logger=logger,
        ema=config.ema,
    )
    module = partial(
        BranchyClassifier,
        optimizer=optimizer,
        schedule=partial(build_schedule, plain(config.schedule)),
        seed=config.seed,
        label_smoothing=config.label_smoothing,
        channels_last=resolve_channels_last(config.channels_last),
        compile=resolve_compile(config.compile, config.trainer.accelerator),
    )

    if config.init not in ("baseline", "scratch"):
        load_network(network, config.init)
    write_facts(folder, facts)
    train_baseline(config, folder, baseline, data, stage, module)
    if config.init == "baseline":
        network.load_trunk_state_dict(baseline.trunk_state_dict())
    stage(
        module(network, weights, stage="joint", freeze_trunk=config.freeze == "trunk"),
        epochs=config.epochs.joint,
        folder=folder / "checkpoints" / "joint",
        callbacks=[EpochProgress(), sweep],
    )
    log.info("figure:      %s", folder / "figures" / "trade_off.png")
    if logger is not None:
        log.info("TensorBoard: tensorboard --logdir %s", log_folder(folder))
    return json.loads(result_file.read_text())


def trainer_settings(trainer: DictConfig, network: BranchedNetwork, data: ImageData) -> dict[str, Any]:
    """The arguments of Lightning's Trainer, with what `auto` stands for on this machine, for this trunk."""
    settings = plain(trainer)
    macs = count_macs(network, data.input_shape).baseline
    precision = resolve_precision(settings["precision"], settings["accelerator"], macs)
    return {**settings, "precision": precision}


def build_network(
    model: DictConfig, input_shape: tuple[int, int, int], num_classes: int, seed: int
) -> BranchedNetwork:
    """The network of `model` for such images and classes, with the initial weights of `seed`.

    The trunk's weights do not depend on the exits: the heads draw from a seed of their own.
    """
    torch.manual_seed(derive_seed(seed, "trunk"))
    trunk = instantiate(model.trunk)
    torch.manual_seed(derive_seed(seed, "heads"))
    return attach(trunk, plain(model.exits), input_shape, num_classes)


def train_baseline(
    config: DictConfig,
    folder: Path,
    baseline: BranchedNetwork,
    data: ImageData,
    stage: Callable[..., None],
    module: Callable[..., BranchyClassifier],
) -> None:
    """Stage 1: the trunk alone, from this run's folder, from the cache or by training."""
    checkpoints = folder / "checkpoints"
    cache = Path(config.cache)
    determinants = baseline_determinants(config, data, baseline)
    key = baseline_cache.cache_key(determinants)
    state = baseline_cache.load(checkpoints, "baseline")
    if state is None and (state := baseline_cache.load(cache, key)) is not None:
        log.info("the baseline is taken from %s", cache / f"{key}.pt")
        baseline_cache.store(checkpoints, "baseline", state, determinants)
    if state is not None:
        baseline.load_trunk_state_dict(state)
        return
    only_last = [0.0] * (baseline.num_exits - 1) + [1.0]
    stage(
        module(baseline, only_last, stage="baseline"),
        epochs=config.epochs.baseline,
        folder=checkpoints / "baseline",
        callbacks=[EpochProgress()],
    )
    for place, name in ((cache, key), (checkpoints, "baseline")):
        baseline_cache.store(place, name, baseline.trunk_state_dict(), determinants)


def baseline_determinants(config: DictConfig, data: ImageData, baseline: BranchedNetwork) -> dict[str, Any]:
    """What determines the baseline's weights, as plain values; nothing of the exits is among it."""
    return {
        "trunk": plain(config.model.trunk),
        "data": {key: value for key, value in plain(config.data).items() if key not in _DATA_WHERE},
        "images": data.fingerprint(),
        "optimizer": plain(config.optimizer),
        "schedule": plain(config.schedule),
        "trainer": trainer_settings(config.trainer, baseline, data),
        "epochs": config.epochs.baseline,
        "label_smoothing": config.label_smoothing,
        "ema": config.ema,
        "channels_last": resolve_channels_last(config.channels_last),
        "compile": resolve_compile(config.compile, config.trainer.accelerator),
        "seed": config.seed,
        "cuda": torch.cuda.is_available(),
        "torch": torch.__version__,
        "branchynet": branchynet.__version__,
    }


def joint_weights(config: DictConfig) -> tuple[float, ...]:
    """The weights w_1 … w_N of the joint loss; a UserError for those that are not allowed."""
    weights = exit_weights(plain(config.weights), len(config.model.exits) + 1)
    return side_weights(weights) if checks.check_freeze(config.freeze, config.init) else weights


def flat_hparams(config: DictConfig) -> dict[str, str | int | float]:
    """One flat schema, the same in every run, for TensorBoard's HParams tab."""
    return {
        "experiment": config.name,
        "model": config.model.name,
        "exits_after": " ".join(exit_.after for exit_ in config.model.exits),
        "data": config.data.name,
        "seed": config.seed,
        "init": config.init,
        "freeze": config.freeze,
        "weights": " ".join(f"{weight:g}" for weight in joint_weights(config)),
        "optimizer": config.optimizer["_target_"].rpartition(".")[2],
        "lr": config.optimizer.lr,
        "schedule": config.schedule.name,
        "ema": "none" if config.ema is None else config.ema,
        "batch_size": config.data.batch_size,
        "epochs_baseline": config.epochs.baseline,
        "epochs_joint": config.epochs.joint,
        "criterion": config.criterion.name,
        "rule": config.sweep.rule.name,
        "protocol": config.sweep.protocol,
        "engine": config.engine.name,
        "threads": config.engine.threads,
    }


def log_folder(folder: Path) -> Path:
    """What to show in TensorBoard: all of outputs/ if the run lies there, else the run alone."""
    outputs = Path("outputs").resolve()
    return Path("outputs") if folder.resolve().is_relative_to(outputs) else folder
