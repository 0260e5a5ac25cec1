"""Mistakes in the settings get one line before the first epoch; and which baselines are the same."""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder, user_message
from branchynet.commands.train_run import (
    NOT_OF_BASELINE,
    baseline_determinants,
    log_baseline,
    log_folder,
    train_baseline,
    train_run,
    without,
)
from branchynet.errors import UserError
from branchynet.networks.resnet import resnet_cifar
from branchynet.runs.baseline_cache import cache_key
from branchynet.runs.build import build_data, build_network
from branchynet.runs.run_config import plain, read_config
from branchynet.runs.started_run import start_run
from branchynet.runtime.costs import Latencies, Latency

pytestmark = pytest.mark.usefixtures("undrawn")


def composed(*overrides):
    return deepcopy(composed_once(overrides))


@cache
def composed_once(overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides=["experiment=b_lenet_digits", "trainer=cpu", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["weights.values=[1.0]"], ["1 weights", "2 exits"]),
        (["weights.values=[1.0,-1.0]"], ["exit 2", "-1.0"]),
        (["weights.values=[0,0]"], ["above 0"]),
        (["init=pretrained"], ["init=pretrained", "model.weights=<file>"]),
        (["model.weights=nowhere.pth"], ["model.weights=nowhere.pth", "no such file"]),
        (["model.exits.0.after=conv9"], ["conv9", "conv1, pool1"]),
        (["model.exits=[]"], ["exit"]),
        (["model.exits=null"], ["exit"]),
        (["model.exits.0.convs=[10,10]", "model.exits.0.pool=[2]"], ["pool", "one"]),
        (["model.trunk.num_classes=7"], ["7", "num_classes=10"]),
        (["criterion=entropie"], ["entropie", "entropy"]),
        (["criterion._target_=branchynet.exits.criteria.nosuch"], ["criterion._target_=", "nosuch"]),
        (["sweep.rule._target_=branchynet.exits.rules.nosuch"], ["sweep.rule._target_=", "nosuch"]),
        (["objective._target_=branchynet.training.objective.nosuch"], ["objective._target_=", "nosuch"]),
        (["model.trunk._target_=nosuch.trunk"], ["model.trunk._target_=nosuch.trunk"]),
        (["optimizer._target_=torch.optim.nosuch"], ["optimizer._target_=torch.optim.nosuch"]),
        (["engine.name=tensorflow"], ["tensorflow", "onnxruntime"]),
        (["engine.threads=0"], ["threads=0"]),
        (["engine.seconds=-1"], ["seconds=-1"]),
        (["sweep.protocol=test"], ["test", "validation, paper"]),
        (["sweep.thresholds=[0.1,-1]"], ["-1"]),
        (["sweep.max_vectors=0"], ["max_vectors=0"]),
        (["sweep.fit_share=1"], ["sweep.fit_share=1", "between 0 and 1"]),
        (["combine=average", "sweep.fit_share=0.001"], ["sweep.fit_share=0.001: of 200 validation images"]),
        (["data.calibration=2000"], ["data.calibration=2000", "below 1237"]),
        (["sweep/rule=latency_budget", "sweep.rule.budget_us=-3"], ["budget_us=-3"]),
        (["epochs.joint=0"], ["epochs.joint=0"]),
        (["epochs.baseline=many"], ["epochs.baseline=many"]),
        (["init=nowhere.ckpt"], ["nowhere.ckpt", "scratch"]),
        (["data=mnist", "data.root=nowhere", "data.download=false"], ["nowhere", "data=digits"]),
        (["data.batch_size=0"], ["batch_size=0"]),
        (["schedule.name=linear"], ["linear", "one_cycle"]),
        (["trainer.accelerator=quantum"], ["quantum"]),
        (["trainer.precision=8-true"], ["8-true"]),
        (["+optimizer.speed=3"], ["speed", "conf/optimizer"]),
        (["+objective.speed=3"], ["objective", "speed", "conf/objective"]),
        (["label_smoothing=2"], ["label_smoothing=2"]),
        (["seed=-1"], ["seed=-1"]),
        (["label_smoothing=some"], ["label_smoothing=some"]),
        (["schedule=multi_step", "schedule.milestones=[0.75,0.5]"], ["milestones", "rising"]),
        (["optimizer=sgd", "optimizer.momentum=0"], ["momentum", "conf/optimizer"]),
        (["ema=1.5"], ["ema=1.5", "0.999"]),
        (["ema=often"], ["ema=often", "null"]),
        (["trainer.gradient_clip_val=-1"], ["gradient_clip_val=-1", "above 0"]),
        (["trainer.gradient_clip_val=much"], ["gradient_clip_val=much", "null"]),
        (["freeze=heads"], ["freeze=heads", "none, trunk or batch_norms"]),
        (["freeze=trunk", "init=scratch"], ["init=scratch", "init=baseline"]),
        (["freeze=batch_norms"], ["freeze=batch_norms", "the trunk has none"]),
        (["optimizer.trunk_lr=0"], ["optimizer.trunk_lr=0", "above 0"]),
        (["freeze=trunk", "weights.values=[0,1]"], ["freeze=trunk", "side exits"]),
        (["channels_last=maybe"], ["channels_last=maybe", "auto, true or false"]),
        (["compile=1"], ["compile=1", "auto, true or false"]),
    ],
)
def test_a_mistake_gets_one_line_and_costs_no_training(overrides, words, tmp_path, capsys):
    with pytest.raises(Exception) as caught:
        train_run(composed(f"cache={tmp_path}/cache", *overrides), tmp_path / "run")
    message = user_message(caught.value)
    assert message is not None, f"a traceback: {caught.value!r}"
    assert "\n" not in message and all(word in message for word in words), message
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_trainer_gpu_without_a_gpu_says_what_to_take(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(Exception) as caught:
        train_run(composed("trainer=gpu"), tmp_path)
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
    "page=false",
]


