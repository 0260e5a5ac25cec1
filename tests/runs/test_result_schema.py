"""The form of result.json: what is published and written has it, and what lies is refused in one line."""

import json
from pathlib import Path

import pytest
from damage import DROP, change, damage

from branchynet.errors import UserError
from branchynet.forms import json_schema
from branchynet.runs.result import result_dict, write_result
from branchynet.runs.result_schema import NAME, Result, find_result, read_result

DOCS = Path(__file__).parents[2] / "docs"


def test_the_schema_in_the_docs_is_the_one_of_the_code():
    """After a change, write what `json_schema` gives into it."""
    assert (DOCS / "result.schema.json").read_text(encoding="utf-8") == json_schema(Result)
    schema = json.loads(json_schema(Result))
    exit_ = schema["$defs"]["Exit"]
    assert exit_["properties"]["macs"]["exclusiveMinimum"] == 0
    assert exit_["properties"]["accuracy"]["maximum"] == 1
    assert "knee" in schema["required"] and "split" not in schema["required"]


@pytest.mark.parametrize(
    "path", sorted(DOCS.glob("results/*/result.json")), ids=lambda path: path.parent.name
)
def test_published_results_have_the_form(path):
    assert read_result(path.parent) == json.loads(path.read_text(encoding="utf-8"))


def test_what_is_written_is_read_back(report, make_report, three_exits, tmp_path):
    for each in (
        report,
        three_exits,
        make_report(verified={}),
        make_report(split="val"),
        make_report(chosen=1),
    ):
        write_result(tmp_path / NAME, each)
        assert find_result(tmp_path) == read_result(tmp_path) == result_dict(each)


def test_later_versions_may_add_keys(report, tmp_path):
    result = {**result_dict(report), "noisy": True}
    result["knee"]["more"] = {"a": [1]}
    (tmp_path / NAME).write_text(json.dumps(result))
    assert read_result(tmp_path) == result


def test_earlier_versions_wrote_fewer_keys(report, tmp_path):
    result = result_dict(report)
    del result["overhead_to_the_end"], result["headroom"]
    for each in (result["knee"], result["validation"]):
        del each["intervals"]
    for each in (result["baseline"], *result["exits"]):
        del each["interval"]
    (tmp_path / NAME).write_text(json.dumps(result))
    assert read_result(tmp_path) == result


def test_no_result_is_a_run_that_is_not_finished(tmp_path):
    assert find_result(tmp_path) is None
    (tmp_path / NAME).symlink_to("nowhere")
    assert find_result(tmp_path) is None
    with pytest.raises(UserError, match=r"not finished.*`branchynet train resume=.*` goes on with it$"):
        read_result(tmp_path)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("knee", DROP, "it has no knee"),
        ("exits", DROP, "it has no exits"),
        ("exits", [], "exits is '"),
        ("machine", DROP, "it has no machine"),
        ("machine", "\ud800", "JSON"),
        ("protocol", "test", "protocol is '"),
        ("seed", -1, "seed is '"),
        ("seed", 0.5, "seed is '"),
        ("threads", 0, "threads is '"),
        ("threads", True, "threads is '"),
        ("threads", 10**9, "threads is '"),
        ("versions", {"torch": 2}, "versions.torch is '"),
        ("experiment", "", "experiment is '"),
        ("engine", None, "engine is '"),
        ("baseline.accuracy", 1.5, "baseline.accuracy is '"),
        ("baseline.accuracy", -0.1, "baseline.accuracy is '"),
        ("baseline.accuracy", "0.5", "baseline.accuracy is '"),
        ("baseline.latency_us", 0, "baseline.latency_us is '"),
        ("baseline.latency_us", INF, "baseline.latency_us is '"),
        ("baseline.latency_us", NAN, "baseline.latency_us is '"),
        ("baseline.latency_us", None, "baseline.latency_us is '"),
        ("baseline.macs", 0, "baseline.macs is '"),
        ("exits.1.macs", 0, "exits.1.macs is '"),
        ("exits.1.macs", 1.5, "exits.1.macs is '"),
        ("exits.0.static_latency_us", -1, "exits.0.static_latency_us is '"),
        ("knee.thresholds", [], "knee.thresholds has 0 numbers for 2 exits"),
        ("knee.thresholds", [0.1, 0.2], "knee.thresholds has 2 numbers for 2 exits"),
        ("knee.thresholds", [NAN], "knee.thresholds.0 is '"),
        ("knee.thresholds", ["?"], "knee.thresholds.0 is '"),
        ("knee.exit_rates", [1.0], "knee.exit_rates has 1 numbers"),
        ("knee.exit_rates", [0.5, 0.6], "knee.exit_rates add up to 1.1"),
        ("knee.exit_rates", [1.5, -0.5], "knee.exit_rates.0 is '"),
        ("knee.gain_latency", INF, "knee.gain_latency is '"),
        ("knee.gain_over_static", 0, "knee.gain_over_static is '"),
        ("headroom.auroc", [1.5], "headroom.auroc.0 is '"),
        ("headroom.perfect_knowledge.gain_macs", 0, "headroom.perfect_knowledge.gain_macs is '"),
        ("overhead_to_the_end.latency", -1, "overhead_to_the_end.latency is '"),
        ("knee.intervals.accuracy", [0.5], "knee.intervals.accuracy is '"),
        ("exits.0.interval", [0.5, NAN], "exits.0.interval.1 is '"),
        ("knee.measured", {}, "it has no knee.measured.accuracy"),
        ("knee.measured.latency_us", NAN, "knee.measured.latency_us is '"),
        ("split", "train", "split is '"),
        ("inexact_test_images", -1, "inexact_test_images is '"),
    ],
)
def test_a_result_that_lies_is_refused_by_the_number_that_does(place, value, words, report, tmp_path):
    (tmp_path / NAME).write_text(json.dumps(change(result_dict(report), place, value)))
    refused(tmp_path, words)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "3", "null", "[" * 100_000, '{"a":' * 5000])
def test_what_is_no_result_at_all(text, tmp_path):
    (tmp_path / NAME).write_text(text)
    refused(tmp_path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("folder", "a folder"),
        ("fifo", "no regular file"),
        ("device", "no regular file"),
        ("huge", "more than 10,000,000 bytes"),
    ],
)
def test_what_is_no_file_or_too_large(how, words, tmp_path):
    (tmp_path / NAME).touch()
    damage(tmp_path / NAME, how)
    refused(tmp_path, words)


def refused(folder, words=""):
    with pytest.raises(
        UserError, match=r"result\.json is damaged .*move it away, and `branchynet train"
    ) as caught:
        find_result(folder)
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
