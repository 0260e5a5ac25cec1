"""Opening a finished run: the same weights and numbers, mistakes in one line, and nobody else's code."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from damage import damage
from omegaconf import OmegaConf

from branchynet.errors import UserError
from branchynet.exits.certificate import Certificate
from branchynet.exits.criteria import Entropy, Margin
from branchynet.runs.finished_run import open_run
from branchynet.runs.result import write_result
from branchynet.runs.stored import read_criterion, write_criterion
from branchynet.runtime.catalogue import ENGINES


@torch.no_grad()
def test_the_network_gives_the_runs_own_trace(finished):
    run = open_run(finished)
    trace = np.load(finished / "trace-test.npz")
    x, y = next(run.data.batches("test", 10_000))
    logits = run.network(x)
    assert torch.equal(y, torch.from_numpy(trace["label"]))
    for n, (out, criterion) in enumerate(zip(logits, run.criteria, strict=True)):
        assert torch.equal(out.argmax(1), torch.from_numpy(trace["prediction"][:, n]))
        assert torch.allclose(criterion(out), torch.from_numpy(trace["uncertainty"][:, n]), atol=1e-6)
    accuracy = float((run.baseline.trunk()(x).argmax(1) == y).double().mean())
    assert accuracy == pytest.approx(run.result["baseline"]["accuracy"])
    # Stage 1 and the joint training end with other weights.
    assert not torch.equal(run.baseline.segments[0].conv1.weight, run.network.segments[0].conv1.weight)
    assert not run.network.training and not run.baseline.training


def test_images_below_the_folder_that_the_run_was_started_in_say_so(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run(finished)
    run.config.data["path"] = "mine"
    with pytest.raises(UserError, match=r"data\.path=mine, .* give data\.path=<where they are>"):
        _ = run.data
    run.look_for_images(None, "mine")
    with pytest.raises(UserError, match=f"path='{tmp_path}/mine' is for"):
        _ = run.data


def test_what_stands_in_the_result_is_at_hand(finished):
    run = open_run(str(finished))
    knee = json.loads((finished / "result.json").read_text())["knee"]
    assert list(run.thresholds) == knee["thresholds"] and run.criterion_name == knee["criterion"] == "entropy"
    assert [type(criterion) for criterion in run.criteria] == [Entropy, Entropy]
    assert run.backend is ENGINES["torch"]
    assert run.config.name == "b_lenet_digits"


def test_the_network_needs_no_data_set(copied, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the data set was read")

    monkeypatch.setattr("branchynet.data.module.load_dataset", refuse)
    run = open_run(copied)
    assert run.network.num_exits == 2
    assert run.facts.input_shape == (1, 28, 28) and run.facts.classes == tuple("0123456789")


def test_an_older_run_takes_the_facts_from_the_data_set(copied):
    left = open_run(copied).facts
    (copied / "data.json").unlink()
    assert open_run(copied).facts == left
    x = open_run(copied).data.images("train").double() / 255
    assert left.mean == pytest.approx([float(x.mean())], abs=1e-6)
    assert left.std == pytest.approx([float(x.std(correction=0))], abs=1e-6)


@pytest.mark.parametrize(
    ("file", "content", "use", "words"),
    [
        (".hydra/config.yaml", None, "config", ["no run", "config.yaml"]),
        (".hydra/config.yaml", "a: [1", "config", ["damaged"]),
        (".hydra/config.yaml", "[1, 2]", "config", ["damaged"]),
        (".hydra/config.yaml", "model:\n  trunk: ${nowhere}\ndata: 1", "config", ["damaged", "nowhere"]),
        ("result.json", None, "config", ["not finished", "train resume="]),
        ("result.json", "{", "config", ["result.json", "damaged"]),
        ("result.json", '{"knee": {"thresholds": ["?"]}}', "config", ["result.json", "damaged"]),
        ("data.json", '{"classes": []}', "facts", ["data.json", "delete it"]),
        ("data.json", "{", "network", ["data.json", "delete it"]),
        ("checkpoints/joint/best.ckpt", None, "network", ["best.ckpt", "train it again"]),
        ("checkpoints/joint/best.ckpt", "junk", "network", ["best.ckpt", "checkpoint"]),
        ("checkpoints/baseline.pt", None, "baseline", ["baseline.pt", "train it again"]),
        ("checkpoints/baseline.pt", "junk", "baseline", ["baseline.pt", "damaged"]),
        ("criterion.pt", None, "criteria", ["criterion.pt", "train it again"]),
        ("criterion.pt", "junk", "criteria", ["criterion.pt", "delete it"]),
    ],
)
def test_what_is_missing_or_damaged_is_said_in_one_sentence(file, content, use, words, copied):
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_text(content)
    with pytest.raises(UserError) as caught:
        getattr(open_run(copied), use)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "branchynet.networks.attach.torch.load",  # torch's, by a name that begins as ours
        "torchvision.models.WeightsEnum.get_state_dict",  # unpickles what an address gives
        "branchynet.nowhere",
        ["os", "mkdir"],
    ],
)
def test_settings_call_nobody_elses_code(target, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.model.trunk = {"_target_": target, "path": str(copied / "code has run")}
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match="trust=true"):
        open_run(copied)
    assert not (copied / "code has run").exists()
    assert open_run(copied, trust=True).thresholds


@pytest.mark.parametrize("target", ["torchvision.models.resnet18", "torch.optim.AdamW"])
def test_settings_may_call_what_is_known(target, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.model.trunk = {"_target_": target}
    OmegaConf.save(config, path)
    assert open_run(copied).config.model.trunk._target_ == target


NOT_FILES = (
    *(
        "result.json",
        "data.json",
        "criterion.pt",
        "trace-val.npz",
        "trace-test.npz",
        "baseline.npz",
        "costs.csv",
    ),
    *(".hydra/config.yaml", "checkpoints/joint/best.ckpt", "checkpoints/baseline.pt"),
)


@pytest.mark.parametrize("file", NOT_FILES)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge"])
def test_what_is_no_file_of_a_run_is_told_at_once(file, kind, copied):
    path = copied / file
    damage(path, kind)
    with pytest.raises(UserError) as caught:
        run = open_run(copied)
        _ = run.evidence, run.network, run.criteria, run.baseline
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_result_of_another_network_is_refused(copied, three_exits):
    write_result(copied / "result.json", three_exits)
    with pytest.raises(UserError, match=r"result\.json is of 3 exits, the network of the settings has 2"):
        _ = open_run(copied).network


@pytest.mark.parametrize(
    ("place", "value"),
    [("model.exits.0.convs", [10**9]), ("model.exits.0.convs", [10**15]), ("model.trunk.num_classes", 10**9)],
)
def test_a_network_that_its_weights_are_too_small_for_takes_no_memory(place, value, copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    OmegaConf.update(config, place, value)
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"best\.ckpt is smaller than the network|num_classes=10"):
        _ = open_run(copied).network


def changed_criterion(folder, **changes):
    """The run's criterion with other fields."""
    stored = read_criterion(folder / "criterion.pt")
    write_criterion(folder / "criterion.pt", replace(stored, **changes))


