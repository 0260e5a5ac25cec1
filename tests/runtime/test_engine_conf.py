"""The config group engine: a file for every engine, and names that there are."""

from pathlib import Path

from omegaconf import OmegaConf

from branchynet.runtime.engine import ENGINES

CONF = Path(__file__).parents[2] / "conf" / "engine"


def test_there_is_a_file_for_every_engine():
    found = {file.stem: OmegaConf.load(file) for file in CONF.iterdir()}
    assert set(found) == set(ENGINES)
    for name, config in found.items():
        assert set(config) == {"name", "threads", "seconds", "compare"}
        assert config.name == name and config.threads == 1
        assert set(config.compare) <= set(ENGINES) - {name}
