import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text

from branchynet.evaluation.noise import Noise
from branchynet.evaluation.rivals import Rival
from branchynet.exits.trace import Trace
from branchynet.reporting import figures
from branchynet.reporting.style import GREEN, RED, to_array

STAR = "operating point (accuracy_floor)"


def line(panel, label):
    return next(line for line in panel.get_lines() if line.get_label() == label)


def test_the_trade_off_shows_every_point_where_it_is(report):
    left, right = figures.trade_off(report).axes
    dots = left.collections[0].get_offsets()
    np.testing.assert_allclose(dots, [[50, 87.5], [35, 100], [25, 87.5], [10, 62.5]])
    np.testing.assert_allclose(
        line(left, "Pareto frontier").get_xydata(), [[10, 62.5], [25, 87.5], [35, 100]]
    )
    np.testing.assert_allclose(line(left, "one exit alone").get_xydata(), [[8, 62.5], [42, 87.5]])

    star, diamond = line(left, STAR), line(left, "baseline")
    np.testing.assert_allclose(star.get_xydata(), [[25, 87.5]])
    assert (star.get_marker(), star.get_color()) == ("*", GREEN)
    np.testing.assert_allclose(diamond.get_xydata(), [[40, 75]])
    assert (diamond.get_marker(), diamond.get_color()) == ("D", RED)

    np.testing.assert_allclose(line(left, "perfect confidence").get_xydata(), [[30, 87.5]])
    np.testing.assert_allclose(line(right, "perfect knowledge").get_xydata(), [[250e-6, 100]])

    np.testing.assert_allclose(line(right, STAR).get_xydata(), [[250e-6, 87.5]])
    np.testing.assert_allclose(line(right, "baseline").get_xydata(), [[425e-6, 75]])


def test_noisy_timings_are_marked(report, make_report):
    def title(shown):
        return figures.trade_off(shown).get_suptitle()

    assert (
        title(make_report(noise=(Noise("a reason", 2.0),)))
        == f"{title(report)}\nNOISY TIMINGS, see the report"
    )


def weak_trace():
    """100 samples. Exit 1 is right on 10, exit 2 on 88; at 0.25, 0.45 and 0.9 2, 3 and all leave at exit 1."""
    uncertainty = torch.tensor([0.1, 0.1, 0.3, *[0.6] * 97])[:, None].repeat(1, 2)
    label = torch.zeros(100, dtype=torch.int64)
    # The first two are right at exit 1 alone, the third at exit 2 alone.
    first = torch.tensor([0, 0, 1, *[0] * 8, *[1] * 89])
    last = torch.tensor([1, 1, *[0] * 88, *[1] * 10])
    return Trace(uncertainty, torch.stack([first, last], 1), label)


def test_a_weak_exit_does_not_squeeze_the_trade_off(make_report):
    # The point where all leave at exit 1 is right on 10 %, the others, on 88, 90 and 89 %, lie above 87 %.
    weak, right = weak_trace(), torch.arange(100) < 88
    report = make_report(traces={"val": weak, "test": weak}, baseline={"val": right, "test": right})
    assert report.points.accuracy.tolist() == [0.88, 0.9, 0.89, 0.1]
    figure = figures.trade_off(report)
    top, *_, bottom = figure.axes
    assert len(figure.axes) == 4
    assert top.get_ylim()[0] < 10
    # From two points below the baseline, which is below the knee, to a little above the best.
    assert bottom.get_ylim() == pytest.approx((86, 90.4))
    for panel in figure.axes:
        np.testing.assert_allclose(
            line(panel, STAR).get_xdata(), [48.8 if panel in figure.axes[::2] else 488e-6]
        )
    assert [panel.get_xlabel() != "" for panel in figure.axes] == [False, False, True, True]
    assert figure.axes[2].get_ylabel() == "accuracy on test, % (from 86.0)"
    assert len(figure.legends[0].get_texts()) == 7


def test_the_trade_off_names_units_engine_and_protocol(report, make_report):
    figure = figures.trade_off(make_report(threads=2))
    left, right = figure.axes
    assert left.get_xlabel() == "mean latency per sample, µs (onnxruntime, 2 threads, batch 1)"
    assert right.get_xlabel() == "mean cost per sample, million MACs"
    assert left.get_ylabel() == "accuracy on test, %"
    assert "chosen on validation" in figure.get_suptitle()
    paper = figures.trade_off(make_report(protocol="paper")).get_suptitle()
    assert "protocol: paper (thresholds chosen on test)" in paper
    assert "validation" not in paper


def test_the_curves_over_a_threshold_follow_the_trace(report):
    values, overall, leaving, rates = figures.threshold_curves(report, 0)
    # Figure 2 of the paper, sample by sample.
    trace = report.trace
    for at, value in enumerate(values):
        right = right_here = here = 0
        for sample in range(trace.num_samples):
            exit_index = 0 if trace.uncertainty[sample, 0] < np.float32(value) else 1
            answer = bool(trace.prediction[sample, exit_index] == trace.label[sample])
            right += answer
            here += exit_index == 0
            right_here += answer and exit_index == 0
        assert overall[at] == right / 8
        assert rates[at].tolist() == [here / 8, 1 - here / 8]
        assert leaving[at] == right_here / here if here else math.isnan(leaving[at])
    assert values[0] == 0 and values[-1] > 0.7


