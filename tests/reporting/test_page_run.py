"""The page of a run: its numbers are those of result.json and of the sweep, in a browser, whatever is moved."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import chromium, needs_chromium

from branchynet.exits.sweep import exit_taken, point_at
from branchynet.exits.trace import Trace
from branchynet.reporting import page_run
from branchynet.reporting.page_run import page_data, run_page
from branchynet.runs.result import result_dict

COMMAND = "branchynet evaluate run=there"
SAMPLES = {"val": 400, "test": 300}


def random_trace(samples, seed):
    """Three exits, later ones right more often; uncertainties as crowded towards 0 as entropies are."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, samples)
    wrong = random.random((samples, 3)) < [0.3, 0.2, 0.1]
    prediction = np.where(wrong, (label[:, None] + 1) % 3, label[:, None])
    uncertainty = (random.random((samples, 3)) ** 6).astype(np.float32)
    return Trace(*map(torch.from_numpy, (uncertainty, prediction, label)))


@pytest.fixture(scope="module")
def made(make_three):
    traces = {split: random_trace(count, seed) for seed, (split, count) in enumerate(SAMPLES.items())}
    # One of them on an uncertainty that was seen: there only a strict comparison in float32 counts rightly.
    seen = float(traces["val"].uncertainty[7, 0])
    return make_three(traces=traces, thresholds=[[0.0, 0.0], [seen, 0.1], [0.2, 0.3], [3.0, 3.0]])


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    images = {
        split: torch.from_numpy(random.integers(0, 256, (count, 1, 8, 8))).to(torch.uint8)
        for split, count in SAMPLES.items()
    }
    return lambda split, sample: images[split][sample]


def test_of_more_samples_than_have_room_every_kth_is_there_and_it_is_told(made, pictures, monkeypatch):
    monkeypatch.setattr(page_run, "MOST_VALUES", 350)
    found = page_data(made, pictures, COMMAND)["splits"]
    assert [(each["samples"], each["of"], each["step"]) for each in found.values()] == [
        (100, 400, 4),
        (100, 300, 3),
    ]
    assert max(found["val"]["images"]["samples"]) < 100


def test_of_a_run_reported_on_validation_nothing_of_test_is_there(make_three):
    data = page_data(make_three(split="val"), None, COMMAND)
    assert list(data["splits"]) == ["val"] and data["live"] == "val"
    paper = page_data(make_three(protocol="paper"), None, COMMAND)
    assert (paper["live"], paper["paper"], data["paper"]) == ("test", True, False)


def test_a_rule_that_looked_at_macs_says_so(report):
    assert page_data(report, None, COMMAND)["rule"] == "accuracy_floor"
    by_macs = replace(report, selection=replace(report.selection, cost="macs"))
    assert page_data(by_macs, None, COMMAND)["rule"] == "accuracy_floor, counting MACs"


def test_the_frontier_goes_from_cheap_to_expensive_and_is_not_longer_than_told(make_report, monkeypatch):
    many = make_report(thresholds=torch.linspace(0, 0.9, 40)[:, None], chosen=3)
    points = page_data(many, None, COMMAND)["frontier"]
    costs = [point_at(many.view.trace, point).mean_cost([10, 50]) for point in points]
    assert len(points) > 2 and costs == sorted(costs)
    monkeypatch.setattr(page_run, "MOST_POINTS", 2)
    assert page_data(many, None, COMMAND)["frontier"] == [points[0], points[-1]]


