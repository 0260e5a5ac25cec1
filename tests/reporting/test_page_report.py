"""The page of a report: all runs in one plot and one table, found by words, in a browser."""

import pytest
from browser import chromium, needs_chromium
from many import write_finished

from branchynet.reporting import page_report
from branchynet.reporting.page_report import comparison_html, page_data
from branchynet.runs.gathered import gather


@pytest.fixture(scope="module")
def runs(make_report, tmp_path_factory):
    """Two groups, one of two seeds; a run that is not finished; and a page of a run."""
    top = tmp_path_factory.mktemp("runs")
    for number, (weights, seed, chosen) in enumerate([("equal", 0, 2), ("equal", 1, 1), ("<early>", 0, 3)]):
        report = make_report(chosen=chosen)
        write_finished(top / f"{number}-{weights[:2]}", report, [f"weights={weights}"], seed=seed)
    (top / "1-eq" / "report.md").touch()
    (top / "0-eq" / "report.html").touch()
    (top / "cut off" / "checkpoints").mkdir(parents=True)
    return top


def test_numbers_are_those_of_the_results(runs):
    found = gather([runs])
    data = page_data("runs", found, runs / "report")
    assert [row["name"] for row in data["rows"]] == [row.name for row in found.rows]
    for row, its in zip(data["rows"], found.rows, strict=True):
        assert row["point"] == {name: its.result["knee"][name] for name in ("accuracy", "macs", "latency_us")}
        assert data["groups"][row["group"]] == its.group
    assert len(data["groups"]) == 2 and [each["name"] for each in data["left_out"]] == ["cut off"]
    # Relative to where the page will lie; to a run's page, else its report, else nowhere.
    assert [row["link"] for row in data["rows"]] == ["../0-eq/report.html", "../1-eq/report.md", None]


def test_of_many_runs_and_long_curves_as_much_as_is_told(runs, monkeypatch):
    found = gather([runs])
    whole = page_data("runs", found, runs)["rows"][0]["curve"]
    assert len(whole["accuracy"]) > 2 and whole["macs"] == sorted(whole["macs"])
    monkeypatch.setattr(page_report, "MOST_POINTS", 2)
    ends = page_data("runs", found, runs)["rows"][0]["curve"]
    assert ends == {name: [values[0], values[-1]] for name, values in whole.items()}
    monkeypatch.setattr(page_report, "MOST_CURVES", 2)
    data = page_data("runs", found, runs)
    assert not data["curves"] and [row["curve"] for row in data["rows"]] == [None] * 3


@needs_chromium
def test_in_a_browser(runs):
    """One opening for all: found by words, sorted, linked, in the width of a phone, without a network."""
    found = gather([runs])
    found.rows[2].result["noisy"] = True
    path = runs / "report.html"
    path.write_text(comparison_html("my <runs>", found, runs), encoding="utf-8")
    asked, wrong = [], []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(path.as_uri())
        page.locator("#rows tr").first.wait_for()
        assert page.locator("h1").inner_text() == "Runs in my <runs>"
        assert page.locator("#warning").inner_text().startswith("NOISY TIMINGS in 1 run, 2-<e among them")

        def column(number):
            cells = "(rows, n) => rows.map((row) => row.children[n].dataset.value)"
            return page.locator("#rows tr").evaluate_all(cells, number)

        def drawn(name):
            told = f"Bokeh.index.roots[0].model.document.get_model_by_name('{name}').data"
            return page.evaluate(f"({{...{told}}})")

        gains = [row.result["knee"]["gain_latency"] for row in found.rows]
        assert [float(value) for value in column(5)] == sorted(gains, reverse=True)
        assert list(drawn("points")["x"]) == gains and len(drawn("curves")["xs"]) == 3
        page.locator("#head button").nth(3).focus()
        page.keyboard.press("Enter")
        accuracies = [row.result["knee"]["accuracy"] for row in found.rows]
        assert [float(value) for value in column(3)] == sorted(accuracies)
        # All words, in any order; the plot follows.
        page.locator("#search").fill("seed=0 EQUAL")
        assert column(0) == ["0-eq"] and list(drawn("points")["x"]) == gains[:1]
        assert page.locator("#rows a").get_attribute("href") == "0-eq/report.html"
        page.locator("#search").fill("<early>")
        assert column(0) == ["2-<e"]
        page.locator("#search").fill("")
        page.locator("#group").select_option(index=1)
        assert len(column(0)) == 2
        page.locator("#cost").select_option("macs")
        macs = [row.result["knee"]["macs"] / 1e6 for row in found.rows[:2]]
        assert list(drawn("points")["x"]) == macs
        assert "cut off" in page.locator("#left-out").inner_text()
        # On a laptop all columns are in sight, however long the names are; on a phone the table alone is scrolled.
        page.set_viewport_size({"width": 1280, "height": 800})
        page.locator("#rows th a").first.evaluate(
            "(link) => link.textContent = 'b_alexnet_cifar10,'.repeat(9)"
        )
        page.locator("#rows td:last-child").first.evaluate("(cell) => cell.textContent = '19 11 18 5 47'")
        assert page.locator(".tall").evaluate("(box) => box.scrollWidth - box.clientWidth") <= 0
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert {*asked} <= {"file", "data", "blob"} and wrong == []
