"""A run's settings for TensorBoard's HParams tab."""

from collections.abc import Sequence

from omegaconf import DictConfig

from branchynet.evaluation.settings import SweepSettings


def flat_hparams(
    config: DictConfig, weights: Sequence[float], sweep: SweepSettings
) -> dict[str, str | int | float]:
    """One flat schema, the same in every run.

    Args:
        config: the run's settings.
        weights: N, of the exits in the joint loss.
        sweep: how the operating point is chosen.
    """
    return {
        "experiment": config.name,
        "model": config.model.name,
        "exits_after": " ".join(exit_.after for exit_ in config.model.exits),
        "data": config.data.name,
        "seed": config.seed,
        "init": config.init,
        "freeze": config.freeze,
        "objective": config.objective["_target_"].rpartition(".")[2],
        "weights": " ".join(f"{weight:g}" for weight in weights),
        "optimizer": config.optimizer["_target_"].rpartition(".")[2],
        "lr": config.optimizer.lr,
        "schedule": config.schedule.name,
        "ema": "none" if config.ema is None else config.ema,
        "batch_size": config.data.batch_size,
        "epochs_baseline": config.epochs.baseline,
        "epochs_joint": config.epochs.joint,
        "criterion": sweep.criterion.name,
        "combine": sweep.combining.name,
        "rule": sweep.rule.name,
        "protocol": sweep.protocol,
        "engine": sweep.engine.name,
        "threads": sweep.measuring.threads,
    }