def test_ten_thousand_samples_of_a_thousand_classes_stay_below_three_megabytes(make_three):
    random = np.random.default_rng(0)
    names = tuple(f"a class with a name {number}" for number in range(1000))
    traces = {}
    for split in ("val", "test"):
        trace = random_trace(10_000, 1)
        label = torch.from_numpy(random.integers(0, 1000, 10_000))
        right = torch.where(trace.correct, label[:, None], (label[:, None] + 1) % 1000)
        traces[split] = Trace(trace.uncertainty, right, label)
    images = torch.from_numpy(
        random.integers(0, 256, (10_000, 3, 32, 32), np.uint8)
    )  # nothing is harder to compress
    baseline = {split: torch.ones(10_000, dtype=torch.bool) for split in traces}
    report = make_three(traces=traces, baseline=baseline, classes=names)
    html = run_page(report, lambda split, sample: images[sample], COMMAND)
    assert 1_500_000 < len(html.encode()) < 3_000_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def opened(browser, made, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(run_page(made, pictures, COMMAND), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(60_000)
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url.partition(":")[0]))
    page.on("console", lambda told: page.wrong.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(path.as_uri())
    page.locator("#numbers td").first.wait_for()
    return page


@pytest.fixture
def page(opened):
    """As it opens."""
    opened.locator("#reset").click()
    settled(opened)
    return opened


def settled(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def column(page, number):
    """A column of the table of numbers, by the rows' names; in full precision."""
    rows = page.evaluate(
        "(n) => [...document.querySelectorAll('#numbers tbody tr')]"
        ".map((row) => [row.dataset.name, row.querySelectorAll('td')[n].dataset.value])",
        number,
    )
    return {name: float(value) for name, value in rows if value != "null"}


def thresholds_of(page):
    command = page.locator("#command").input_value()
    before, _, after = command.partition(" sweep/rule=given sweep.rule.thresholds=")
    assert before == COMMAND
    return json.loads(after)


def check(found, report, split, thresholds):
    """That a column has what arithmetic on the trace gives, to the last bit."""
    point = point_at(report.traces[split], thresholds)
    timed = report.latencies[report.engine]
    latency = point.mean_cost([each.median_us for each in timed.exits])
    macs = point.mean_cost(report.macs.exits)
    baseline = int(report.baseline_correct[split].sum()) / len(report.baseline_correct[split])
    expected = {
        "accuracy": point.accuracy,
        "against the baseline, points": point.accuracy - baseline,
        "mean latency, µs": latency,
        "gain in latency": timed.baseline.median_us / latency,
        "mean MACs": macs,
        "gain in MACs": report.macs.baseline / macs,
    }
    expected |= {f"leave at exit {n}": rate for n, rate in enumerate(point.exit_rates, 1)}
    assert {name: found[name] for name in expected} == expected


@needs_chromium
def test_at_the_operating_point_the_numbers_are_those_of_the_result(page, made):
    result = result_dict(made)
    for number, expected in ((0, result["validation"]), (1, result["validation"]), (2, result["knee"])):
        found = column(page, number)
        assert found["accuracy"] == expected["accuracy"]
        assert found["gain in latency"] == expected["gain_latency"]
        assert found["gain in MACs"] == expected["gain_macs"]
    found = column(page, 2)
    assert (found["mean MACs"], found["mean latency, µs"]) == (
        result["knee"]["macs"],
        result["knee"]["latency_us"],
    )
    assert [found[f"leave at exit {n}"] for n in (1, 2, 3)] == result["knee"]["exit_rates"]
    assert thresholds_of(page) == result["knee"]["thresholds"]


@needs_chromium
def test_typed_thresholds_count_as_the_sweep_does_and_test_stays_where_it_was(page, made):
    of_test = column(page, 2)
    for typed in (
        [0.0, 0.0],
        [0.01, 0.2],
        [0.5, 0.05],
        [2.0, 0.3],
        made.traces["val"].uncertainty[9, :2].tolist(),
    ):
        for exit, value in enumerate(typed):
            field = page.get_by_label(f"threshold of exit {exit + 1}")
            field.fill(repr(value))
            field.press("Tab")
        settled(page)
        check(column(page, 0), made, "val", typed)
        assert column(page, 2) == of_test
        assert np.array_equal(np.float32(thresholds_of(page)), np.float32(typed))


@needs_chromium
def test_keys_alone_move_thresholds(page, made):
    page.locator("body").press("Tab")
    page.locator("#exit-1").focus()
    page.keyboard.press("Home")
    settled(page)
    assert column(page, 0)["leave at exit 1"] == 0 and thresholds_of(page)[0] == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    settled(page)
    # 400 images, so 400 steps: two images are surer.
    assert column(page, 0)["leave at exit 1"] == 2 / 400
    page.keyboard.press("End")
    settled(page)
    assert column(page, 0)["leave at exit 1"] == 1
    check(column(page, 0), made, "val", thresholds_of(page))
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "where the focus is, is seen"
    # Along the frontier, by a button.
    page.locator("#cheaper").focus()
    page.keyboard.press("Enter")
    page.locator("#dearer").focus()
    page.keyboard.press("Enter")
    settled(page)
    assert thresholds_of(page) in page_data(made, None, COMMAND)["frontier"]


@needs_chromium
def test_classes_and_images_follow(page, made):
    page.get_by_label("threshold of exit 1").fill("0.02")
    page.get_by_label("threshold of exit 1").press("Tab")
    page.locator("#search").fill("b")
    page.locator("#leaving").select_option("0")
    page.locator("#answered").select_option("0")
    settled(page)
    trace = made.traces["val"]
    taken = exit_taken(trace.uncertainty, torch.tensor(thresholds_of(page)))
    right = trace.correct.gather(1, taken[:, None])[:, 0]
    of_class = trace.label == 1
    values = page.locator("#class-rows td[data-value]").evaluate_all(
        "(cells) => cells.map((c) => Number(c.dataset.value))"
    )
    count = int(of_class.sum())
    expected = [int((right & of_class).sum()), *(int(((taken == n) & of_class).sum()) for n in range(3))]
    assert values == [number / count for number in expected]
    told = page.locator("#images li").all_inner_texts()
    assert told and all("✗" in text and "exit 1" in text and "b" in text for text in told)
    assert page.locator("#images li.right").count() == 0
    # Test: at the operating point, wherever the sliders are.
    page.locator("#split").select_option("test")
    page.locator("#answered").select_option("")
    taken = exit_taken(made.trace.uncertainty, torch.tensor(made.point.thresholds))
    of_class = made.trace.label == 1
    values = page.locator("#class-rows td[data-value]").evaluate_all(
        "(cells) => cells.map((c) => Number(c.dataset.value))"
    )
    assert values[1:] == [int(((taken == n) & of_class).sum()) / int(of_class.sum()) for n in range(3)]
    page.locator("#split").select_option("val")
    page.locator("#search").fill("")
    page.locator("#leaving").select_option("")


@needs_chromium
def test_the_frontier_is_pointed_at_and_clicked(page, made):
    """Found by its place in the plot, as somebody's mouse would."""
    points = page_data(made, None, COMMAND)["frontier"]
    page.locator("#plot").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """() => {
          const view = Bokeh.index.roots[0];
          const source = view.model.document.get_model_by_name("frontier");
          const [box, frame] = [view.el.getBoundingClientRect(), view.frame];
          return [box.left + frame.x_scale.compute(source.data.x[0]),
                  box.top + frame.y_scale.compute(source.data.accuracy[0])];
        }"""
    )
    page.mouse.move(x, y)
    page.get_by_text("exit rates").first.wait_for()
    page.mouse.click(x, y)
    settled(page)
    assert thresholds_of(page) == points[0]


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_stands_over_the_edge(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_dark_where_the_reader_has_it_dark(page):
    axis = "Bokeh.index.roots[0].model.left[0].axis_label_text_color"
    colours = f"() => [getComputedStyle(document.body).backgroundColor, {axis}]"
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        settled(page)
        seen.append(page.evaluate(colours))
    assert seen[0][0] == "rgb(255, 255, 255)" and seen[1][0] == "rgb(20, 23, 27)"
    assert seen[0][1] != seen[1][1], "the plot's words, too"


@needs_chromium
def test_it_is_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    page.get_by_text("copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#command").input_value()


@needs_chromium
def test_no_network_was_asked_for_and_nothing_failed(page):
    """Last: of everything before."""
    assert {*page.asked} <= {"file", "data", "blob"} and page.wrong == []