def test_init_says_what_the_joint_stage_starts_from(tmp_path, capsys):
    def start_of_joint(name, init, seed=0, *more):
        folder = tmp_path / name
        config = composed(f"cache={tmp_path}/cache", f"init={init}", f"seed={seed}", *STILL, *more)
        result = train_run(config, folder)
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
    from_trunk, _, _ = start_of_joint("trunk", tmp_path / "seed 1" / "checkpoints" / "baseline.pt")
    assert same(trunk(from_trunk), foreign)
    weights = f"model.weights='{tmp_path}/seed 1/checkpoints/baseline.pt'"
    from_file, used, _ = start_of_joint("pretrained", "pretrained", 0, weights)
    assert same(used, foreign) and same(trunk(from_file), foreign)
    assert not (tmp_path / "pretrained" / "checkpoints" / "baseline").exists(), (
        "nothing was trained in stage 1"
    )
    # No TensorBoard with logger=none, everything else all the same.
    names = {path.name for path in (tmp_path / "scratch").iterdir()}
    assert "result.json" in names and not any("tfevents" in name for name in names)


def test_fine_tuning_is_slow_in_the_trunk_and_leaves_its_batch_norms_alone(tmp_path, monkeypatch):
    """What both stages are told; what they make of it is training's."""

    def stages_of(*overrides):
        told = {}

        def fit(module, **_):
            told[module.stage] = (module.trunk_lr, len(module.fixed))
            if module.stage == "joint":
                raise InterruptedError
            return {}

        monkeypatch.setattr("branchynet.commands.train_run.fit", fit)
        small = ["model=b_resnet20_efficient", "model.trunk.depth=8", "model.trunk.in_channels=1"]
        with pytest.raises(InterruptedError):
            train_run(
                composed("cache=null", *small, *overrides), tmp_path / str(len(list(tmp_path.iterdir())))
            )
        return told

    torch.save(resnet_cifar(8, in_channels=1).state_dict(), tmp_path / "weights.pth")
    weights, fixed = f"model.weights={tmp_path}/weights.pth", "freeze=batch_norms"
    # One batch norm behind the first convolution, two in each of three blocks.
    assert stages_of(weights, fixed, "optimizer.trunk_lr=1e-4") == {"baseline": (1e-4, 7), "joint": (1e-4, 7)}
    assert stages_of(fixed) == {"baseline": (None, 0), "joint": (None, 7)}, "untrained ones are trained first"


