"""The paper's studies in conf/experiment/ablation/: each says what it asks, and every job of it can be built."""

import re
from itertools import product

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.commands.settings import check_settings
from branchynet.runs.auto import resolved
from branchynet.runs.build import build_network, build_objective
from branchynet.runs.run_config import plain

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


def test_the_papers_studies_have_a_small_form():
    assert set(FAST) >= {
        "branch_weights",
        "branch_depth",
        "branch_place",
        "gradients",
        "threshold_sensitivity",
    }


@pytest.mark.parametrize("name", FAST)
def test_every_job_of_the_small_form_can_be_built(name):
    config = composed(f"experiment=ablation/{name}", *FAST[name].split())
    found = jobs(config.hydra.sweeper.params)
    assert len(found) > 1 and config.epochs.baseline == 2
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    for job in found:
        for setting, value in job.items():
            OmegaConf.update(config, setting, value)
        check_settings(settings := plain(config))
        model = resolved(settings["model"], DIGITS, 10)
        network = build_network(OmegaConf.create(model), DIGITS, 10, 0)
        assert network.places == tuple(exit["after"] for exit in model["exits"])
        build_objective(config, network.num_exits)  # as many weights as exits
