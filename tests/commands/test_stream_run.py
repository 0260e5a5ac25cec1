"""The whole command on the tiny run: what is printed, what is written, and every mistake in one line."""

import csv

import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.stream_run import asked, make_stream, stream_run
from branchynet.errors import UserError
from branchynet.runs.finished_run import open_run


def settings(finished, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("stream", overrides=[f"run={finished}", "images=1200", "window=200", *overrides])


def test_it_is_printed_and_written(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", f"run={finished}", "drift=[noise]", "hydra.run.dir=/secret", "-m"])
    found = stream_run(settings(finished, "drift=[noise]", "controller.step=0.03"), tmp_path / "stream")
    assert [each.name for each in found["noise"]] == ["fixed", "held", "adaptive", "bandit", "all to the end"]
    assert found["noise"][1].missed[1] < 0.05
    shown = capsys.readouterr().out
    page = (tmp_path / "stream" / "stream.md").read_text()
    assert shown.count("noise") == 5 and "`branchynet stream run=<run folder> drift=[noise]`" in page
    assert str(finished) not in page and "secret" not in page
    assert (tmp_path / "stream" / "stream.png").stat().st_size > 10_000
    with (tmp_path / "stream" / "stream.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 6 and list(rows[0])[3] == "latency_us"


def test_the_stream_begins_with_the_test_images_as_they_are(finished):
    run = open_run(finished)
    config = settings(finished, "seed=3", "begin=0.5", "end=0.5")
    one, again = make_stream(run, "blur", config), make_stream(run, "blur", config)
    assert (one.uncertainty == again.uncertainty).all() and (one.begin, one.end, len(one)) == (600, 600, 1200)
    label = run.data.labels("test").numpy()
    # The first round is every test image once.
    assert sorted(one.label[:360].tolist()) == sorted(label.tolist())
    other = make_stream(run, "blur", settings(finished, "seed=4", "begin=0.5", "end=0.5"))
    assert other.label.tolist() != one.label.tolist()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("drift=rain", "drift=rain: it is one of rotation"),
        ("drift=[]", "or a list of them"),
        ("images=300", "images=300: it is a whole number, 400"),
        ("begin=0.6", "begin=0.6: it is at most end=0.5"),
        ("strength=2", "strength=2"),
        ("window=0", "window=0"),
        ("controller=none", "controller=none holds nothing"),
        ("controller.target=0.5", r"controller\.target=0\.5: it is at least 30\.0 µs"),
        ("controller.state=a.json", "controller.state is for predict"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(override, words, finished, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        stream_run(settings(finished, override), tmp_path / "stream")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_places_of_this_machine_are_not_quoted(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["x", "run=/a", "data.root=/b", "drift=blur", "hydra.run.dir=/c", "trust=true"]
    )
    assert asked() == ["drift=blur"]
