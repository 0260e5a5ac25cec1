"""`branchynet train` from the command line to the files of a run, on the embedded digits."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import child
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from branchynet.commands.app import conf_folder
from branchynet.commands.train import at_work, check_folder, main, name_teachers_model, resume
from branchynet.errors import UserError

# Small enough for seconds, and no settings that change with the machine's load.
FAST = [
    "experiment=b_lenet_digits",
    "epochs.baseline=2",
    "epochs.joint=3",
    "schedule=none",
    "engine.seconds=0.01",
    "trainer=cpu",
]


def start(*arguments, cwd):
    # Whoever starts the tests in the background may have told them to ignore Ctrl-C, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _started(*arguments, cwd=cwd)
    finally:
        signal.signal(signal.SIGINT, before)


def _started(*arguments, cwd):
    environment = {**os.environ, "BRANCHYNET_CACHE": str(Path(cwd) / "cache"), "PYTHONWARNINGS": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "branchynet", "train", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(*arguments, cwd):
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


# A number, and what is swept.
JOBS = ("0-sweep_rule=accuracy_floor", "1-sweep_rule=knee")


@pytest.fixture(scope="module")
def multirun(tmp_path_factory):
    """Two jobs that differ in the rule: one baseline, two joint trainings."""
    cwd = tmp_path_factory.mktemp("multirun")
    swept = ["weights=equal", "sweep/rule=accuracy_floor,knee"]
    done = train("-m", *FAST, *swept, "hydra.sweep.dir=sweep", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


@pytest.fixture(scope="module")
def run(multirun):
    return multirun[0] / "sweep" / JOBS[0]


KEYS = {
    "": (
        "baseline criterion_quality engine exits experiment headroom knee machine noise noisy overhead_to_the_end "
        "protocol recall seed threads validation versions"
    ),
    "baseline": "accuracy balanced_accuracy interval latency_us macs",
    "exits.0": "accuracy balanced_accuracy interval latency_us macs static_latency_us static_macs",
    "knee": (
        "accuracy balanced_accuracy criterion exit_rates gain_latency gain_macs gain_over_static "
        "gain_trunk_only intervals latency_us macs measured rule thresholds"
    ),
    "knee.measured": "accuracy gain_latency latency_us",
    "validation": "accuracy baseline_accuracy gain_at_no_loss gain_latency gain_macs intervals",
    "headroom": "auroc perfect_confidence perfect_knowledge",
    "overhead_to_the_end": "latency macs",
}


def test_a_run_leaves_what_the_design_says(run):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        ".hydra/config.yaml",
        "checkpoints/baseline.pt",
        "checkpoints/joint/best.ckpt",
        "checkpoints/joint/last.ckpt",
        "trace-val.npz",
        "trace-test.npz",
        "sweep.csv",
        "trade_offs.csv",
        "costs.csv",
        "baseline.npz",
        "criterion.pt",
        "data.json",
        "report.md",
        "report.html",
        "result.json",
        "figures/trade_off.png",
    } <= names
    # At the root, one a stage: so `tensorboard --logdir outputs` has one entry per run.
    assert {Path(name).parent for name in names if "tfevents" in name} == {Path(".")}


def test_result_json_has_the_stable_form(run):
    result = json.loads((run / "result.json").read_text())
    for path, keys in KEYS.items():
        node = result
        for step in path.split(".") if path else []:
            node = node[int(step)] if step.isdigit() else node[step]
        assert sorted(node) == sorted(keys.split()), path
    assert (result["experiment"], result["protocol"]) == ("b_lenet_digits", "validation")
    assert (result["engine"], result["threads"]) == ("onnxruntime", 1)


def test_result_json_follows_from_the_traces(run):
    """Every number of the operating point, computed again by a slow loop over the stored test trace."""
    result = json.loads((run / "result.json").read_text())
    trace = np.load(run / "trace-test.npz")
    knee, exits = result["knee"], result["exits"]
    threshold = np.float32(knee["thresholds"][0])
    left = [0 if u[0] < threshold else 1 for u in trace["uncertainty"]]
    right = [p[n] == y for p, n, y in zip(trace["prediction"], left, trace["label"], strict=True)]
    rates = [left.count(0) / len(left), left.count(1) / len(left)]
    assert knee["exit_rates"] == pytest.approx(rates)
    assert knee["accuracy"] == pytest.approx(np.mean(right)) == knee["measured"]["accuracy"]
    for cost in ("macs", "latency_us"):
        assert knee[cost] == pytest.approx(sum(r * e[cost] for r, e in zip(rates, exits, strict=True)))
    assert knee["gain_macs"] == pytest.approx(result["baseline"]["macs"] / knee["macs"])
    assert knee["gain_latency"] == pytest.approx(result["baseline"]["latency_us"] / knee["latency_us"])
    assert [e["accuracy"] for e in exits] == pytest.approx(
        list((trace["prediction"] == trace["label"][:, None]).mean(axis=0))
    )
    # B-LeNet's, from its layers by hand: conv 1; head; the rest.
    conv1, head = 30 * 30 * 25 * 5, 15 * 15 * 9 * 5 * 10 + 640 * 10
    assert exits[0]["macs"] == conv1 + head
    assert exits[1]["macs"] == result["baseline"]["macs"] + head


def test_the_choice_is_the_fastest_on_validation_that_is_as_good_as_the_baseline(run):
    rows = list(csv.DictReader((run / "sweep.csv").read_text().splitlines()))
    chosen = [row for row in rows if row["knee"] == "1"]
    assert len(chosen) == 1
    best = max(float(row["val_accuracy"]) for row in rows)
    floor = min(float(chosen[0]["val_accuracy"]), best)
    for row in rows:
        if float(row["val_accuracy"]) >= floor:
            assert float(row["val_latency_us"]) >= float(chosen[0]["val_latency_us"]) - 1e-9


def test_one_process_at_a_time_trains_a_run(tmp_path):
    with at_work(tmp_path):
        with pytest.raises(UserError, match="another process trains this run"), at_work(tmp_path):
            pass
        assert (tmp_path / ".lock").exists(), "who was refused takes nothing away"
    assert not list(tmp_path.iterdir())


def test_the_baseline_of_a_multirun_is_trained_once_and_shared(multirun):
    cwd, done = multirun
    first, second = (cwd / "sweep" / job for job in JOBS)
    assert done.stdout.count("the baseline is taken from") == 1
    assert len(list((cwd / "cache").glob("*.pt"))) == 1
    states = [torch.load(folder / "checkpoints" / "baseline.pt") for folder in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    results = [json.loads((folder / "result.json").read_text()) for folder in (first, second)]
    assert results[0]["baseline"]["accuracy"] == results[1]["baseline"]["accuracy"]
    assert not (second / "checkpoints" / "baseline").exists()
    # How the shared one ended stands in both runs, at one step: so none is missing where runs are compared.
    runs = [events_of(folder) for folder in (first, second)]
    own, shared = ({tag for tag in events.Tags()["scalars"] if "baseline" in tag} for events in runs)
    assert own == shared
    for tag in ("baseline/val_accuracy_exit_2", "learning_rate/baseline"):
        ends = [events.Scalars(tag)[-1] for events in runs]
        assert (ends[0].step, ends[0].value) == (ends[1].step, ends[1].value)


def events_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_tensorboards_event_file_holds_the_operating_point_the_curves_and_the_figures(run):
    events = events_of(run)
    tags = events.Tags()
    result = json.loads((run / "result.json").read_text())
    for tag, value in {
        "operating_point/accuracy": result["knee"]["accuracy"],
        "operating_point/latency_us": result["knee"]["latency_us"],
        "operating_point/gain_latency": result["knee"]["gain_latency"],
        "operating_point/gain_macs": result["knee"]["gain_macs"],
        "operating_point/exit_rate_1": result["knee"]["exit_rates"][0],
        "baseline/accuracy": result["baseline"]["accuracy"],
    }.items():
        scalars = events.Scalars(tag)
        assert len(scalars) == 1 and scalars[0].value == pytest.approx(value, rel=1e-6), tag
    assert len(events.Scalars("joint/val_accuracy_exit_1")) == 3
    assert [event.value for event in events.Scalars("learning_rate/joint")] == pytest.approx([0.003] * 3)
    assert "sweep/trade_off" in tags["images"]
    (settings,) = events.Tensors("settings/text_summary")
    assert "\n      lr: 0.003\n" in settings.tensor_proto.string_val[0].decode()
    assert any("hparams" in tag for tag in events.summary_metadata) or "_hparams_/session_start_info" in str(
        tags
    )


def test_the_table_the_figure_and_the_command_to_type_stand_at_the_end(multirun):
    _, done = multirun
    last = done.stdout[done.stdout.rindex("operating point, predicted") :]
    assert "operating point, measured" in last
    assert "trade_off.png" in last and "tensorboard --logdir" in last
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["baseline", "joint"])
def test_a_killed_run_resumes_to_the_same_weights(stage, run, tmp_path):
    # What it measures with and shows makes no difference.
    others = ["engine=torch", "engine.compare=[]", "page=false"]
    process = start(*FAST, *others, "weights=equal", "hydra.run.dir=killed", cwd=tmp_path)
    folder = tmp_path / "killed"
    wait_for(folder / "checkpoints" / stage / "last.ckpt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    config = (folder / ".hydra" / "config.yaml").read_text()

    done = child.call(["train", f"resume={folder}"], tmp_path)
    assert done.code == 0, done.err
    assert (folder / ".hydra" / "config.yaml").read_text() == config
    for name in ("baseline.pt", "joint/best.ckpt", "joint/last.ckpt"):
        states = [torch.load(place / "checkpoints" / name) for place in (run, folder)]
        states = [state.get("state_dict", state) for state in states]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name
    results = [json.loads((place / "result.json").read_text()) for place in (run, folder)]
    assert [e["accuracy"] for e in results[0]["exits"]] == [e["accuracy"] for e in results[1]["exits"]]

    again = child.call(["train", f"resume={folder}"], tmp_path)
    assert again.code == 0 and "finished" in again.out
    assert json.loads((folder / "result.json").read_text()) == results[1]


def test_a_study_of_finished_runs_is_not_trained(monkeypatch):
    monkeypatch.setattr("branchynet.commands.app.start", lambda *given: pytest.fail("it began"))
    monkeypatch.setattr(sys, "argv", ["branchynet train", "experiment=thresholds/rules"])
    with pytest.raises(UserError, match=r"evaluate run=<run folder> experiment=thresholds/rules"):
        main()


def typed(monkeypatch, *arguments):
    """Call `main` with these, and return what `resume` gets."""
    resumed = []
    monkeypatch.setattr("branchynet.commands.train.resume", lambda *given: resumed.append(given))
    monkeypatch.setattr(sys, "argv", ["branchynet train", *arguments])
    main()
    return resumed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["resume=a,b=[c]/it's"], ("a,b=[c]/it's", False)),
        (["resume=run", "trust=True"], ("run", True)),
        (["trust=true", "resume=run"], ("run", True)),
        (["resume=run", "trust=FALSE"], ("run", False)),
        (["resume=2024"], ("2024", False)),
    ],
)
def test_resume_takes_a_folder_and_trust(arguments, expected, monkeypatch):
    folder, trust = expected
    assert typed(monkeypatch, *arguments) == [(Path(folder), trust)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume=run", "seed=1", "weights=early"], "leave out seed, weights"),
        (["resume=run", "trust=perhaps"], "trust=perhaps: it is true or false"),
        (["resume=run", "trust=1"], "trust=1: it is true or false"),
    ],
)
def test_resume_takes_nothing_else(arguments, words, monkeypatch):
    with pytest.raises(UserError, match=words):
        typed(monkeypatch, *arguments)


def test_a_teachers_model_goes_by_its_name_and_is_stored_as_it_is():
    objective = {"teacher": "a.ckpt", "teacher_model": "b_lenet"}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        name_teachers_model(objective)
        expected = OmegaConf.to_container(compose("train", overrides=["model=b_lenet"]).model)
        assert objective["teacher_model"] == expected and {"trunk", "exits"} <= expected.keys()
        name_teachers_model(objective)
        assert objective == {"teacher": "a.ckpt", "teacher_model": expected}
        with pytest.raises(
            UserError, match=r"^objective.teacher_model=lenet: it is one of the models b_alexnet, "
        ):
            name_teachers_model({"teacher_model": "lenet"})
    name_teachers_model({"share": 0.5})  # an objective of others need not have it


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        UserError, match=r"file/run cannot be written \(Not a directory\).*hydra.run.dir=<folder>"
    ):
        check_folder(tmp_path / "file" / "run")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "result.json").write_text("{}")
    check_folder(tmp_path / "done")


def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = start(*FAST, "epochs.baseline=500", "hydra.run.dir=stopped", cwd=tmp_path)
    wait_for(tmp_path / "stopped" / "checkpoints" / "baseline" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()  # nothing where it has ended
    assert process.returncode == 130
    assert "resume=" in err.splitlines()[-1] and "stopped" in err.splitlines()[-1] and "Traceback" not in err


def test_two_processes_leave_one_run_and_report_once(tmp_path):
    """Killed and resumed, too."""
    settings = [
        *FAST,
        "epochs.baseline=1",
        "epochs.joint=2",
        "engine=torch",
        "engine.compare=[]",
        "page=false",
    ]
    process = start(*settings, "trainer.accelerator=cpu", "trainer.devices=2", cwd=tmp_path)
    (outputs := tmp_path / "outputs" / "b_lenet_digits").mkdir(parents=True)
    while not list(outputs.iterdir()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (folder,) = outputs.iterdir()
    wait_for(folder / "checkpoints" / "baseline" / "last.ckpt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # until the other processes have ended, too
    assert not (folder / "result.json").exists()

    done = train(f"resume={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("operating point, measured") == 1
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs", "cache"}
    assert list(outputs.iterdir()) == [folder]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {".hydra/config.yaml", "result.json", "report.md", "figures/trade_off.png"} <= names
    assert sum("tfevents" in name for name in names) in (2, 3)  # one a stage, and one since it was resumed

    # What the other processes trained has come back, and the sweep is of the best joint weights.
    baseline = torch.load(folder / "checkpoints" / "baseline.pt")
    best = torch.load(folder / "checkpoints" / "baseline" / "best.ckpt")["state_dict"]
    assert torch.equal(baseline["conv1.weight"], best["network.segments.0.conv1.weight"])
    events = EventAccumulator(str(folder))
    events.Reload()
    curve = [event.value for event in events.Scalars("joint/val_accuracy")]
    trace = np.load(folder / "trace-val.npz")
    exits = (trace["prediction"] == trace["label"][:, None]).mean(axis=0)
    assert len(curve) == 2 and max(curve) == pytest.approx(exits.mean(), abs=1e-6)


CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
# What the lines of the HParams tab are made of, asked for as the tab does: its table shows a few columns at first.
LINES = """async () => {
    const allowedStatuses = ['STATUS_UNKNOWN', 'STATUS_SUCCESS', 'STATUS_FAILURE', 'STATUS_RUNNING'];
    const asked = {experimentName: '', allowedStatuses, colParams: [], startIndex: 0, sliceSize: 100};
    const answer = await fetch('data/plugin/hparams/session_groups', {
        method: 'POST', body: JSON.stringify(asked), headers: {'Content-Type': 'application/json'}});
    return ((await answer.json()).sessionGroups ?? []).map(line => [
        line.name, Object.fromEntries((line.metricValues ?? []).map(each => [each.name.tag, each.value]))]);
}"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_tensorboard_shows_all_jobs_in_a_browser(multirun):
    """Runs by name, curves, figures; and in HParams a line for every job with all of its numbers, also those of a
    baseline from the cache."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, _, port = address.partition(":")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "sweep", "--host", host, "--port", port]
    server = subprocess.Popen(command, cwd=multirun[0], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(60_000)
            for _ in range(120):
                try:
                    page.goto(f"http://{address}/#hparams", wait_until="domcontentloaded")
                    break
                except Exception:  # not up yet: the connection is refused
                    time.sleep(0.5)
            # TensorBoard reads one run after another, and a tab shows those that it had read by then.
            for _ in range(120):
                lines = dict(page.evaluate(LINES))
                if len(lines) == len(JOBS) and all(
                    "operating_point/accuracy" in each for each in lines.values()
                ):
                    break
                time.sleep(0.5)
            assert sorted(lines) == list(JOBS)
            wanted = {"baseline/accuracy", "baseline/val_accuracy", "joint/val_accuracy_exit_1"}
            wanted |= {"operating_point/gain_macs", "recall/0", "recall_last_exit/9"}
            for name, values in lines.items():
                assert wanted <= values.keys() and len(values) > 70, name
            # A column per setting and final metric, a line per job.
            page.reload(wait_until="domcontentloaded")
            for text in ("batch_size", "weights", "operating_point/accuracy", *JOBS):
                page.get_by_text(text, exact=True).first.wait_for()

            page.goto(f"http://{address}/#scalars", wait_until="domcontentloaded")
            page.reload(wait_until="domcontentloaded")
            for text in (*JOBS, "baseline/accuracy", "baseline/val_accuracy"):
                page.get_by_text(text, exact=True).first.wait_for()
            page.goto(f"http://{address}/#images", wait_until="domcontentloaded")
            page.reload(wait_until="domcontentloaded")
            page.get_by_text("sweep/confusion").first.wait_for()
            browser.close()
    finally:
        server.terminate()
        server.wait()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", ["", "{", "{}", None])
def test_a_damaged_result_is_neither_taken_for_one_nor_lost(content, copied):
    path = copied / "result.json"
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(content)
    (copied / ".report.md.17.tmp").touch()
    before = contents(copied)
    with pytest.raises(
        UserError, match=r"result\.json is damaged .*move it away, and `branchynet train resume="
    ):
        resume(copied)
    assert contents(copied) == before


def test_as_it_is_told_a_damaged_result_is_made_again(copied, monkeypatch, capsys):
    """From the checkpoints: nothing is trained."""
    before = json.loads((copied / "result.json").read_text())
    (copied / "result.json").rename(copied / "damaged.json")
    (copied / ".report.md.17.tmp").touch()
    refuse = lambda *arguments: pytest.fail("it is trained again")  # noqa: E731
    monkeypatch.setattr("branchynet.training.module.BranchyClassifier.training_step", refuse)
    found = resume(copied)
    assert [exit["accuracy"] for exit in found["exits"]] == [exit["accuracy"] for exit in before["exits"]]
    assert not (copied / ".report.md.17.tmp").exists(), "what a killed writer has left"


def test_a_run_with_a_link_out_of_it_is_not_gone_on_with(copied, tmp_path, monkeypatch):
    (copied / "result.json").unlink()
    (tmp_path / "theirs").write_text("theirs")
    (copied / "hparams.yaml").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr("branchynet.commands.train_run.train_run", lambda config, folder, data: folder)
    with pytest.raises(UserError, match=r"hparams\.yaml is a link to .*theirs"):
        resume(copied)
    assert resume(copied, trust=True) == copied


@pytest.mark.parametrize(
    ("group", "value"),
    [("epochs", 3), ("sweep", None), ("engine", [1]), ("trainer", "cpu"), ("schedule", None)],
)
def test_settings_of_another_form_are_told_in_one_line(group, value, copied):
    (copied / "result.json").unlink()
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    OmegaConf.update(config, group, value, merge=False)
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=f"^the settings of the run .* are damaged: {group}"):
        resume(copied)
