"""The controller: it holds what it is told to, on whatever stream, within bounds, and goes on from its state."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from branchynet.errors import UserError
from branchynet.runtime.controller import Controller
from branchynet.runtime.profile import Profile, exit_indices, validation_of

COSTS = {"latency_us": (20.0, 60.0, 120.0), "macs": (100.0, 300.0, 700.0)}
SAMPLES = 12_000
DRIFTS = 4_000  # from that image on the stream is hard


def uncertainties(samples, hard, seed=0):
    """Of three exits: as on validation, or much less sure."""
    random = np.random.default_rng(seed)
    return np.float32(random.beta(3.0 if hard else 0.5, 2.0, (samples, 3)))


def profile_of(exits=3, certified=None):
    unsure = uncertainties(3000, hard=False, seed=7)[:, -exits:]
    thresholds = (0.3, 0.4)[: exits - 1]
    answers = np.zeros(unsure.shape, np.int64)
    costs = {name: values[-exits:] for name, values in COSTS.items()}
    return Profile(
        thresholds, costs, validation_of(unsure, answers, answers == 0, thresholds), 1.0, certified
    )


def stream(exits=3, seed=1):
    easy, hard = uncertainties(DRIFTS, False, seed), uncertainties(SAMPLES - DRIFTS, True, seed)
    return np.concatenate([easy, hard])[:, -exits:]


def run(controller, unsure, cuts=()):
    """Where the samples leave, from 0, in batches that end at `cuts`, and the thresholds that each met."""
    left, met, start = [], [], 0
    for end in (*cuts, len(unsure)):
        while start < end:
            stop = min(start + controller.ahead, end)
            taken = exit_indices(unsure[start:stop], controller.thresholds)
            met += [controller.thresholds] * len(taken)
            controller.observe(taken + 1, unsure[np.arange(start, stop), taken])
            left.append(taken)
            start = stop
    return np.concatenate(left), met


def quiet(profile, *arguments, **settings):
    return Controller(profile, *arguments, tell=lambda said: None, **settings)


@pytest.mark.parametrize("exits", [2, 3])
@pytest.mark.parametrize(("hold", "target"), [("latency_us", 66.0), ("macs", 350.0), ("latency_us", None)])
def test_a_budget_is_met_within_five_percent_where_fixed_thresholds_miss_it_by_far(exits, hold, target):
    profile, unsure = profile_of(exits), stream(exits)
    controller = quiet(profile, hold, target)
    costs = np.array(profile.costs[hold])
    held = costs[run(controller, unsure)[0]]
    for begin in (*range(1000, DRIFTS, 1000), *range(DRIFTS + 1000, SAMPLES, 1000)):
        assert held[begin : begin + 1000].mean() == pytest.approx(controller.target, rel=0.05)
    fixed = costs[exit_indices(unsure, profile.thresholds)]
    assert abs(fixed[DRIFTS:].mean() / profile.mean_cost(hold) - 1) > 0.25
    assert controller.summary().mean == pytest.approx(held.mean())


@pytest.mark.parametrize("rates", [(0.5, 0.3), (0.1, 0.0), (0.0, 1.0)])
def test_exit_rates_are_held_one_by_one(rates):
    left, _ = run(quiet(profile_of(), "exit_rates", rates), stream())
    for begin in (2000, DRIFTS + 2000, SAMPLES - 2000):
        found = np.bincount(left[begin : begin + 2000], minlength=3) / 2000
        assert found[:2] == pytest.approx(rates, abs=0.02)


@pytest.mark.parametrize(
    "kind", ["alternating", "blocks", "random walk", "few values", "all at 1", "all at 0"]
)
def test_the_bound_of_the_module_holds_on_any_stream(kind):
    """For every window of 2,000 images, with nothing assumed of them."""
    number = np.arange(SAMPLES)
    random = np.random.default_rng(3)
    values = {
        "alternating": np.where(number % 2, 0.999, 0.001),
        "blocks": np.where(number // 700 % 2, 0.95, 0.02),
        "random walk": np.abs(np.cumsum(random.normal(0, 0.05, SAMPLES)) % 2 - 1),
        "few values": random.integers(0, 3, SAMPLES) / 2,
        "all at 1": np.full(SAMPLES, 1.0),
        "all at 0": np.full(SAMPLES, 0.0),
    }[kind]
    unsure = np.repeat(np.float32(values)[:, None], 3, axis=1)
    step, every, window, budget = 0.02, 8, 2000, 70.0
    profile = profile_of()
    if kind == "few values":  # on validation, too, as of a criterion that counts
        known = validation_of(unsure[:500], unsure[:500] * 0, unsure[:500] < 1, profile.thresholds)
        profile = Profile(profile.thresholds, profile.costs, known, 1.0)
    controller = quiet(profile, "latency_us", budget, step=step, every=every)
    costs = np.array(COSTS["latency_us"])[run(controller, unsure)[0]]
    means = np.convolve(costs, np.ones(window) / window, "valid")
    assert np.abs(means - budget).max() <= 100 * (1 + 2 * step * every) / (step * window)


@pytest.mark.parametrize("exits", [2, 3])
@pytest.mark.parametrize("hold", ["latency_us", "exit_rates"])
def test_never_past_the_limit(exits, hold):
    limit = (0.35, 0.5)[: exits - 1]
    for profile, given in ((profile_of(exits, certified=limit), "certified"), (profile_of(exits), limit)):
        target = 63.0 if hold == "latency_us" else [0.9, 0.05][: exits - 1]
        controller, said = Controller(profile, hold, target, limit=given), []
        controller.tell = said.append
        unsure = stream(exits)
        left, met = run(controller, unsure)
        assert (np.array(met) <= np.array(limit)).all()
        assert (left >= exit_indices(unsure, limit)).all(), "nobody leaves earlier than there"
        stays = 1 if hold == "exit_rates" else exits - 1  # exit 2 gets so many then that its rate can be held
        assert controller.thresholds[:stays] == pytest.approx(limit[:stays]), "and there it stays"
        (bound,) = [each for each in said if "cannot be held" in each]
        assert controller.at_bound and "upper bound" in bound and "\n" not in bound
        assert Controller(profile, hold, target, limit=None).thresholds


def test_it_comes_back_from_a_bound_at_once():
    """Nothing has piled up there meanwhile."""
    profile = profile_of(2)
    controller = quiet(profile, "latency_us", 80.0, fastest=0.4)
    run(controller, uncertainties(6000, hard=True)[:, 1:])
    assert controller.at_bound and controller.position == [0.4]
    costs = np.array(profile.costs["latency_us"])
    held = costs[run(controller, np.float32(uncertainties(3000, False)[:, 1:] * 0.5))[0]]
    assert held[500:].mean() == pytest.approx(80, rel=0.05)


def test_a_target_that_is_met_is_not_said_to_be_missed():
    profile = profile_of(2)
    controller = Controller(profile, "latency_us", None)  # warnings are errors here
    run(controller, uncertainties(SAMPLES, False)[:, 1:])
    assert not controller.at_bound and not controller.drifted


def test_what_is_told_is_told_once_and_is_a_warning_where_nobody_listens():
    controller = Controller(profile_of(), "latency_us", 30.0, limit=(0.1, 0.1))
    with pytest.warns(UserWarning) as caught:
        run(controller, stream())
    said = [str(each.message) for each in caught]
    assert len(said) == 2 and "30.0 µs an image cannot be held" in said[0]
    assert "not like validation's, but harder for exit 1 (" in said[1]
    with pytest.warns(UserWarning, match="what was certified is no promise for them"):
        run(Controller(profile_of(certified=(0.3, 0.4)), "latency_us", 110.0), stream())


def test_a_budget_above_the_last_exits_cost_sends_all_to_the_end():
    said = []
    controller = Controller(profile_of(), "latency_us", 500.0, tell=said.append)
    left, _ = run(controller, uncertainties(2000, False))
    assert (left[100:] == 2).all() and "they cost less" in said[0] and "lower bound" in said[0]


def test_it_is_the_same_however_the_stream_is_cut():
    unsure = stream()
    whole, cut = quiet(profile_of(), "macs", 400.0), quiet(profile_of(), "macs", 400.0)
    one, _ = run(whole, unsure)
    other, _ = run(cut, unsure, cuts=(1, 2, 50, 51, 700, 9999))
    assert one.tolist() == other.tolist() and whole.state() == cut.state()
    single = quiet(profile_of(), "macs", 400.0)
    for row in unsure[:500].astype(float):
        taken = int(exit_indices(row[None], single.thresholds)[0])
        single.observe(taken + 1, row[taken])
    piece = quiet(profile_of(), "macs", 400.0)
    run(piece, unsure[:500])
    assert single.state() == piece.state()


@pytest.mark.parametrize(("hold", "target"), [("latency_us", 66.0), ("exit_rates", (0.5, 0.2))])
@pytest.mark.parametrize("at", [1, 16, 5003])
def test_it_goes_on_from_its_state_identically(hold, target, at, tmp_path):
    unsure = stream()
    first = quiet(profile_of(), hold, target, limit=(0.9, 0.6))
    run(first, unsure[:at])
    first.save(tmp_path / "state.json")
    second = quiet(profile_of(), hold, target, limit=(0.9, 0.6))
    second.load(tmp_path / "state.json")
    assert second.state() == first.state() and second.thresholds == first.thresholds
    assert run(first, unsure[at:])[0].tolist() == run(second, unsure[at:])[0].tolist()
    assert first.state() == second.state()
    json.dumps(first.state(), allow_nan=False)


def test_a_state_has_to_fit(tmp_path):
    controller, path = quiet(profile_of()), tmp_path / "state.json"
    good = controller.state()
    for change, words in (
        ({"network": "0"}, "of another network"),
        ({"hold": "macs"}, "holds macs, not latency_us"),
        ({"form": 2}, "no controller's state"),
        ({"position": [1, 2]}, "position is not 1 numbers"),
        ({"counts": [0, 0, -1]}, "counts are not whole"),
        ({"drift": None}, "damaged"),
        ({"told": ["x"]}, "told has"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=words) as caught:
            controller.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert controller.state() == good, "nothing of it is taken"
    for content in ("", "[]", "[" * 5000):
        path.write_text(content)
        with pytest.raises(UserError, match=r"state\.json"):
            controller.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        controller.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be written"):
        controller.save(tmp_path / "no folder" / "state.json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"target": 19.9},
            "target=19.9: it is at least 20.0 µs: that is what leaving at the cheapest exit costs",
        ),
        ({"target": math.nan}, "a number of µs"),
        ({"target": True}, "a number of µs"),
        ({"hold": "joules"}, "hold=joules: it is one of latency_us, macs, exit_rates"),
        ({"hold": "exit_rates", "target": [0.9]}, "2 fractions"),
        ({"hold": "exit_rates", "target": [0.9, 0.2]}, "add up to 1"),
        ({"hold": "exit_rates", "target": "ab"}, "2 fractions"),
        ({"step": 0}, "step=0"),
        ({"every": 0}, "every=0"),
        ({"safest": 0.6, "fastest": 0.5}, "safest=0.6: it is at most fastest=0.5"),
        ({"fastest": 1.1}, "fastest=1.1"),
        ({"limit": [0.1]}, r"limit=\[0.1\]: it is 2 thresholds, certified or none"),
        ({"limit": [0.1, -1]}, "limit="),
        ({"limit": "yes"}, "limit=yes"),
        ({"false_alarm": 0.5}, "false_alarm=0.5"),
    ],
)
def test_misuse_is_one_line(settings, words):
    with pytest.raises(UserError, match=words) as caught:
        Controller(profile_of(), **settings)
    assert "\n" not in str(caught.value)


def test_what_costs_the_same_everywhere_cannot_be_held():
    profile = profile_of(2)
    same = Profile(profile.thresholds, {"macs": (5.0, 5.0)}, profile.validation, 1.0)
    with pytest.raises(UserError, match="nothing to hold"):
        Controller(same, "macs")


def test_more_images_than_the_thresholds_are_for_are_a_bug():
    with pytest.raises(ValueError, match="17 images at once"):
        quiet(profile_of()).observe(np.ones(17, int), np.zeros(17))


def test_it_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import branchynet.runtime.controller, branchynet.runtime.adapt"
    subprocess.run([sys.executable, "-c", code], check=True)


def in_ten_lines(profile, limit, budget, exits_of):
    """The words of docs/deploy.md, apart from our classes; gives the thresholds of each round."""
    tables = []
    for q in profile.validation.uncertainty:
        top = profile.most
        grid = sorted({*q, *np.linspace(0, top, 101).tolist()})
        heights = [(np.interp(t, q, np.linspace(0, 1, 101)) + t / top) / 2 for t in grid]
        tables.append(([0.0, *(h / heights[-1] for h in heights[1:])], grid))
    own = [
        float(np.interp(t, table[1], table[0])) for t, table in zip(profile.thresholds, tables, strict=True)
    ]
    mean = p = sum(own) / len(own)
    costs = profile.costs["latency_us"]
    while True:
        heights = [p * o / mean if p <= mean else o + (1 - o) * (p - mean) / (1 - mean) for o in own]
        found = [
            math.inf if h >= 1 else float(np.interp(h, *table))
            for h, table in zip(heights, tables, strict=True)
        ]
        thresholds = [min(*pair) for pair in zip(found, limit, strict=True)]
        yield thresholds
        total = sum(costs[n] - budget for n in exits_of(thresholds))
        p = min(max(p + 0.01 * total / (max(costs) - min(costs)), -0.16), 1.16)


@pytest.mark.parametrize("exits", [2, 3])
def test_the_words_for_other_languages_are_what_it_does(exits):
    profile, unsure = profile_of(exits), stream(exits)
    controller = quiet(profile, "latency_us", 70.0)
    _, met = run(controller, unsure)
    rounds = iter(range(0, len(unsure), 16))

    def exits_of(thresholds):
        start = next(rounds)
        return exit_indices(unsure[start : start + 16], thresholds)

    words = in_ten_lines(profile, (math.inf,) * (exits - 1), 70.0, exits_of)
    for start in range(0, len(unsure) - 16, 16):
        assert met[start] == pytest.approx(next(words), rel=1e-5, abs=1e-6)
