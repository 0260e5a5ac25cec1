"""Nothing that came with someone else's checkpoint or run runs code: one door after the other."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder, user_message
from branchynet.commands.train import resume
from branchynet.commands.train_run import train_run
from branchynet.errors import UserError
from branchynet.runs.finished_run import open_run
from branchynet.runs.run_config import HARMLESS, KNOWN, check_places, check_targets, plain, read_config


def refuse(door, trace):
    """`door` fails with one line for the user, and no code has run."""
    with pytest.raises(Exception) as caught:
        door()
    message = user_message(caught.value)
    assert message is not None, f"a traceback: {caught.value!r}"
    assert "\n" not in message
    assert not trace.exists()
    return message


@pytest.mark.parametrize("file", ["checkpoints/joint/best.ckpt", "checkpoints/baseline.pt"])
def test_weights_of_a_run(file, copied, evil):
    write, trace = evil
    write(copied / file)
    use = "network" if "joint" in file else "baseline"
    assert file in refuse(lambda: getattr(open_run(copied), use), trace)


@pytest.mark.parametrize(
    "file", ["trace-val.npz", "trace-test.npz", "baseline.npz", "costs.csv", "data.json"]
)
def test_evidence_of_a_run(file, copied, evil):
    write, trace = evil
    write(copied / file)
    assert file in refuse(lambda: open_run(copied).evidence, trace)


def test_the_criterion_of_a_run(copied, evil):
    write, trace = evil
    write(copied / "criterion.pt")
    assert "criterion.pt" in refuse(lambda: open_run(copied).criteria, trace)


def test_objects_inside_an_archive(copied, evil):
    write, trace = evil
    path = copied / "trace-test.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "label": np.array([write.object], dtype=object)})
    assert "trace-test.npz" in refuse(lambda: open_run(copied).evidence, trace)


def test_init(copied, evil, tmp_path):
    write, trace = evil
    write(tmp_path / "theirs.ckpt")
    config = OmegaConf.load(copied / ".hydra" / "config.yaml")
    config.init = str(tmp_path / "theirs.ckpt")
    assert "theirs.ckpt" in refuse(lambda: train_run(config, tmp_path / "mine"), trace)
    # Before the first epoch, not after the baseline's last.
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("content", ["pickle", "junk", "bare weights"])
def test_resume(content, copied, evil):
    write, trace = evil
    (copied / "result.json").unlink()
    last = copied / "checkpoints" / "joint" / "last.ckpt"
    if content == "pickle":
        write(last)
    elif content == "junk":
        last.write_bytes(last.read_bytes()[:1000])
    else:
        torch.save(torch.load(last)["state_dict"], last)
    message = refuse(lambda: resume(copied), trace)
    assert "last.ckpt" in message and "delete it" in message


def test_settings_of_a_run_that_is_resumed(copied, evil):
    _, trace = evil
    (copied / "result.json").unlink()
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer = {"_target_": "os.mkdir", "path": str(trace)}
    OmegaConf.save(config, path)
    assert "os.mkdir" in refuse(lambda: resume(copied), trace)


def test_a_shared_baseline(copied, evil, tmp_path):
    """What is damaged in the cache is trained anew."""
    write, trace = evil
    config = OmegaConf.load(copied / ".hydra" / "config.yaml")
    config.cache = str(tmp_path / "cache")
    first = train_run(config, tmp_path / "first")
    (entry,) = (tmp_path / "cache").glob("*.pt")
    write(entry)
    second = train_run(config, tmp_path / "second")
    assert not trace.exists()
    assert first["baseline"]["accuracy"] == second["baseline"]["accuracy"]
    assert set(torch.load(entry)) == set(torch.load(tmp_path / "first" / "checkpoints" / "baseline.pt"))


PLACES = (
    *("criterion", "sweep.rule", "objective", "optimizer", "logger", "data", "trainer", "model.trunk"),
    *("model.exits.0.head", "engine", "engine.compare.0", "study", "study.deeper.0.still", "nobody.knows.it"),
)


@pytest.mark.parametrize("place", PLACES)
def test_a_target_is_found_wherever_it_stands(place):
    settings = {"_target_": "subprocess.run", "args": "true"}
    for step in reversed(place.split(".")):
        settings = [settings] if step == "0" else {step: settings}
    with pytest.raises(UserError, match=r"^some/file\.yaml would call subprocess\.run, .* trust=true$"):
        check_targets(settings, Path("some/file.yaml"))
    with pytest.raises(UserError, match="would call"):
        check_targets(OmegaConf.create(settings), Path("some/file.yaml"))


@pytest.mark.parametrize(
    "target",
    [
        "branchynet.data.module.ImageData.setup",  # a method: its `self` could come from the settings
        "branchynet.data.module.np.load",
        "branchynet.data.datasets.load_dataset",
        "branchynet.exits.criteria.copy.deepcopy",
        "branchynet.networks.weights.torch.load",
        "branchynet.networks.weights.load_network",
        "branchynet.networks.weights.read_checkpoint",
        "branchynet.networks.graph.places",
        "branchynet.training.stages.fit",
        "branchynet.training.module.BranchyClassifier",
        "branchynet.training.objective.exit_weights",
        "branchynet.exits.rules.first",
        "branchynet.exits.sweep.evaluate",
        "branchynet.runs.atomic.remove_leftovers",
        "torchvision.models.get_model",  # by a name: it would fetch the backbone of a detector
        "torchvision.models.list_models",
        "lightning.pytorch.loggers.WandbLogger",  # talks to a server
        "branchynet.networks.weights",  # a module
        "branchynet.runs.finished_run.open_run",
        "branchynet.api.load",
        "branchynet.networks.lenet.lenet5.__globals__",
        "lightning.pytorch.loggers.tensorboard.os.makedirs",
        "lightning.pytorch.Trainer",
        # They send what they get to an address, or write where they are told to.
        *("lightning.pytorch.loggers.MLFlowLogger", "lightning.pytorch.loggers.WandbLogger"),
        *("lightning.pytorch.callbacks.ModelCheckpoint", "lightning.pytorch.callbacks.LambdaCallback"),
        "torch.load",
        "torch.optim.Optimizer.load_state_dict",
        "torch.optim.nosuch",
        "torchvision.models",
        "builtins.exec",
        "",
        None,
        7,
    ],
)
def test_others_calls_and_those_that_only_begin_as_ours(target):
    with pytest.raises(UserError, match="would call"):
        check_targets({"model": {"trunk": {"_target_": target}}}, Path("config.yaml"))


@pytest.mark.parametrize(
    "target",
    [
        *(
            "branchynet.data.module.ImageData",
            "branchynet.networks.lenet.lenet5",
            "branchynet.exits.rules.Knee",
        ),
        *("branchynet.exits.criteria.Entropy", "branchynet.training.objective.Joint", "torch.optim.SGD"),
        "branchynet.training.distilled.Distilled",
        *("torchvision.models.resnet18", "lightning.pytorch.loggers.TensorBoardLogger"),
        *("branchynet.networks.alexnet.alexnet_cifar", "branchynet.networks.resnet.resnet_cifar"),
        *HARMLESS,
    ],
)
def test_what_conf_may_name_is_taken(target):
    check_targets({"any": [{"_target_": target}]}, Path("config.yaml"))


def test_what_is_not_looked_up_is_what_it_says_it_is():
    """Names that are known are trusted as they stand: so they have to be ours, or Lightning's."""
    for target in (*KNOWN, *HARMLESS):
        module, _, name = target.rpartition(".")
        found = getattr(import_module(module), name)
        assert isinstance(found, type) and f"{found.__module__}.{name}".startswith(module)


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("loggers.CSVLogger", "save_dir", "/etc"),
        ("loggers.TensorBoardLogger", "save_dir", "elsewhere"),
        ("loggers.TensorBoardLogger", "filename_suffix", "/../../x"),
        ("callbacks.EarlyStopping", "nobody", "knows"),
        ("callbacks.EarlyStopping", "monitor", {"_target_": "branchynet.exits.criteria.Entropy"}),
        ("callbacks.EarlyStopping", "_args_", [1]),
        ("callbacks.ModelSummary", "_partial_", True),
        ("callbacks.RichProgressBar", "console_kwargs", {}),
    ],
)
def test_loggers_and_callbacks_may_have_known_arguments_alone(target, key, value):
    part = {"_target_": f"lightning.pytorch.{target}", key: value}
    with pytest.raises(UserError, match=rf"would call .* with {key}=.*trust=true"):
        check_targets({"any": {"where": part}}, Path("config.yaml"))


