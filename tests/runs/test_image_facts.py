"""data.json: what is written is read back, and what is damaged is told in one line."""

import json
import os
from dataclasses import replace

import pytest

from branchynet.data.image_files import Border, border_of
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.runs.image_facts import (
    NAME,
    ImageFacts,
    check_same_images,
    facts_of,
    read_facts,
    write_facts,
)

BORDER = Border((1, 2, 3), 0, 9)
FACTS = ImageFacts(
    (3, 32, 48), ("cat", "Bär", "魚"), (0.1, 1 / 3, 0.5), (0.2, 0.25, 1e-3), "abc", BORDER, "crop"
)


def test_the_facts_are_read_back_to_the_last_digit(tmp_path):
    assert read_facts(tmp_path) is None
    write_facts(tmp_path, FACTS)
    assert read_facts(tmp_path) == FACTS and FACTS.num_classes == 3
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert "Bär" in (tmp_path / NAME).read_text(encoding="utf-8"), "for people, too"


def test_the_facts_of_a_data_set_are_its_own():
    data = ImageData("digits", batch_size=64, validation_size=200)
    facts = facts_of(data)  # sets it up
    everything = data.fingerprint(("train", "val", "test"))
    border = border_of([data.images("train").numpy()])
    assert border.colour == (0,) and border.darkest < border.lightest < 80, "light on black"
    assert facts == ImageFacts((1, 28, 28), tuple("0123456789"), data.mean, data.std, everything, border)
    x = data.images("train").double() / 255
    assert facts.mean == pytest.approx([float(x.mean())])
    assert facts.std == pytest.approx([float(x.std(correction=0))])


@pytest.mark.parametrize(
    "change",
    [
        {"input_shape": [3, 32]},
        {"input_shape": [3, 0, 32]},
        {"input_shape": "square"},
        {"mean": [0.1]},
        {"mean": ["dark"] * 3},
        {"std": [0.2, 0.0, 0.1]},
        {"std": [0.2, -0.2, 0.1]},
        {"mean": [0.1, float("nan"), 0.1]},
        {"std": [0.1, float("inf"), 0.1]},
        {"border": {"colour": [1], "darkest": 0, "lightest": 9}},
        {"border": {"colour": [1, 2, 3]}},
        {"border": {"colour": [1, 2, 256], "darkest": 0, "lightest": 9}},
        {"border": 3},
        {"files_size": "stretch"},
        {"classes": 3},
        {"classes": []},
        {"classes": ["a", 3]},
        {"classes": ["\ud800", "b"]},
        {"input_shape": [3, 1.5, 32]},
        {"input_shape": [3, float("inf"), 32]},
        {"input_shape": [3, 100_000, 100_000]},
        {"input_shape": [3, 10**400, 1]},
        {"mean": [True, 0.1, 0.1]},
        {"fingerprint": 3},
        {"classes": None},
    ],
)
def test_damaged_facts_are_told_in_one_line(change, tmp_path):
    write_facts(tmp_path, FACTS)
    content = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    (tmp_path / NAME).write_text(json.dumps({**content, **change}))
    with pytest.raises(UserError, match=r"data\.json is damaged .*delete it") as caught:
        read_facts(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    check_same_images(tmp_path, FACTS)  # a new run
    write_facts(tmp_path, FACTS)
    check_same_images(tmp_path, FACTS)
    with pytest.raises(UserError, match=r"another one than .* was started with"):
        check_same_images(tmp_path, replace(FACTS, fingerprint="xyz"))
    # A run that did not keep it cannot tell.
    write_facts(tmp_path, replace(FACTS, fingerprint=None))
    check_same_images(tmp_path, FACTS)


def test_a_run_from_before_says_nothing_of_the_border(tmp_path):
    write_facts(tmp_path, FACTS)
    content = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    del content["border"]
    (tmp_path / NAME).write_text(json.dumps(content))
    assert read_facts(tmp_path) == replace(FACTS, border=None)


def test_facts_that_are_no_file_are_told_at_once(tmp_path):
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(UserError, match=r"data\.json is damaged .*no regular file"):
        read_facts(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"classes": ["a"]}', "[" * 100_000])
def test_what_is_no_facts_at_all(content, tmp_path):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        read_facts(tmp_path)
