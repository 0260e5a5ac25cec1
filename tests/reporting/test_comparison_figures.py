"""Many runs side by side, drawn."""

import json

import numpy as np
import pytest
from many import write_finished

from branchynet.reporting.averages import groups_of
from branchynet.reporting.comparison_figures import MOST_NAMED, ablation, best, figures_of, trade_offs
from branchynet.runs.gathered import gather


@pytest.fixture
def groups(report, make_report, make_three, tmp_path):
    write_finished(tmp_path / "0", report, ["weights=equal"], seed=0)
    write_finished(tmp_path / "1", make_report(chosen=3), ["weights=equal"], seed=1)
    write_finished(tmp_path / "2", report, ["weights=early"], seed=0)
    write_finished(tmp_path / "3", make_three())
    return groups_of(gather([tmp_path]).rows)


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_which_figures_there_are(groups):
    assert [name for name, _ in figures_of(groups)] == [
        "trade_offs",
        "trade_offs-b_lenet_mnist",
        "ablation-b_lenet_mnist",
    ]
    assert [name for name, _ in figures_of(groups[:2])] == ["trade_offs", "ablation-b_lenet_mnist"]
    assert [name for name, _ in figures_of(groups[2:])] == ["trade_offs"]


def test_every_run_has_its_curve_star_and_baseline(groups):
    figure = trade_offs(groups)
    left, right = figure.axes
    assert legend_of(figure) == ["b_lenet_mnist weights=equal", "b_lenet_mnist weights=early", "three"]
    for panel in (left, right):
        points = [len(line.get_xdata()) for line in panel.lines if line.get_marker() in "*D"]
        assert points == [2, 2, 1, 1, 1, 1], "a star and a diamond for each run"
    star = next(line for line in right.lines if line.get_marker() == "*")
    assert star.get_xdata().tolist() == [250 / 1e6, 100 / 1e6] and star.get_ydata().tolist() == [87.5, 62.5]
    assert "µs (onnxruntime, 1 thread" in left.get_xlabel()
    assert len({line.get_color() for line in left.lines[:3]}) == 1, "all that is of a group has one colour"
    curve = right.lines[0].get_ydata()
    assert np.isnan(curve).sum() == 2, "a gap behind each run's curve"


def test_of_several_machines_latencies_are_shares_of_the_baselines(report, make_report, tmp_path):
    write_finished(tmp_path / "0", report)
    write_finished(tmp_path / "1", make_report(machine="another"), seed=1)
    left = trade_offs(groups_of(gather([tmp_path]).rows)).axes[0]
    assert "share of the run's own baseline" in left.get_xlabel()
    stars = [x for line in left.lines if line.get_marker() == "*" for x in line.get_xdata()]
    assert stars == [25 / 40] * 2


def test_costs_far_apart_have_an_axis_whose_numbers_can_be_read(report, make_report, tmp_path):
    write_finished(tmp_path / "0", report)
    far = write_finished(tmp_path / "1", make_report(), seed=1) / "result.json"
    result = json.loads(far.read_text())
    result["baseline"]["macs"] *= 100
    far.write_text(json.dumps(result))
    figure = trade_offs(groups_of(gather([tmp_path]).rows))
    right = figure.axes[1]
    figure.draw_without_rendering()
    assert right.get_xscale() == "log"
    assert {"0.001", "0.002", "0.005", "0.01"} <= {label.get_text() for label in right.get_xticklabels()}


def test_gains_far_apart_have_a_logarithmic_axis_too(report, tmp_path):
    for number, gain in enumerate((0.5, 30.0)):
        path = write_finished(tmp_path / str(number), report, [f"weights.last={gain}"]) / "result.json"
        result = json.loads(path.read_text())
        result["knee"]["gain_macs"] = gain
        path.write_text(json.dumps(result))
    gain = ablation("x", groups_of(gather([tmp_path]).rows)).axes[1]
    assert gain.get_xscale() == "log" and gain.get_xlim()[0] == 0.25


def test_of_many_groups_the_best_are_named(groups, report, tmp_path):
    for number in range(MOST_NAMED):
        write_finished(tmp_path / "many" / str(number), report, [f"x={number}"], seed=number)
    many = groups_of(gather([tmp_path / "many"]).rows)
    assert len(legend_of(trade_offs(many))) == MOST_NAMED
    one_more = [*many, groups[0]]
    assert legend_of(trade_offs(one_more)) == [f"{MOST_NAMED - 1} other groups", "x=0", "weights=equal"]
    assert legend_of(trade_offs([*one_more, groups[2]])) == ["b_lenet_mnist", "three"]


def test_the_best_are_beaten_by_no_other(groups, make_report, tmp_path):
    write_finished(tmp_path / "worse", make_report(chosen=0))
    worse = groups_of(gather([tmp_path / "worse"]).rows)
    costs = [(group.values["macs"].value, group.values["accuracy"].value) for group in (*groups, *worse)]
    assert costs == [(175, 0.75), (250, 0.875), (337.5, 1), (500, 0.875)]
    assert best([*worse, *reversed(groups)]) == groups


def test_what_has_no_interval_has_no_whisker(groups):
    """Of one run: one of no width would say that it is known exactly."""
    accuracy = ablation("b_lenet_mnist", groups[1:2]).axes[0]
    point, last = [lines.get_segments()[0] for lines in accuracy.collections]
    assert len(point) == 2 and len(last) == 0


def test_bars_are_the_means_with_their_deviations(groups):
    figure = ablation("b_lenet_mnist", groups[:2])
    accuracy, gain, rates = figure.axes
    assert [text.get_text() for text in accuracy.get_yticklabels()] == [
        "weights=equal (2 runs)",
        "weights=early",
    ]
    point, last = (
        accuracy.containers[0::2][:2] if len(accuracy.containers) == 2 else accuracy.containers[1::2]
    )
    assert [bar.get_width() for bar in point] == pytest.approx([0, 12.5])
    assert [bar.get_width() for bar in last] == pytest.approx([12.5, 12.5])
    widths = [bar.get_width() for bar in rates.patches]
    assert widths == pytest.approx([81.25, 18.75, 62.5, 37.5])
    assert gain.get_xlabel() == "gain over the baseline"


def test_names_are_broken_and_no_mathematics(report, tmp_path):
    for number in range(2):
        write_finished(tmp_path / str(number), report, [f"+a=${'x' * 30},{number}$,{'y' * 300}"], seed=number)
    figure = ablation("b", groups_of(gather([tmp_path]).rows))
    figure.canvas.draw()
    for label in figure.axes[0].get_yticklabels():
        assert r"\$" in label.get_text() and len(label.get_text().splitlines()) <= 3
