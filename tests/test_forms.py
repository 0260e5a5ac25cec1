"""The forms' own rules, and how a mistake is told, whichever form it is in."""

import json

import pytest
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from branchynet.forms import Above0, Name, Part, json_schema, problem, what_is_wrong


class Inner(Part):
    name: Name = "x"
    cost: Above0


class Outer(Part):
    """What it is."""

    parts: list[Inner] = Field(default=[])
    count: int = 0

    @model_validator(mode="after")
    def _fits(self):
        if self.count > 5:
            raise ValueError("count is too high")
        return self


def wrong(content):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(content)
    return caught.value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"parts": [{"cost": 1}, {}]}', "it has no parts.1.cost"),
        ('{"parts": [{"cost": 0}]}', "parts.0.cost is '0': input should be greater than 0"),
        ('{"parts": [{"cost": NaN}]}', "parts.0.cost is 'nan': input should be a finite number"),
        (
            '{"parts": [{"cost": 1, "name": ""}]}',
            "parts.0.name is '': string should have at least 1 character",
        ),
        ('{"count": true}', "count is 'True': input should be a valid integer"),
        ('{"count": 9}', "count is too high"),
        ('{"count": 1' + "0" * 4200 + "}", "count is too high"),
        ('{"count": 1' + "0" * 9000 + "}", "invalid JSON: "),
        ("[1]", "input should be an object"),
        ("{", "invalid JSON: EOF while parsing an object at line 1 column 1"),
        ('{"count": "' + "x" * 10_000 + '"}', "count is '" + "x" * 80 + "': input should be a valid integer"),
    ],
)
def test_the_first_mistake_is_told_by_its_place_in_few_words(content, words):
    reason = what_is_wrong(wrong(content))
    assert reason.startswith(words) and "\n" not in reason and len(reason) < 250


def test_what_is_wrong_before_a_form_is_looked_at():
    assert what_is_wrong(OSError("cannot\n be read")) == "cannot be read"


def test_what_pydantic_says_alone():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("a")
    assert problem(caught.value).startswith("input should be a valid integer")


def test_keys_of_later_versions_are_allowed_and_the_schema_says_so():
    assert Outer.model_validate({"count": 1, "more": 2}).count == 1
    text = json_schema(Outer)
    schema = json.loads(text)
    assert text.endswith("}\n") and "2020-12" in schema["$schema"]
    assert schema["description"] == "What it is." and schema["additionalProperties"] is True
    assert schema["$defs"]["Inner"]["properties"]["cost"]["exclusiveMinimum"] == 0