def test_the_options_of_conf_are_harmless():
    for path in (*conf_folder().glob("callbacks/*.yaml"), *conf_folder().glob("logger/*.yaml")):
        settings = {"logger": OmegaConf.to_container(OmegaConf.load(path))}
        check_targets(settings, path)
        check_places(settings, path)


def test_a_target_by_way_of_a_reference():
    """Looked at as it would be called: with references resolved."""
    config = OmegaConf.create({"word": "os.mkdir", "a": {"_target_": "${word}"}})
    with pytest.raises(UserError, match=r"would call os\.mkdir"):
        check_targets(config, Path("config.yaml"))


def test_plain_values():
    config = OmegaConf.create({"a": [1, {"b": "${c}"}], "c": 3, "d": "\\${c}"})
    assert plain(config) == {"a": [1, {"b": 3}], "c": 3, "d": "${c}"}
    assert type(plain(config)["a"]) is list
    for value in (3, None, [1], {"a": "${c}"}):
        assert plain(value) is value


def test_settings_of_a_run_are_read_whole(finished):
    config = read_config(finished)
    assert config.name == "b_lenet_digits" and config.epochs.joint == 2
    assert config.label_smoothing == config.objective.label_smoothing == 0


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [
        ("rules.AccuracyFloor", "cost", "latency_us"),
        ("rules.Knee", "cost", "latency_us"),
        ("certified.Certified", "cost", "latency_us"),
        ("rules.LatencyBudget", "delta", None),
        ("rules.MacBudget", "delta", None),
    ],
)
def test_rules_of_older_runs_have_their_later_settings_too(rule, name, value, tmp_path):
    text = f"model: {{}}\ndata: {{}}\nsweep: {{rule: {{_target_: branchynet.exits.{rule}}}}}"
    found = read_config(stored(tmp_path, text)).sweep.rule
    assert name in found and found[name] == value


