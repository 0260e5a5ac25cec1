"""The form of manifest.json: a line for every value that it may not have. A line in the table is a case."""

import copy
import json
import math
import time

import pytest
from damage import DROP, change
from pydantic import ValidationError

from branchynet.exports.form import Form
from branchynet.exports.manifest import FILE
from branchynet.forms import json_schema, what_is_wrong

# What is set where, and words of what is said of it; DROP takes it away.
CASES = [
    ("format", "tflite", "format is 'tflite': input should be 'segments', 'single' or 'torch'"),
    ("thresholds", [0.1], "thresholds has 1 entries where 2 belong"),
    ("thresholds", [], "thresholds has 0"),
    ("shares", [0, 0.5], "shares has 2 entries where 3 belong"),
    ("shares", [0, 0.5, 1.5], "shares.2 is '1.5'"),
    ("state", -1, "state is '-1'"),
    ("state", 10**9, "state is '1000000000'"),
    ("thresholds", [0.1, 0.2, 0.3], "thresholds has 3"),
    ("thresholds", [0.1, "0.1"], "thresholds.1 is '0.1'"),
    ("thresholds", [math.nan, 1], "thresholds.0 is 'nan'"),
    ("thresholds", [math.inf, 1], "thresholds.0 is 'inf'"),
    ("thresholds", [10**400, 1], "thresholds.0 is '1000"),
    ("thresholds", [True, 1], "thresholds.0 is 'True'"),
    ("thresholds", {}, "thresholds is '{}'"),
    ("classes", ["one"], "classes is \"['one']\""),
    ("classes", [1, 2], "classes.0 is '1'"),
    ("input.dtype", "float32", "input.dtype is 'float32': input should be 'uint8'"),
    ("input.layout", "NHWC", "input.layout is 'NHWC'"),
    ("input.shape", [12, 12], "input.shape"),
    ("input.shape", [1, 12, 12, 1], "input.shape"),
    ("input.shape", [1, 12, 0], "input.shape.2 is '0'"),
    ("input.shape", [1, 12.0, 12], "input.shape.1 is '12.0'"),
    ("input.shape", [1, 10**5, 10**5], "input.shape is [1, 100000, 100000]: more than 67,108,864 values"),
    ("input.shape", [3, 12, 12], "normalisation.mean has 1 entries where 3 belong"),
    ("input", [], "input is '[]'"),
    ("normalisation.mean", [math.nan], "normalisation.mean.0 is 'nan'"),
    ("normalisation.mean", [0.1, 0.2], "normalisation.mean has 2"),
    ("normalisation.std", [math.inf], "normalisation.std.0 is 'inf'"),
    ("normalisation.std", [0], "normalisation.std.0 is '0'"),
    ("normalisation.std", [], "normalisation.std has 0"),
    ("image_files.size", "cut", "image_files.size is 'cut': input should be 'bilinear', 'crop' or 'refuse'"),
    ("image_files.channels", "drop", "image_files.channels is 'drop'"),
    ("image_files.background", [0, 0], "image_files.background has 2 entries where 1 belong"),
    ("image_files.background", [256], "image_files.background.0 is '256'"),
    ("image_files.invert", 1, "image_files.invert is '1'"),
    ("image_files.border", [255, 0], "image_files.border is [255, 0]: it goes from the lower"),
    ("classes", ["one", "two", "one"], "classes has 'one' twice"),
    ("costs.exits.1.latency_us", 1e308, "costs.exits.1.latency_us is '1e+308'"),
    ("costs.baseline.latency_us", 1e13, "costs.baseline.latency_us is '1"),
    ("costs.exits.0.macs", 10**300, "costs.exits.0.macs is '1000"),
    ("image_files.border", [1], "image_files.border is '[1]'"),
    ("uncertainty.most", math.nan, "uncertainty.most is 'nan'"),
    ("costs.threads", 0, "costs.threads is '0'"),
    ("costs.baseline.macs", 0, "costs.baseline.macs is '0'"),
    ("costs.baseline.macs", 1.5, "costs.baseline.macs is '1.5'"),
    ("costs.baseline.latency_us", 0, "costs.baseline.latency_us is '0'"),
    ("costs.exits.1.latency_us", math.nan, "costs.exits.1.latency_us is 'nan'"),
    ("costs.exits.1.latency_us", math.inf, "costs.exits.1.latency_us is 'inf'"),
    ("costs.exits.1.latency_us", -1, "costs.exits.1.latency_us is '-1'"),
    ("costs.exits", [], "costs.exits is '[]'"),
    ("costs.exits.2", DROP, "thresholds has 2 entries where 1 belong"),
    ("files", [], "files is '[]'"),
    ("files.2", DROP, "files has 2 entries where 3 belong"),
    ("files.0.name", "segment-2.onnx", "files has 2 entries where 3 belong"),
    ("files.0.name", "../up.onnx", "files.0.name is '../up.onnx'"),
    ("files.0.name", "/dev/zero", "files.0.name is '/dev/zero'"),
    ("files.0.name", "a\\b", "files.0.name is"),
    ("files.0.name", "a\0b", "files.0.name is"),
    ("files.0.name", "..", "files has a name that is none"),
    ("files.0.sha256", "00", "files.0.sha256 is '00'"),
    ("files.0.bytes", -1, "files.0.bytes is '-1'"),
    ("files.0.inputs.0.dtype", "float16", "files.0.inputs.0.dtype is 'float16'"),
    ("files.0.inputs.0.shape", ["N"], "files.0.inputs.0.shape.0"),
    *(
        (key, DROP, f"it has no {key}")
        for key in ("format", "experiment", "criterion", "thresholds", "classes")
    ),
    *((key, DROP, f"it has no {key}") for key in ("input", "input.shape", "input.dtype", "input.layout")),
    *(
        (key, DROP, f"it has no {key}")
        for key in ("normalisation.mean", "normalisation.std", "image_files.size")
    ),
    *(
        (key, DROP, f"it has no {key}")
        for key in ("image_files.channels", "costs", "costs.engine", "costs.exits")
    ),
    *(
        (key, DROP, f"it has no {key}")
        for key in ("costs.threads", "costs.machine", "costs.baseline", "files")
    ),
    *(
        (key, DROP, f"it has no {key}")
        for key in ("uncertainty", "stop_rule", "loop", "sha256", "files.1.bytes")
    ),
    *((key, DROP, f"it has no {key}") for key in ("files.1.inputs", "files.2.outputs", "files.0.name")),
]


