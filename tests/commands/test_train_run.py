"""Mistakes in the settings: each gets one line, before the first epoch."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder, user_message
from branchynet.commands.train_run import train_run


def composed(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides=["experiment=b_lenet_digits", "trainer=cpu", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["weights.values=[1.0]"], ["1 weights", "2 exits"]),
        (["weights.values=[1.0,-1.0]"], ["exit 2", "-1.0"]),
        (["weights.values=[0,0]"], ["above 0"]),
        (["model.exits.0.after=conv9"], ["conv9", "conv1, pool1"]),
        (["model.exits=[]"], ["exit"]),
        (["model.exits=null"], ["exit"]),
        (["model.exits.0.convs=[10,10]", "model.exits.0.pool=[2]"], ["pool", "one"]),
        (["model.trunk.num_classes=7"], ["7", "num_classes=10"]),
        (["criterion.name=entropie"], ["entropie", "entropy"]),
        (["engine.name=tensorflow"], ["tensorflow", "onnxruntime"]),
        (["engine.threads=0"], ["threads=0"]),
        (["engine.seconds=-1"], ["seconds=-1"]),
        (["sweep.protocol=test"], ["test", "validation, paper"]),
        (["sweep.thresholds=[0.1,-1]"], ["-1"]),
        (["sweep.max_vectors=0"], ["max_vectors=0"]),
        (["sweep/rule=latency_budget", "sweep.rule.budget_us=-3"], ["budget_us=-3"]),
        (["epochs.joint=0"], ["epochs.joint=0"]),
        (["epochs.baseline=many"], ["epochs.baseline=many"]),
        (["init=nowhere.ckpt"], ["nowhere.ckpt", "scratch"]),
        (["data=mnist", "data.root=nowhere", "data.download=false"], ["nowhere", "data=digits"]),
        (["data.batch_size=0"], ["batch_size=0"]),
        (["schedule.name=linear"], ["linear", "one_cycle"]),
        (["trainer.accelerator=quantum"], ["quantum"]),
        (["trainer.precision=8-true"], ["8-true"]),
        (["+optimizer.speed=3"], ["speed"]),
        (["label_smoothing=2"], ["label_smoothing=2"]),
        (["seed=-1"], ["seed=-1"]),
        (["label_smoothing=some"], ["label_smoothing=some"]),
        (["schedule=multi_step", "schedule.milestones=[0.75,0.5]"], ["milestones", "rising"]),
        (["optimizer=sgd", "optimizer.momentum=0"], ["momentum", "conf/optimizer"]),
        (["ema=1.5"], ["ema=1.5", "0.999"]),
        (["ema=often"], ["ema=often", "null"]),
        (["trainer.gradient_clip_val=-1"], ["gradient_clip_val=-1", "above 0"]),
        (["trainer.gradient_clip_val=much"], ["gradient_clip_val=much", "null"]),
        (["freeze=heads"], ["freeze=heads", "none or trunk"]),
        (["freeze=trunk", "init=scratch"], ["init=scratch", "init=baseline"]),
        (["freeze=trunk", "weights.values=[0,1]"], ["freeze=trunk", "side exits"]),
        (["channels_last=maybe"], ["channels_last=maybe", "auto, true or false"]),
        (["compile=1"], ["compile=1", "auto, true or false"]),
    ],
)
def test_a_mistake_gets_one_line_and_costs_no_training(overrides, words, tmp_path, capsys):
    with pytest.raises(Exception) as caught:
        execute(composed(f"cache={tmp_path}/cache", *overrides), tmp_path / "run")
    message = user_message(caught.value)
    assert message is not None, f"a traceback: {caught.value!r}"
    assert "\n" not in message and all(word in message for word in words), message
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_bug_of_ours_is_no_user_mistake():
    assert user_message(ZeroDivisionError("division by zero")) is None
    assert user_message(KeyError("missing")) is None


def test_trainer_gpu_without_a_gpu_says_what_to_take(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(Exception) as caught:
        execute(composed("trainer=gpu"), tmp_path)
    assert "trainer=cpu" in (user_message(caught.value) or "")


# The learning rate is zero: what a stage starts from is what it ends with.
STILL = [
    "optimizer.lr=0",
    "schedule=none",
    "epochs.baseline=1",
    "epochs.joint=1",
    "engine=torch",
    "engine.compare=[]",
    "engine.seconds=0.01",
    "logger=none",
]


def test_init_says_what_the_joint_stage_starts_from(tmp_path, capsys):
    def start_of_joint(name, init, seed=0):
        folder = tmp_path / name
        config = composed(f"cache={tmp_path}/cache", f"init={init}", f"seed={seed}", *STILL)
        result = execute(config, folder)
        assert result["seed"] == seed
        checkpoint = torch.load(folder / "checkpoints" / "joint" / "best.ckpt")["state_dict"]
        baseline = torch.load(folder / "checkpoints" / "baseline.pt")
        return checkpoint, baseline, folder / "checkpoints" / "joint" / "best.ckpt"

    # Another seed's baseline, put where seed 0's is looked for.
    _, foreign, checkpoint = start_of_joint("seed 1", "baseline", seed=1)
    _, own, _ = start_of_joint("seed 0", "baseline")
    (entry,) = (f for f in (tmp_path / "cache").glob("*.pt") if same(torch.load(f), own))
    torch.save(foreign, entry)

    from_baseline, used, _ = start_of_joint("baseline", "baseline")
    assert same(used, foreign) and same(trunk(from_baseline), foreign)
    from_scratch, used, _ = start_of_joint("scratch", "scratch")
    assert same(used, foreign) and same(trunk(from_scratch), own)
    from_checkpoint, _, _ = start_of_joint("checkpoint", checkpoint)
    assert same(from_checkpoint, torch.load(checkpoint)["state_dict"])
    # No TensorBoard with logger=none, everything else all the same.
    names = {path.name for path in (tmp_path / "scratch").iterdir()}
    assert "result.json" in names and not any("tfevents" in name for name in names)


def trunk(state):
    """A network's weights under the trunk's own names: without segments' and heads' numbers."""
    return {
        name.split(".", 3)[3]: value
        for name, value in state.items()
        if name.startswith(("network.segments.", "network.heads.1."))
    }


def same(first, second):
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