def test_a_tree_is_trained_and_swept_and_leaves_as_predicted(tmp_path, monkeypatch):
    def timed(*medians):
        return tuple(Latency(median, 1.0) for median in medians)

    made_up = Latencies(*timed(100), timed(20, 30, 120), timed(20, 28, 100), timed(10, 10, 95))
    monkeypatch.setattr("branchynet.evaluation.evidence.measure_latencies", lambda *_: made_up)
    config = composed("cache=null", "model=b_lenet_tree", "data=digits", *STILL[1:])
    result = train_run(config, tmp_path / "run")
    assert len(result["exits"]) == 3 and len(result["knee"]["thresholds"]) == 2
    assert result["knee"]["measured"]["accuracy"] == result["knee"]["accuracy"]
    # By hand: what the inner exit shares with the end of the head is counted once.
    conv1, conv2 = 15 * 15 * 10 * 5 * 9, 8 * 8 * 20 * 10 * 9
    first, rest = conv1 + 640 * 10, conv2 + 320 * 10
    before = 30 * 30 * 5 * 25
    counted = [each["macs"] for each in result["exits"]]
    assert counted == [before + first, before + first + rest, result["baseline"]["macs"] + first + rest]
    assert [each["static_macs"] for each in result["exits"]][1] == before + conv1 + rest


def trunk(state):
    """A network's weights under the trunk's own names: without segments' and heads' numbers."""
    return {
        name.split(".", 3)[3]: value
        for name, value in state.items()
        if name.startswith(("network.segments.", "network.heads.1."))
    }


def same(first, second):
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def key_of():
    """A function from overrides (and other changes to the config) to the name of their baseline in the cache."""
    config = composed()
    data = build_data(config.data)
    network = build_network(config.model, data.input_shape, data.num_classes, config.seed)

    def key(*overrides, data=data, **changes):
        config = composed(*overrides)
        OmegaConf.set_struct(config, False)
        for name, value in changes.items():
            OmegaConf.update(config, name, value, merge=False)
        return cache_key(baseline_determinants(config, data, network))

    return key


# Of the schedule and the trainer, too: everything that stage 1 looks at.
MATTERS = [
    "seed=1",
    "model.trunk.init=he",
    "+model.trunk.own=1",
    "data.batch_size=32",
    "data.validation_size=100",
    "data.split_seed=1",
    "data.augment.flip=true",
    "data.loader=dataloader",
    "optimizer.lr=0.1",
    "optimizer.weight_decay=0",
    "schedule=none",
    "schedule.warmup=0.3",
    "epochs.baseline=31",
    "label_smoothing=0.1",
    "ema=0.9",
    "channels_last=false",
    "compile=true",
    "trainer.precision=bf16-mixed",
    "trainer.gradient_clip_val=1",
    # What nobody has thought of yet.
    "+own=1",
    "+own.deep.er=1",
    "+data.own=1",
    "+optimizer.own=1",
    "+epochs.own=1",
    "+model.own=1",
    "+trainer.own=1",
]


@pytest.mark.parametrize("override", MATTERS)
def test_a_baseline_trained_otherwise_is_another_one(override, key_of):
    assert key_of(override) != key_of()


@pytest.mark.parametrize("name", NOT_OF_BASELINE)
def test_what_the_baseline_does_not_depend_on_gets_it_from_the_cache(name, key_of):
    assert key_of(**{name: "another"}) == key_of(**{name: {"and": ["yet", "another"]}}) == key_of()


