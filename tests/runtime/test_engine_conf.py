"""The config group engine: a file for every engine, and names that there are."""

import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.runtime.catalogue import ENGINES

FILES = {file.stem for file in (conf_folder() / "engine").iterdir()}


def test_there_is_a_file_for_every_engine():
    assert {*ENGINES, "default"} == FILES


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_a_file_chooses_its_engine(name):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=[f"engine={name}"]).engine
    assert set(config) == {"name", "threads", "seconds", "compare"}
    assert config.name == name and config.threads == 1 and config.seconds > 0
    assert set(config.compare) <= set(ENGINES) - {name}