def test_what_was_evaluated_last_is_the_criterion_and_not_what_training_began_with(copied):
    changed_criterion(copied, settings={"_target_": "branchynet.exits.criteria.Margin"})
    run = open_run(copied)
    assert run.config.criterion._target_.endswith("Entropy")
    assert [type(criterion) for criterion in run.criteria] == [Margin, Margin]


def test_the_criterion_calls_nobody_elses_code(copied):
    """criterion.pt can be exchanged without the settings, and its settings are called as theirs are."""
    mine = copied / "code has run"
    changed_criterion(copied, settings={"_target_": "os.mkdir", "path": str(mine)})
    for use in ("stored_criterion", "criteria"):
        with pytest.raises(UserError, match=r"criterion\.pt would call os\.mkdir.*trust=true"):
            getattr(open_run(copied), use)
    assert not mine.exists()
    # Who trusts it has it called, and only then is it seen that it makes no criterion.
    with pytest.raises(UserError, match="it makes NoneType, where Criterion is wanted"):
        _ = open_run(copied, trust=True).criteria
    assert mine.exists()


def test_a_criterion_of_another_network_is_refused(copied):
    changed_criterion(copied, states=[{}])
    with pytest.raises(UserError, match=r"criterion\.pt is damaged: it is of 1 exits, the network has 2"):
        _ = open_run(copied).criteria
    changed_criterion(copied, states=[{}, {"mean": torch.zeros(3)}])
    with pytest.raises(UserError, match=r"criterion\.pt is of another criterion: 1 .* such as mean"):
        _ = open_run(copied).criteria


