"""What `auto` stands for, from the images."""

import pytest

from branchynet.errors import UserError
from branchynet.runs.auto import resolved, trunk_settings, wants_images

LENET = {
    "_target_": "branchynet.networks.lenet.lenet5",
    "in_channels": "auto",
    "num_classes": "auto",
    "size": "auto",
}


def test_sizes_channels_classes_and_exits():
    model = {"name": "x", "trunk": LENET, "exits": {"count": 2}}
    assert wants_images(model)
    found = resolved(model, (3, 20, 20), 7)
    assert found["trunk"] == {**LENET, "in_channels": 3, "num_classes": 7, "size": 20}
    assert len(found["exits"]) == 2 and not wants_images(found) and model["exits"] == {"count": 2}
    assert resolved(found, (3, 20, 20), 7) == found


def test_mistakes():
    with pytest.raises(UserError, match=r"model\.trunk\.init=auto: that is known of"):
        trunk_settings({**LENET, "init": "auto"}, (1, 28, 28), 10)
    with pytest.raises(UserError, match="28×30, not of equal sides"):
        trunk_settings(LENET, (1, 28, 30), 10)
    with pytest.raises(UserError, match=r"model\.exits\.at="):
        resolved({"name": "x", "trunk": LENET, "exits": {"at": [2]}}, (1, 28, 28), 10)