def stored(folder, text):
    """A run with these settings."""
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(text)
    return folder


LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'ha'}]" for n in range(12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {}\ndata: [", "damaged"),
        ("[1, 2]", "no settings of a run"),
        ("model: 3\ndata: {}", "no settings of a run"),
        ("model: {}", "no settings of a run"),
        ("model: {}\ndata: {}\nx: !!python/object/apply:os.mkdir [code]", "damaged"),
        # What would grow to gigabytes, or take hours to read.
        (f"model: {{}}\ndata: {{}}\n{LAUGHS}", "an alias"),
        ("model: {}\ndata: {}\nx: " + "a" * 1_000_001, "more than 1,000,000 bytes"),
        ("model: {}\ndata: {}\nx: " + "[" * 20_000, "damaged"),
        ("model: {}\ndata: {}\nx: " + "[" * 200 + "]" * 200, "more than 50 deep"),
        ("model: {}\ndata: {}\nx: &a [*a]", "an alias"),
        ('model: {}\ndata: {}\nx: "\\ud800"', "damaged"),
        # What would be looked up on the machine that reads it.
        ("model: {}\ndata: {}\nx: {y: [1, '${oc.env:HOME}']}", "x.y.1 is '\\${oc.env:HOME}'"),
        ("model: {}\ndata: {}\nx: {'${oc.env:HOME}': 1}", "plain values"),
        ("model: {}\ndata: {}\nx: a ${now:%Y} b", "plain values"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_damaged_settings_are_told_in_one_line(text, words, trust, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        read_config(stored(tmp_path, text), trust)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "code").exists()


def test_without_trust_nothing_reaches_out(copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.download, config.data.cache, config.cache = True, "/elsewhere", "/somewhere/else"
    OmegaConf.save(config, path)
    found = read_config(copied)
    assert (found.data.download, found.data.cache, found.cache) == (False, None, None)
    found = read_config(copied, trust=True)
    assert (found.data.download, found.data.cache, found.cache) == (True, "/elsewhere", "/somewhere/else")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logger": {"name": "/etc"}}, r"would write elsewhere, logger\.name=/etc"),
        ({"logger": {"csv": {"name": "../x"}}}, r"would write elsewhere, logger\.csv\.name=\.\./x"),
        ({"logger": {"version": "../../x"}}, r"would write elsewhere, logger\.version"),
        ({"logger": {"sub_dir": "a/../../x"}}, r"would write elsewhere, logger\.sub_dir"),
        (
            {"model": {"trunk": {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}}},
            "fetch weights",
        ),
        (
            {"model": {"trunk": {"_target_": "torchvision.models.resnet18", "pretrained": True}}},
            "fetch weights",
        ),
        (
            {"model": {"trunk": {"_target_": "torchvision.models.vgg11", "weights_backbone": "V1"}}},
            "fetch weights",
        ),
        ({"model": {"trunk": {"_target_": "torchvision.models.detection.ssd300_vgg16"}}}, "fetch weights"),
    ],
)
def test_places_elsewhere_ask_for_trust(change, words):
    with pytest.raises(UserError, match=f"{words}.*trust=true"):
        check_places(change, Path("config.yaml"))


def test_places_in_the_run_do_not():
    check_places({"logger": None}, Path("config.yaml"))
    check_places({"logger": {"name": "", "version": "", "sub_dir": None}}, Path("config.yaml"))
    trunk = {"_target_": "torchvision.models.resnet18", "weights": None, "num_classes": 10}
    check_places({"model": {"trunk": trunk}}, Path("config.yaml"))


def test_settings_that_are_no_file_are_told_at_once(tmp_path):
    path = tmp_path / ".hydra" / "config.yaml"
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="a folder"):
        read_config(tmp_path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        read_config(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="no regular file"):
        read_config(tmp_path)
