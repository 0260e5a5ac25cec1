"""Names, types and shapes of the models' inputs and outputs."""

from branchynet.exports.tensors import of_segment, of_single


def test_a_segments():
    first, middle, last = (
        of_segment(1, (3, 8, 6), (4, 2, 2)),
        of_segment(2, (4, 2, 2), (9,)),
        of_segment(3, (9,), None),
    )
    assert first.inputs == (("image", "uint8", "NCHW", ("B", 3, 8, 6)),)
    assert first.outputs == (
        ("prediction_1", "int64", "N", ("B",)),
        ("uncertainty_1", "float32", "N", ("B",)),
        ("confidence_1", "float32", "N", ("B",)),
        ("features_1", "float32", "NCHW", ("B", 4, 2, 2)),
    )
    assert middle.inputs == first.outputs[-1:] and middle.outputs[-1] == (
        "features_2",
        "float32",
        "NC",
        ("B", 9),
    )
    assert last.inputs == middle.outputs[-1:] and len(last.outputs) == 3
    both = of_segment(2, (4, 2, 2), (9,), {"state": 3, "answer": 10}, {"state": 3})
    assert both.inputs[1:] == (
        ("answer_1", "float32", "NK", ("B", 10)),
        ("state_1", "float32", "NW", ("B", 3)),
    )
    assert both.outputs[-2:] == (*middle.outputs[-1:], ("state_2", "float32", "NW", ("B", 3)))
    assert of_segment(2, (5, 7), None).inputs[0].layout == "NTC"
    assert of_segment(2, (2, 3, 4, 5), None).inputs[0].layout == "row-major"


def test_those_of_one_model_with_the_exits_inside():
    found = of_single((1, 8, 6), 3)
    assert found.inputs[0] == ("image", "uint8", "NCHW", (1, 1, 8, 6))
    assert found.inputs[1][:2] == ("thresholds", "float32") and found.inputs[1].shape == (2,)
    assert [(each.name, each.dtype, each.shape) for each in found.outputs] == [
        ("prediction", "int64", (1,)),
        ("exit", "int64", (1,)),
        ("uncertainty", "float32", (1,)),
        ("confidence", "float32", (1,)),
    ]