def test_an_engine_that_is_not_here_any_more_is_named(copied):
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps({**result, "engine": "abacus"}))
    with pytest.raises(UserError, match="evaluated on the engine abacus, which is not here: name another"):
        _ = open_run(copied).backend


def test_old_runs_leave_no_evidence_and_say_so_by_none(copied):
    assert open_run(copied).evidence is not None
    for name in ("criterion.pt", "baseline.npz", "data.json"):
        kept = (copied / name).read_bytes()
        (copied / name).unlink()
        assert open_run(copied).evidence is None
        (copied / name).write_bytes(kept)


def test_noisy_latencies_stay_noisy_and_older_runs_say_nothing_of_it(copied):
    result = json.loads((copied / "result.json").read_text())
    for noisy, expected in ((True, 1), (False, 0), (None, 0)):
        (copied / "result.json").write_text(json.dumps({**result, "noisy": noisy}))
        assert len(open_run(copied).evidence.noise) == expected
    del result["noisy"], result["noise"]
    (copied / "result.json").write_text(json.dumps(result))
    assert open_run(copied).evidence.noise == ()


def test_the_evidence_is_what_the_choice_was_made_from(finished):
    run = open_run(finished)
    evidence = run.evidence
    assert evidence.classes == tuple("0123456789")
    assert (evidence.machine, evidence.versions) == (run.result["machine"], run.result["versions"])
    for split in ("val", "test"):
        label = run.data.labels(split)
        assert torch.equal(evidence.traces[split].label, label)
        assert evidence.baseline_correct[split].shape == label.shape
    right = evidence.baseline_correct["test"].double().mean()
    assert float(right) == pytest.approx(run.result["baseline"]["accuracy"])
    assert evidence.macs.exits == tuple(each["macs"] for each in run.result["exits"])
    assert evidence.latencies["torch"].exits[0].median_us == 30.0


OLD = """\
model:
  name: b_lenet
  trunk: {_target_: branchynet.networks.lenet.lenet5, in_channels: 1, num_classes: 10}
  exits: [{after: conv1, convs: [10], pool: 2}]
data: {_target_: branchynet.data.module.ImageData, name: digits, seed: "${seed}"}
criterion: CRITERION
sweep:
  rule: {RULE}
  protocol: validation
name: b_lenet_digits
seed: 0
cache: "${oc.env:BRANCHYNET_CACHE,outputs/.baselines}"
"""


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("criterion", "rule", "words"),
    [
        ("{name: entropy}", "name: accuracy_floor, distance: 0.0", "criterion.name=entropy"),
        ("{_target_: branchynet.exits.criteria.Entropy}", "name: knee", "sweep.rule.name=knee"),
    ],
)
def test_a_run_of_branchynet_0_1_is_named_as_such(criterion, rule, words, trust, tmp_path):
    """Then criteria and rules had names instead of `_target_`, and stored settings had references."""
    text = OLD.replace("RULE", rule).replace("CRITERION", criterion)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"is of branchynet 0\.1, .*: train it again") as caught:
        open_run(tmp_path, trust)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_has_its_rules_promise(copied):
    assert open_run(copied).certificate is None
    result = json.loads((copied / "result.json").read_text())
    promise = Certificate("nothing is lost.", "harmful", 0.01, 0.1, 500, 0, 0.0, 0.0066, "last", 0, 0)
    result["knee"]["certificate"] = asdict(promise)
    (copied / "result.json").write_text(json.dumps(result))
    assert open_run(copied).certificate == promise
