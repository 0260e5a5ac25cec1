"""Whose small networks stand beside a run's results."""

import pytest
import yaml
from omegaconf import OmegaConf

from branchynet.commands.app import conf_folder
from branchynet.commands.rivals import rivals_of
from branchynet.errors import UserError

POINT = {"name": "small", "macs": 1000, "accuracy": 0.5, "source": "its README"}


def test_those_of_the_settings():
    data = OmegaConf.create({"name": "cifar10", "rivals": [POINT]})
    assert [rival.name for rival in rivals_of(data)] == ["small"]
    assert rivals_of({"name": "cifar10", "rivals": []}) == ()


def test_a_run_that_is_older_than_them_has_those_of_its_images():
    found = rivals_of({"name": "cifar10"})
    published = yaml.safe_load((conf_folder() / "data" / "cifar10.yaml").read_text(encoding="utf-8"))[
        "rivals"
    ]
    assert [rival.macs for rival in found] == [each["macs"] for each in published]
    # As its source says: "resnet20 | 92.60 | … | 40.81".
    assert [(rival.accuracy, rival.macs) for rival in found if rival.name == "ResNet-20"] == [
        (0.926, 40_810_000)
    ]
    # Another set of images has none, and so has one that is none of ours, whatever its name says.
    assert rivals_of({"name": "digits"}) == rivals_of({"name": "../model/b_lenet"}) == rivals_of({}) == ()


def test_a_mistake_is_named_by_its_setting():
    with pytest.raises(UserError, match=r"^data\.rivals\.0\.accuracy=50"):
        rivals_of({"name": "cifar10", "rivals": [{**POINT, "accuracy": 50}]})