def test_whole_groups_that_the_baseline_does_not_depend_on(key_of):
    for override in (
        "weights=early",
        "criterion=margin",
        "sweep=paper",
        "engine=torch",
        "logger=none",
        "init=scratch",
    ):
        assert key_of(override) == key_of(), override
    assert key_of("model.exits.0.convs=[4]", "epochs.joint=1") == key_of()
    assert key_of("freeze=batch_norms") == key_of() == key_of("model.weights=x")
    assert key_of("freeze=batch_norms", "model.weights=x") != key_of(), "there they are fixed in stage 1, too"
    # The side exits of the same trunk.
    assert key_of("model=b_lenet_efficient") == key_of()


def test_calibration_images_leave_others_to_train_on(key_of):
    def key(calibration):
        return key_of(data=build_data(composed(f"data.calibration={calibration}").data))

    # 144 = 0.1 of 1,437: the same images by another name.
    assert key(0) == key_of() != key(143) != key(144) == key(0.1)


def test_auto_is_what_it_stands_for_here(key_of):
    """On the CPU, for so small a network: float32, not compiled."""
    assert key_of("compile=false") == key_of("compile=auto")
    assert key_of("trainer.precision=32-true") == key_of("trainer.precision=auto")
    assert key_of("channels_last=true") == key_of("channels_last=auto")


def test_other_images_and_versions_make_another_baseline(key_of, monkeypatch):
    config = composed("data.split_seed=1")
    own, other = key_of(), build_data(config.data)
    assert key_of(data=other) != own
    monkeypatch.setattr("branchynet.__version__", "0.0")
    assert key_of() != own


def test_another_trunk_under_the_same_settings_makes_another_baseline(key_of, monkeypatch):
    """A function of one's own, or a file of weights that it reads, may change."""
    own = key_of()
    monkeypatch.setattr("branchynet.runs.baseline_cache.digest_of_trunk", lambda network: "another")
    assert key_of() != own


@pytest.mark.parametrize("cache", ["null", "a_file"])
def test_a_cache_is_not_needed(cache, tmp_path, monkeypatch, caplog, capsys):
    """Nor one that cannot be written: the run keeps its own baseline."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    result = train_run(composed(f"cache={cache}", *STILL), tmp_path / "run")
    assert result["baseline"]["accuracy"] > 0
    assert (tmp_path / "run" / "checkpoints" / "baseline.pt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a_file"}
    assert ("cannot be written" in caplog.text) == (cache == "a_file")


def test_two_that_want_the_same_baseline_train_it_once(tmp_path, caplog):
    """The second waits, says so, and takes the first one's."""
    caplog.set_level("INFO")
    config = composed(f"cache={tmp_path}/cache", *STILL)
    data = build_data(config.data)
    trained, waits = [], Event()

    def stage(module, **arguments):
        trained.append(arguments["folder"].parents[1].name)
        assert waits.wait(30), "the other one does not wait"
        return {}

    # Before the threads, for the seed is all threads' own.
    networks = [
        build_network(config.model, data.input_shape, data.num_classes, config.seed) for _ in range(2)
    ]

    def run(name, network):
        train_baseline(config, tmp_path / name, network, data, stage, lambda: None)

    class Waiting(logging.Handler):
        def emit(self, record):
            if "waiting for" in record.getMessage():
                waits.set()

    handler = Waiting()
    logging.getLogger().addHandler(handler)
    try:
        with ThreadPoolExecutor() as both:
            list(both.map(run, ("first", "second"), networks))
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(trained) == 1 and "the baseline is taken from" in caplog.text
    states = [torch.load(tmp_path / name / "checkpoints" / "baseline.pt") for name in ("first", "second")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".pt", ".json"}, "no lock is left"


