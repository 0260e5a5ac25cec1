"""What a run was started with: written once, plain, and never replaced by other settings."""

import pytest
import yaml

from branchynet.errors import UserError
from branchynet.runs.run_config import ONE_CLASS, SEPARATE
from branchynet.runs.started_run import forget_run, start_run

SETTINGS = {
    "model": {"name": "a", "exits": [1, 2]},
    "data": {"root": "/x"},
    "combine": SEPARATE,
    "task": ONE_CLASS,
    "seed": 0,
    "cache": "/here",
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_settings_are_written_as_they_are(tmp_path):
    start_run(tmp_path, SETTINGS, ["seed=0"])
    assert yaml.safe_load((tmp_path / ".hydra" / "config.yaml").read_text()) == SETTINGS
    assert yaml.safe_load((tmp_path / ".hydra" / "overrides.yaml").read_text()) == ["seed=0"]


def test_equal_settings_are_fine_wherever_the_cache_is(tmp_path):
    start_run(tmp_path, SETTINGS)
    (tmp_path / "data.json").write_text("{}")
    before = files(tmp_path)
    start_run(tmp_path, {**SETTINGS, "cache": "/elsewhere"})
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 7}, "seed"),
        ({"model": {"name": "b", "exits": [1, 2]}}, "model.name"),
        ({"model": {"name": "a", "exits": [1]}}, "model.exits"),
        ({"more": 1}, "more"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(changed, name, tmp_path):
    start_run(tmp_path, SETTINGS)
    (tmp_path / "data.json").write_text("{}")
    before = files(tmp_path)
    with pytest.raises(UserError, match="other settings") as caught:
        start_run(tmp_path, {**SETTINGS, **changed})
    assert f"({name})" in str(caught.value) and "\n" not in str(caught.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize("begun", ["data.json", "checkpoints", "result.json"])
def test_settings_of_a_run_that_never_began_may_be_corrected(begun, tmp_path):
    start_run(tmp_path, {**SETTINGS, "seed": 7}, ["seed=7"])
    start_run(tmp_path, SETTINGS)
    assert yaml.safe_load((tmp_path / ".hydra" / "config.yaml").read_text()) == SETTINGS
    assert yaml.safe_load((tmp_path / ".hydra" / "overrides.yaml").read_text()) == []
    (tmp_path / begun).mkdir()
    with pytest.raises(UserError, match="other settings"):
        start_run(tmp_path, {**SETTINGS, "seed": 7})


def test_a_run_that_never_began_is_forgotten(tmp_path):
    start_run(tmp_path, SETTINGS, ["seed=0"])
    forget_run(tmp_path)
    assert not list(tmp_path.iterdir())
    start_run(tmp_path, SETTINGS)
    (tmp_path / "data.json").write_text("{}")
    before = files(tmp_path)
    forget_run(tmp_path)
    assert files(tmp_path) == before


def test_a_folder_that_looks_like_an_address_is_refused(tmp_path):
    with pytest.raises(UserError, match="::"):
        start_run(tmp_path / "notes::v2", SETTINGS)
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_read_again_is_not_stored(tmp_path):
    with pytest.raises(UserError, match=r"^data\.root=a\$\{b\}: a setting may not have"):
        start_run(tmp_path / "run", {**SETTINGS, "data": {"root": "a${b}"}})
    assert not (tmp_path / "run").exists()


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "trace-val.npz").write_text("half")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / ".a.png.12.tmp").write_text("half")
    (tmp_path / "notes.tmp").write_text("not ours")
    start_run(tmp_path, SETTINGS)
    assert not (tmp_path / ".writing-abc").exists()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == []
    assert (tmp_path / "notes.tmp").exists()


@pytest.mark.parametrize("place", ["hparams.yaml", ".hydra"])
def test_a_folder_with_links_out_of_it_is_not_written_into(place, tmp_path):
    (tmp_path / "run").mkdir(), (tmp_path / "theirs").mkdir()
    (tmp_path / "run" / place).symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="is a link to"):
        start_run(tmp_path / "run", SETTINGS)
    assert not list((tmp_path / "theirs").iterdir())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [place]
