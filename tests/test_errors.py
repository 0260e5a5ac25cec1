"""How mistakes are worded, and who names the argument."""

import copy
import json
import math
import pickle

import pytest

from branchynet.errors import (
    MOST_PROCESSORS,
    ArgumentError,
    UserError,
    check_choice,
    check_flag,
    check_processors,
    check_whole,
    counted,
    is_number,
    is_whole,
    not_allowed,
    one_line,
    printable,
    reason_of,
    settings_of,
)


def message(function, *arguments, **options):
    """What the ArgumentError says; None where there is none."""
    try:
        function(*arguments, **options)
    except ArgumentError as error:
        return str(error)
    return None


def test_a_message_begins_with_the_arguments_name():
    error = not_allowed("distance", -1, "a finite number, 0 or more")
    assert isinstance(error, ArgumentError) and isinstance(error, UserError)
    assert str(error) == "distance=-1: it is a finite number, 0 or more"
    assert (error.name, error.problem) == ("distance", "=-1: it is a finite number, 0 or more")
    assert str(ArgumentError("thresholds", " has 'a'")) == "thresholds has 'a'"


def test_below_puts_the_setting_in_front_and_leaves_the_error_as_it_was():
    error = not_allowed("distance", -1, "0 or more")
    longer = error.below("rule").below("sweep")
    assert type(longer) is ArgumentError and str(longer) == "sweep.rule.distance=-1: it is 0 or more"
    assert longer.name == "sweep.rule.distance" and str(error) == "distance=-1: it is 0 or more"


def test_inside_settings_of_an_argument_has_the_settings_name():
    cause = KeyError("why")
    with pytest.raises(ArgumentError) as caught, settings_of("sweep"), settings_of("rule"):
        raise not_allowed("distance", -1, "0 or more") from cause
    assert str(caught.value) == "sweep.rule.distance=-1: it is 0 or more"
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("error", [UserError("the loss is nan"), ValueError("a bug"), KeyboardInterrupt()])
def test_settings_of_leaves_other_errors_alone(error):
    with pytest.raises(type(error)) as caught, settings_of("sweep"):
        raise error
    assert caught.value is error


def test_settings_of_does_nothing_where_nothing_is_wrong():
    with settings_of("sweep"):
        found = 1
    assert found == 1


@pytest.mark.parametrize("send", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_mistakes_reach_other_processes_as_they_are(send):
    for error in (not_allowed("distance", -1, "0 or more"), UserError("the loss is nan")):
        received = send(error)
        assert type(received) is type(error) and str(received) == str(error)
    received = send(not_allowed("distance", -1, "0 or more"))
    assert str(received.below("rule")) == "rule.distance=-1: it is 0 or more"


def test_a_choice_is_one_of_those_allowed():
    assert message(check_choice, "fill", "zero", ("zero", "reflect")) is None
    assert message(check_choice, "pool", 2, (0, 2, 3)) is None
    for value in ("mirror", None, ["zero"], 0):
        assert message(check_choice, "fill", value, ("zero", "reflect")) == (
            f"fill={value}: it is one of zero, reflect"
        )
    assert message(check_choice, "pool", 5, (0, 2, 3)) == "pool=5: it is one of 0, 2, 3"


def test_a_flag_is_true_or_false():
    assert message(check_flag, "flip", True) is message(check_flag, "flip", False) is None
    for value in (0, 1, "yes", None):
        assert message(check_flag, "flip", value) == f"flip={value}: it is true or false"


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_what_is_no_whole_number_above_0_gets_one_line(value):
    for fine in (1, 110):
        assert message(check_whole, "depth", fine) is None
    assert message(check_whole, "depth", value) == f"depth={value}: it is a whole number above 0"


def test_a_whole_number_may_have_other_ends_and_a_hint():
    assert message(check_whole, "shift", 0, 0) is None
    assert message(check_whole, "shift", -1, 0) == "shift=-1: it is a whole number, 0 or more"
    assert message(check_whole, "shift", -1, 0, hint=", of pixels") == (
        "shift=-1: it is a whole number, 0 or more, of pixels"
    )
    for fine in (2, 7):
        assert message(check_whole, "n", fine, 2, 7) is None
    for wrong in (1, 8, True, 2.0):
        assert message(check_whole, "n", wrong, 2, 7) == f"n={wrong}: it is a whole number, 2 … 7"
    assert (
        message(check_whole, "n", 0, hint=", such as 40000")
        == "n=0: it is a whole number above 0, such as 40000"
    )


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (0, False, True),
        (1, True, True),
        (-3, False, True),
        (2.0, False, True),
        (math.nan, False, True),
        (math.inf, False, True),
        (True, False, False),
        (False, False, False),
        ("1", False, False),
        (None, False, False),
        (1j, False, False),
    ],
)
def test_what_counts_as_a_number(value, whole, number):
    assert is_whole(value) is whole
    assert is_number(value) is number


def test_whole_numbers_from_another_least_one():
    assert is_whole(0, 0) and is_whole(5, 5)
    assert not is_whole(-1, 0) and not is_whole(4, 5) and not is_whole(False, 0)


def test_names_of_others_control_no_terminal():
    assert printable("plain\xa0你 µ\u3000…") == "plain\xa0你 µ\u3000…"
    odd = "a\x1b[31m\n\x9b\udc80\u202eb\u2028"
    assert printable(odd) == r"a\u001b[31m\u000a\u009b\udc80\u202eb\u2028"
    assert json.loads(printable(json.dumps({"name": odd}, ensure_ascii=False))) == {"name": odd}


def test_one_line():
    assert one_line("  a\n\tb   c\r\n") == "a b c"


def test_what_others_say_is_one_line_and_no_longer_than_asked():
    error = ValueError("first\n    second " + 300 * "x")
    assert reason_of(error) == "first second " + 147 * "x"
    assert reason_of(error, 8) == "first se"
    assert reason_of(KeyError()) == ""


def test_one_is_singular():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_threads_and_processes_are_a_few_times_the_cores_at_most(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 100)
    check_processors("n", 400)
    check_processors("n", 0, 0)
    with pytest.raises(ArgumentError, match=r"^n=401: it is at most 400: this machine has 100 cores$"):
        check_processors("n", 401)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    check_processors("n", MOST_PROCESSORS)
    for wrong in (0, MOST_PROCESSORS + 1, 1.0, "2"):
        with pytest.raises(ArgumentError):
            check_processors("n", wrong)
