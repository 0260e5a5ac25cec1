"""The columns of TensorBoard's HParams tab."""

from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.hparams import flat_hparams
from branchynet.runs.build import build_sweep


def shown(*overrides, weights=(1.0, 0.3)):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=["experiment=b_lenet_digits", "engine=torch", *overrides])
    return flat_hparams(config, weights, build_sweep(config, config.name, config.seed))


def test_the_schema_to_the_letter():
    assert shown() == {
        "experiment": "b_lenet_digits",
        "model": "b_lenet",
        "exits_after": "conv1",
        "data": "digits",
        "seed": 0,
        "init": "baseline",
        "freeze": "none",
        "objective": "Joint",
        "weights": "1 0.3",
        "optimizer": "AdamW",
        "lr": 0.003,
        "schedule": "one_cycle",
        "ema": "none",
        "batch_size": 64,
        "epochs_baseline": 30,
        "epochs_joint": 60,
        "criterion": "entropy",
        "combine": "none",
        "rule": "accuracy_floor",
        "protocol": "validation",
        "engine": "torch",
        "threads": 1,
    }


def test_it_is_the_same_in_every_run_and_follows_the_settings():
    other = shown(
        "model=b_alexnet",
        "criterion=margin",
        "combine=average",
        "sweep/rule=knee",
        "sweep.protocol=paper",
        "engine.threads=2",
        "ema=0.9",
        "optimizer=sgd",
        "schedule=none",
        weights=(1, 0.65, 1 / 3),
    )
    assert list(other) == list(shown())
    assert all(isinstance(value, str | int | float) for value in other.values())
    expected = {
        "model": "b_alexnet",
        "weights": "1 0.65 0.333333",
        "optimizer": "SGD",
        "schedule": "none",
        "ema": 0.9,
        "criterion": "margin",
        "combine": "average",
        "rule": "knee",
        "protocol": "paper",
        "threads": 2,
    }
    assert other.items() >= expected.items()
    assert len(other["exits_after"].split()) == 2
