"""The paper's studies in conf/experiment/ablation/: each says what it asks, and every job of it can be built."""

import csv
import re
from itertools import product

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.commands.settings import check_settings
from branchynet.commands.train_run import train_run
from branchynet.runs.auto import resolved
from branchynet.runs.build import build_network, build_objective
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import start_run

ABLATIONS = sorted((conf_folder() / "experiment" / "ablation").glob("*.yaml"))
# Those that name their small form on embedded images.
FAST = {path.stem: found[1] for path in ABLATIONS if (found := re.search(r"Fast: (.*)", path.read_text()))}
DIGITS = (1, 28, 28)


def composed(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def jobs(params):
    """The combinations that Hydra's sweeper would make of its `params`: dotted names to values."""
    parsed = OverridesParser.create().parse_overrides([f"{name}={value}" for name, value in params.items()])
    values = [map(yaml.safe_load, each.sweep_string_iterator()) for each in parsed]
    return [
        dict(zip((each.key_or_group for each in parsed), chosen, strict=True)) for chosen in product(*values)
    ]


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_study_says_what_it_asks_how_and_what_came_of_it(path):
    text = path.read_text()
    for word in ("Question:", "Command:", "Result:", "Time:"):
        assert text.count(f"\n# {word} ") == 1, word
    assert f"experiment=ablation/{path.stem}" in text


def test_every_study_has_a_small_form():
    assert set(FAST) == {path.stem for path in ABLATIONS}


@pytest.mark.parametrize("name", FAST)
def test_every_job_of_the_small_form_can_be_built(name):
    words = [f"experiment=ablation/{name}", *FAST[name].split()]
    config = composed(*words)
    found = jobs(config.hydra.sweeper.params)
    assert len(found) > 1 and config.epochs.baseline == 2
    for job in found:
        groups = [f"{setting}={value}" for setting, value in job.items() if setting == "combine"]
        config = composed(*words, *groups)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        for setting, value in job.items():
            if setting != "combine":
                OmegaConf.update(config, setting, value)
        check_settings(settings := plain(config))
        model = resolved(settings["model"], DIGITS, 10)
        network = build_network(OmegaConf.create(model), DIGITS, 10, 0)
        assert network.places == tuple(exit["after"] for exit in model["exits"])
        build_objective(config, network.num_exits)  # as many weights as exits


@pytest.mark.usefixtures("undrawn")
def test_a_study_for_real_logs_gradients_of_both_stages(tmp_path):
    """The smallest of them: 40 images of 8×8, two of `gradients`' epochs in each stage."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (80, 8, 8), np.uint8), np.arange(80) % 2
    data = tmp_path / "arrays.npz"
    np.savez(data, x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    config = composed(
        "experiment=ablation/gradients",
        *("debug=fast", "data=arrays", f"data.path='{data}'", "data.validation_size=20", "cache=null"),
        *("model.trunk.depth=14", "weights.values=[1.0,1.0,1.0,1.0]", "trainer=cpu", "logger=csv"),
        *("engine=torch", "engine.compare=[]", "engine.seconds=0.01", "sweep.max_vectors=50", "page=false"),
    )
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    settings = plain(config)
    settings["model"] = resolved(settings["model"], (1, 8, 8), 2)
    run = tmp_path / "run"
    start_run(run, settings)
    result = train_run(OmegaConf.create(settings), run)
    assert len(result["exits"]) == 4
    with (run / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for stage in ("baseline", "joint"):
        for layer in ("conv1", "stage1.0.conv1", "stage1.0.conv2", "stage1.1.conv1", "trunk"):
            norms = [float(row[f"{stage}/gradient_norm/{layer}"] or 0) for row in rows]
            assert sum(norm > 0 for norm in norms) == 2, "one of each epoch"
