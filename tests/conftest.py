"""One tiny finished run for all tests of the commands that use one. Copy it before changing it."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.commands.train_run import train_run
from branchynet.runtime.costs import Latencies, Latency

TINY = [
    "experiment=b_lenet_digits",
    "trainer=cpu",
    "epochs.baseline=1",
    "epochs.joint=2",
    "schedule=none",
    "engine=torch",
    "engine.compare=[]",
    "engine.seconds=0.01",
    "logger=none",
]


def make_run(folder, *overrides):
    """Train as the command does, with the settings beside the run."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=[*TINY, f"cache={folder.parent}/cache", *overrides])
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    execute(config, folder)
    return folder


def fixed_latencies(*arguments):
    """Leaving at exit 1 is fast, however busy the machine is: what is chosen must not depend on it."""

    def timed(*medians):
        return tuple(Latency(median, median / 10, 100) for median in medians)

    return Latencies(*timed(100.0), timed(30.0, 120.0), timed(25.0, 101.0), timed(20.0, 95.0))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run's folder, its latencies made up; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("branchynet.callbacks.evaluation.measure_latencies", fixed_latencies)
        return make_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def evil(tmp_path):
    """A function that writes a pickle of its `object` into a file, and the path that loading it makes."""
    trace = tmp_path / "code has run"

    def write(path):
        path.write_bytes(pickle.dumps({"state_dict": write.object}))

    write.object = Evil(trace)
    # The trap works: what loads pickles carelessly falls into it.
    write(tmp_path / "bait")
    pickle.loads((tmp_path / "bait").read_bytes())
    assert trace.exists()
    trace.rmdir()
    return write, trace