def test_a_run_does_not_go_on_with_other_images(copied):
    (copied / "result.json").unlink()
    facts = json.loads((copied / "data.json").read_text())
    (copied / "data.json").write_text(json.dumps({**facts, "fingerprint": "of others"}))
    config = OmegaConf.load(copied / ".hydra" / "config.yaml")
    with pytest.raises(UserError, match="the data set is another one"):
        train_run(config, copied)


def test_settings_without_some_of_them():
    settings = {"a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}}, "g": {"c": 5}, "h": [1]}
    assert without(settings, ("a", "b.c", "b.d.e", "g")) == {"b": {"d": {"f": 4}}, "h": [1]}
    assert without(settings, ()) == settings
    # Names that begin alike, names that are not there, and names below what is no mapping.
    assert without(settings, ("b.d.ee", "bb", "h.0", "a.x")) == settings


def test_what_is_known_of_a_cached_baseline_is_logged():
    calls = []
    logger = SimpleNamespace(
        log_metrics=lambda values, step: calls.append((values, step)), save=lambda: calls.append("saved")
    )
    log_baseline(
        [logger], {"baseline/loss": 0.25, "step": 7.0, "joint/loss": 1.0, "learning_rate/baseline": 0.1}
    )
    assert calls == [({"baseline/loss": 0.25, "learning_rate/baseline": 0.1}, 7), "saved"]
    log_baseline([logger], {})
    log_baseline([], {"baseline/val_loss": 0.25})
    assert len(calls) == 2


def test_where_tensorboard_is_pointed_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert log_folder(tmp_path / "outputs" / "name" / "run") == Path("outputs")
    assert log_folder(Path("outputs/name/run")) == Path("outputs")
    assert log_folder(tmp_path / "elsewhere" / "run") == tmp_path / "elsewhere" / "run"
    (tmp_path / "outputs" / "name").mkdir(parents=True)
    (tmp_path / "outputs" / "name" / "multirun.yaml").touch()
    assert log_folder(tmp_path / "outputs" / "name" / "run") == tmp_path / "outputs" / "name"


def test_a_finished_run_is_not_trained_again(finished, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(
        "branchynet.commands.train_run.build_data", lambda data: pytest.fail("it begins again")
    )
    config = OmegaConf.load(finished / ".hydra" / "config.yaml")
    assert train_run(config, finished) == json.loads((finished / "result.json").read_text())
    assert "this run is finished" in caplog.text


def test_another_network_teaches_and_is_looked_for_when_its_student_goes_on(finished, tmp_path, monkeypatch):
    teacher, run = Path(shutil.copytree(finished, tmp_path / "a, b=c")), tmp_path / "run"
    config = OmegaConf.load(teacher / ".hydra" / "config.yaml")
    config.objective = composed("objective=distilled").objective
    config.objective.teacher = str(teacher)
    config.epochs.joint, config.cache = 1, str(finished.parent / "cache")
    start_run(run, plain(config))
    assert read_config(run).objective.teacher == str(teacher)
    monkeypatch.setattr("branchynet.callbacks.threshold_sweep.ThresholdSweep.on_fit_end", lambda *_: None)
    for _ in range(2):  # the second time it goes on
        with pytest.raises(UserError, match="is not finished"):  # for the sweep has done nothing
            train_run(read_config(run), run)
        state = torch.load(run / "checkpoints" / "joint" / "last.ckpt", weights_only=True)
        assert {name.partition(".")[0] for name in state["state_dict"]} == {"network"}
    shutil.rmtree(teacher)
    with pytest.raises(UserError, match=r"^objective.teacher=.*a, b=c: .* there is no such folder or file$"):
        train_run(read_config(run), run)


def test_a_criterion_that_gives_no_uncertainty_costs_no_training(tmp_path, monkeypatch):
    monkeypatch.setattr("branchynet.exits.criteria.Entropy.forward", lambda self, logits: logits[:, 0] - 1e6)
    with pytest.raises(UserError, match=r"^the criterion entropy gives -\d.* at exit 1"):
        train_run(composed(f"cache={tmp_path}/cache"), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
