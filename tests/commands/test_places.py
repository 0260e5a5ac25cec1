"""`branchynet places` from the command line, and exits that are placed on it."""

import csv
import io

import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.places import COLUMNS, places
from branchynet.errors import UserError


def run(capsys, tmp_path, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("places", overrides=list(overrides))
    places(config, tmp_path)
    return capsys.readouterr().out


def test_a_table_of_a_trunk_for_a_data_set(capsys, tmp_path):
    text = run(capsys, tmp_path, "model=b_lenet", "data=digits")
    assert text.startswith("b_lenet, images 1×28×28, 10 classes: 1.14 M MACs")
    (conv1,) = [line for line in text.splitlines() if line.startswith("conv1")]
    assert conv1.split()[:5] == ["conv1", "maps", "5×30×30", "0.11", "9.9"]


def test_csv_for_images_that_are_said(capsys, tmp_path):
    text = run(capsys, tmp_path, "model=vit_b_16", "shape=[1,32,32]", "classes=7", "format=csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS and rows[0]["place"] == "input"
    tokens = [row for row in rows if row["kind"] == "tokens"]
    assert tokens[-1]["shape"] == "5×768" and tokens[-1]["exit"] == "yes" and int(tokens[-1]["head_macs"]) > 0
    crossed = next(row for row in rows if row["place"] == "conv_proj")
    assert crossed["exit"] == "no, next: encoder.dropout" and crossed["head_macs"] == ""
    assert float(rows[-1]["macs_share"]) == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["format=json"], "format=json"),
        (["shape=[3,32]", "classes=2"], r"shape=\[3, 32\]: it is channels, height and width"),
        (["shape=[3,32,32]"], "classes=None"),
        (["shape=[3,32,32]", "classes=2"], "does not take images of shape"),
        (["model=resnet18", "model.trunk.model=resnet19", "shape=[3,32,32]", "classes=2"], "no such network"),
        (["model=vit_b_16", "shape=[3,32,64]", "classes=2"], "not of equal sides"),
    ],
)
def test_mistakes(overrides, words, capsys, tmp_path):
    with pytest.raises(UserError, match=words):
        run(capsys, tmp_path, *overrides)
