"""Which trials are the best, and how they are told."""

import pytest
from optuna.trial import TrialState, create_trial

from branchynet.commands.search_report import best, differing, heading_of, said_of, went_on
from branchynet.commands.search_run import quiet


def trial(number, *values, state=TrialState.COMPLETE, **attrs):
    made = create_trial(values=values or None, state=state, user_attrs=attrs)
    made.number = number
    return made


def test_the_best_come_first_and_of_equals_the_first():
    trials = [trial(0, 1.0), trial(1, 3.0), trial(2, state=TrialState.FAIL), trial(3, 3.0), trial(4, 2.0)]
    assert [each.number for each in best(trials, ["gain"], 3)] == [1, 3, 4]
    assert [each.number for each in best(trials, ["macs"], 9)] == [0, 4, 1, 3]


def test_of_two_objectives_the_frontier():
    trials = [
        trial(0, 1.0, 0.9),
        trial(1, 3.0, 0.5),
        trial(2, 2.0, 0.5),
        trial(3, 2.0, 0.8),
        trial(4, 3.0, 0.4),
    ]
    assert [each.number for each in best(trials, ["gain", "accuracy"], 1)] == [1, 3, 0]
    # Less of both: the one that nothing is below, and where less of one is more of the other.
    assert [each.number for each in best(trials, ["macs", "macs_to_the_end"], 1)] == [0, 2, 4]


def test_a_trial_in_a_line():
    assert said_of(trial(0, 2.0, worth={"gain": 2.0, "accuracy": 0.5, "macs": 1e6}), ["macs"]) == (
        "macs 1.000 M, gain 2.000, accuracy 50.00 %"
    )
    assert said_of(trial(0, state=TrialState.FAIL, failed="too large"), ["gain"]) == "too large"
    assert said_of(trial(0, state=TrialState.FAIL), ["gain"]) == "cut off"
    early = trial(0, state=TrialState.PRUNED)
    early.intermediate_values = {0: 0.5}
    assert said_of(early, ["gain"]) == "ended early, after 1 epoch"
    assert said_of(trial(0, state=TrialState.PRUNED, failed="no gain"), ["gain"]) == "no gain"


def test_what_was_cut_off_and_went_on_counts_once():
    trials = [trial(0, 1.0), *(trial(n, state=TrialState.FAIL) for n in (1, 2)), trial(3, 2.0)]
    with quiet():
        assert heading_of(trials) == "4 trials: 2 trained to the end, 2 failed or cut off."
        for number, before in ((2, [1]), (3, [1, 2])):
            trials[number].system_attrs |= {"failed_trial": 1, "retry_history": before}
        assert went_on(trials) == {1: 2, 2: 3}
        assert heading_of(trials) == (
            "2 trials: 2 trained to the end. Numbers go on to 3, for 2 cut off went on under another."
        )


@pytest.mark.parametrize(
    ("whole", "usual", "found"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}}, {"b": {"d": 3}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1, 2]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": {"b": 1}}),
        ({"a": None}, {}, {"a": None}),
        ({"a": 1}, {"a": 1}, {}),
    ],
)
def test_what_differs(whole, usual, found):
    assert differing(whole, usual) == found
