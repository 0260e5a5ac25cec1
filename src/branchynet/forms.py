"""What the forms of files and settings share: their types, their JSON Schema, and how a mistake is told.

A form is a class of pydantic's. Nothing here needs PyTorch.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from branchynet.errors import reason_of

Name = Annotated[str, Field(min_length=1)]
Above0 = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """Of the very types, and numbers are finite. Keys that are not named are allowed: later versions add some."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def json_schema(form: type[BaseModel]) -> str:
    """The JSON Schema of a form, as a file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **form.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def what_is_wrong(error: Exception) -> str:
    """What was found wrong first in a file, in a few words: against its form, or before that."""
    if not isinstance(error, ValidationError):
        return reason_of(error)
    first: Any = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"it has no {place}"
    if first["type"] == "value_error":  # raised by a form itself, in its own words
        return str(first["ctx"]["error"])
    return f"{place} is {str(first['input'])[:80]!r}: {problem(error)}" if place else problem(error)


def problem(error: ValidationError) -> str:
    """What pydantic says of the first value that is wrong, such as "input should be a valid number"."""
    text = error.errors()[0]["msg"]
    return f"{text[0].lower()}{text[1:]}"
