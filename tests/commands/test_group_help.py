"""`--help <name>` prints what stands in conf/, comments and all."""

import pytest
import yaml

from branchynet.commands.app import conf_folder
from branchynet.commands.group_help import describe
from branchynet.errors import UserError

CONF = conf_folder()
GROUPS = sorted(
    {
        path.parent.relative_to(CONF).as_posix()
        for path in CONF.rglob("*/*.yaml")
        if not path.is_relative_to(CONF / "hydra")
    }
)


def shown(name, command="train", folders=(CONF,)):
    return describe(name, command, folders)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_with_all_its_options(group):
    text = shown(group)
    for path in (CONF / group).glob("*.yaml"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {path.stem} ")]
        assert len(line.split()) > 1, "it says what it is"
        assert path.read_text() in shown(f"{group}/{path.stem}")


def test_the_default_is_shown_with_its_comments():
    text = shown("optimizer")
    assert "By default optimizer=adamw" in text and (CONF / "optimizer" / "adamw.yaml").read_text() in text
    assert "By default sweep/rule=accuracy_floor" in shown("sweep/rule")
    assert "By default" not in shown("debug")


def test_an_option_has_what_it_is_built_on():
    assert (CONF / "data" / "default.yaml").read_text() in shown("data/mnist")


def test_a_setting_that_is_in_no_group():
    block = yaml.safe_load(shown("epochs"))
    assert block == {"epochs": yaml.safe_load((CONF / "train.yaml").read_text())["epochs"]}
    assert shown("epochs.joint") == shown("epochs") and "# stage 1" in shown("epochs")
    assert shown("format", "export").startswith("format: segments") and "# segments |" in shown(
        "format", "export"
    )


@pytest.mark.parametrize("name", ["nosuch", "data/nosuch", "hydra", "hydra/help", "defaults", "epoch"])
def test_what_there_is_not(name):
    with pytest.raises(
        UserError, match="there is no such group or setting; groups are callbacks, "
    ) as caught:
        shown(name)
    assert "\n" not in str(caught.value)


def test_a_setting_of_a_group_is_shown_with_its_group_and_a_slip_is_guessed():
    assert shown("trainer.devices") == shown("trainer")
    assert shown("optimized_metric").startswith("# What a job returns")
    with pytest.raises(UserError, match=r"did you mean data/mnist\?$"):
        shown("data/mnits")


def test_a_folder_of_ones_own(tmp_path):
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "mine.yaml").write_text("# Mine. And more.\n_target_: mine\n")
    assert "  mine             Mine\n" in shown("criterion", folders=(CONF, tmp_path))
    assert "_target_: mine" in shown("criterion/mine", folders=(CONF, tmp_path))