@pytest.fixture(scope="module")
def content(folders):
    """What is written; not to be changed."""
    return json.loads((folders["segments"] / FILE).read_bytes())


@pytest.mark.parametrize(("key", "value", "words"), CASES)
def test_a_value_that_may_not_be_is_named(key, value, words, content):
    with pytest.raises(ValidationError) as caught:
        Form.model_validate(change(copy.deepcopy(content), key, value))
    reason = what_is_wrong(caught.value)
    assert reason.startswith(words) and "\n" not in reason and len(reason) < 250, reason


def test_what_is_written_has_the_form_and_keys_of_others_are_allowed(content):
    assert Form.model_validate({**content, "mine": 1}).format == "segments"
    # No threshold is too high: the sweep tries one above all uncertainties.
    assert Form.model_validate({**content, "thresholds": [5, -1e30]}).thresholds == [5, -1e30]


def test_a_million_mistakes_take_no_longer_than_one(content):
    start = time.process_time()
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({**content, "classes": [1] * 10**6})
    assert caught.value.error_count() == 1 and time.process_time() - start < 1


def test_the_schema_says_what_is_needed_and_what_it_means(content):
    schema = json.loads(json_schema(Form))
    assert {key for key in Form.model_fields if Form.model_fields[key].is_required()} == set(
        schema["required"]
    )
    assert "strictly" not in json_schema(Form) and "but for rounding" in json_schema(Form)
    cost = schema["$defs"]["Cost"]["properties"]
    assert cost["latency_us"]["exclusiveMinimum"] == 0 and "microseconds" in cost["latency_us"]["description"]
    assert schema["properties"]["format"]["enum"] == ["segments", "single", "torch"]