def test_other_thresholds_are_held(three_exits):
    _, overall, _, rates = figures.threshold_curves(three_exits, 1)
    # T_1 = 0.25 lets three samples out at exit 1, whatever T_2 is.
    assert rates[:, 0].tolist() == [3 / 8] * len(rates)
    assert rates[0].tolist() == [3 / 8, 0, 5 / 8] and rates[-1].tolist() == [3 / 8, 5 / 8, 0]
    assert (overall[0], overall[-1]) == (1, 7 / 8)


def test_the_figure_over_thresholds_marks_the_chosen_ones(three_exits):
    figure = figures.over_thresholds(three_exits)
    panels = np.array(figure.axes).reshape(2, 2)
    for n, chosen in enumerate([0.25, 0.21]):
        for panel in panels[:, n]:
            assert line(panel, f"chosen: {chosen}").get_xdata() == pytest.approx([chosen, chosen])
        assert panels[1, n].get_xlabel() == f"threshold $T_{{{n + 1}}}$, entropy, nats"
    assert panels[0, 0].get_ylabel() == "accuracy on test, %"
    assert panels[1, 0].get_ylabel() == "exit rate on test, %"
    exits = [drawn.get_label() for drawn in panels[1, 0].get_lines()]
    assert exits[:3] == ["exit 1", "exit 2", "exit 3"]


def test_the_histograms_count_right_and_wrong_answers(report):
    first, second = figures.uncertainty_histograms(report).axes
    assert [text.get_text() for text in first.get_legend().get_texts()] == [
        "right: 5",
        "wrong: 3",
        "threshold: 0.45",
    ]
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["right: 7", "wrong: 1"]
    assert first.get_xlabel() == "uncertainty (entropy, nats)"
    assert first.get_yscale() == "log"
    assert first.get_ylim()[1] >= 7


def test_the_unit_follows_the_criterion(make_report):
    figure = figures.uncertainty_histograms(make_report(criterion="margin", unit="0 to 1"))
    assert figure.axes[0].get_xlabel() == "uncertainty (margin, 0 to 1)"


def test_a_threshold_above_everything_is_named_but_does_not_squeeze_the_figure(make_report):
    changed = make_report(thresholds=[[0.0], [0.25], [10.0], [0.9]])
    panel = figures.uncertainty_histograms(changed).axes[0]
    assert panel.get_xlim()[1] < 1
    assert panel.get_legend().get_texts()[-1].get_text() == "threshold: 10"
    assert to_array(figures.over_thresholds(changed)).std() > 0


def test_pixels(report):
    pixels = to_array(figures.trade_off(report))
    assert pixels.shape == (3, 600, 1200) and pixels.dtype == np.uint8
    green = tuple(int(GREEN[at : at + 2], 16) for at in (1, 3, 5))
    assert (pixels == np.array(green, np.uint8)[:, None, None]).all(0).sum() > 50
    assert to_hex(pixels[:, 0, 0] / 255) == "#ffffff"


def test_all_figures_by_name(report, images):
    assert list(figures.draw_all(report, images)) == [
        *("trade_off", "thresholds", "uncertainty", "rising", "confusion", "samples")
    ]
    # Where there are no images at hand, as after an evaluation from the traces.
    assert list(figures.draw_all(report, None)) == [
        "trade_off",
        "thresholds",
        "uncertainty",
        "rising",
        "confusion",
    ]


def words_of(figure):
    """Every word that a figure shows."""
    return [text.get_text() for text in figure.findobj(Text)]


def test_on_validation_no_word_is_of_test(make_report, images):
    for name, figure in figures.draw_all(make_report(split="val"), images).items():
        shown = words_of(figure)
        assert not any("test" in text.lower() for text in shown), name
        assert name == "samples" or any("validation" in text for text in shown), name


def test_rivals_stand_over_macs_alone_and_beside_the_panels(report, make_report, rivals):
    figure = figures.trade_off(make_report(rivals=rivals))
    left, right = figure.axes
    np.testing.assert_allclose(line(right, "better").get_xydata(), [[240e-6, 90]])
    assert line(right, "dearer").get_marker() != line(right, "better").get_marker()
    assert not [drawn for drawn in left.get_lines() if drawn.get_label() in ("better", "dearer")]
    # What costs more than all of the run's own would squeeze it.
    own, others = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert others == ["better", "as good", "dearer"] and not set(own) & set(others)
    figure.draw_without_rendering()
    edge = right.get_window_extent().x1
    assert figure.legends[1].get_window_extent().x0 > edge, "it covers nothing"
    assert len(figures.trade_off(report).legends) == 1


def test_a_rivals_name_is_no_formula(make_report):
    odd = Rival(r"a $\nosuch b$", 100, 0.9, "a page")
    assert to_array(figures.trade_off(make_report(rivals=(odd,)))).std() > 0


def test_rivals_far_above_do_not_squeeze_the_runs_own_points(make_report):
    weak, right = weak_trace(), torch.arange(100) < 14
    # All between 10 and 16 %, but for what perfect knowledge gives.
    low = Trace(weak.uncertainty, weak.prediction.where(torch.arange(100)[:, None] > 84, 1), weak.label)
    own = {"traces": {"val": low, "test": low}, "baseline": {"val": right, "test": right}}
    assert len(figures.trade_off(make_report(**own)).axes) == 2
    figure = figures.trade_off(make_report(**own, rivals=(Rival("far above", 100, 0.99, "a page"),)))
    assert len(figure.axes) == 4 and figure.axes[2].get_ylim()[1] < 50


def test_exits_alone_are_their_heads_where_exits_average(averaged, report):
    def triangles(of):
        return list(line(figures.trade_off(of).axes[0], "one exit alone").get_ydata())

    assert triangles(averaged) == [62.5, 75.0] and triangles(report) == [62.5, 87.5]
