"""Every format against the slow loop of the paper's Figure 2, from bytes to answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import branchynet
from branchynet.data.normalise import normalisation, normalise
from branchynet.exits.beem import Beem
from branchynet.exits.criteria import Entropy
from branchynet.exports.load import load_export
from branchynet.exports.manifest import FORMATS, checksum, read_manifest
from branchynet.exports.write import in_memory, model_steps, write_export
from branchynet.runtime.base import forced


@pytest.mark.parametrize("size", [1, 2, 33, 257])
def test_every_format_is_the_slow_loop(size, exported, network, pixels, normalised, middling, figure_2):
    exported.thresholds = middling
    prediction, exits, uncertainty = figure_2(network, normalised, middling)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    outcomes = [exported.run(pixels[i : i + size]) for i in range(0, len(pixels), size)]
    assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
    assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
    np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"), [("segments", Entropy), *((name, Beem) for name in [*FORMATS, "in memory"])]
)
def test_averaged_exits_are_the_slow_loop(
    name, kind, averaged, averaged_folder, manifest, pixels, normalised, figure_2
):
    """Answers are handed on, and the state of a criterion that looks back."""
    network, halving = averaged
    thresholds, criteria = halving(kind), [kind()] * 2
    prediction, exits, uncertainty = figure_2(network, normalised, thresholds, criteria)
    assert np.bincount(exits).tolist() == [128, 129]
    plain = figure_2(network.with_shares(None), normalised, thresholds, criteria)
    assert (prediction != plain[0]).any(), "it matters"
    if name == "in memory":
        costs = replace(manifest.costs, exits=manifest.costs.exits[:2])
        own = replace(manifest, thresholds=thresholds, costs=costs)
        exported = in_memory(network, criteria, own)
    else:
        exported = load_export(averaged_folder(name, kind), trust=name == "torch")
        # An older reader does not know what goes from model to model; inside of one it is not its business.
        version, state = (2, 0) if name == "single" else (4, 4) if kind is Beem else (3, 0)
        assert (exported.manifest.format_version, exported.manifest.state) == (version, state)
        assert exported.manifest.shares == (0, 0.6)
    for size in (1, 33, 257):
        outcomes = [exported.run(pixels[i : i + size]) for i in range(0, len(pixels), size)]
        assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
        assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
        np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


def test_plain_exits_are_exported_as_before(folders, averaged_folder):
    plain = json.loads((folders["segments"] / "manifest.json").read_text())
    assert (
        plain["format_version"] == 2
        and not {"shares", "state"} & set(plain)
        and "answer" not in " ".join(plain["loop"][:-1])
    )
    assert not [each for file in plain["files"] for each in file["outputs"] if "answer" in each["name"]]
    found = json.loads((averaged_folder("segments") / "manifest.json").read_text())
    answer = {"name": "answer_1", "dtype": "float32", "layout": "NK", "shape": ["B", 10]}
    assert found["files"][0]["outputs"][-1] == found["files"][1]["inputs"][-1] == answer
    assert "answer" in " ".join(found["loop"][:-1]) and "state" not in found
    looking_back = json.loads((averaged_folder("segments", Beem) / "manifest.json").read_text())
    state = {"name": "state_1", "dtype": "float32", "layout": "NW", "shape": ["B", 4]}
    assert (
        looking_back["files"][0]["outputs"][-2:] == looking_back["files"][1]["inputs"][-2:] == [answer, state]
    )
    assert looking_back["state"] == 4 and "state" in looking_back["loop"][2]


@pytest.mark.parametrize("name", [*FORMATS, "in memory"])
def test_criteria_of_the_exits_own_are_the_slow_loop(
    name, own_criteria, network, manifest, pixels, normalised, thirds, figure_2, tmp_path
):
    """They have parameters, other ones at every exit, look at the features, and one of them back."""
    thresholds = thirds(network, own_criteria, normalised)
    prediction, exits, uncertainty = figure_2(network, normalised, thresholds, own_criteria)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    if name == "in memory":
        exported = in_memory(network, own_criteria, replace(manifest, thresholds=thresholds))
    else:
        write_export(tmp_path, network, own_criteria, replace(manifest, format=name, thresholds=thresholds))
        exported = load_export(tmp_path, trust=True)
    for size in (1, 33, 257):
        outcomes = [exported.run(pixels[i : i + size]) for i in range(0, len(pixels), size)]
        assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
        assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
        np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_thresholds_can_be_set_and_the_confidence_is_the_largest_probability(
    exit, exported, network, pixels, normalised
):
    exported.thresholds = forced(exit, 3)
    with torch.no_grad():
        p = network(torch.from_numpy(normalised))[exit].softmax(dim=1)
    answer = exported.answer(pixels)
    assert (answer.exit_index == exit).all() and np.array_equal(answer.prediction, p.argmax(1).numpy())
    np.testing.assert_allclose(answer.confidence, p.max(1).values.numpy(), atol=1e-5)
    assert [column.dtype for column in answer] == [np.int64, np.int64, np.float32, np.float32]


def test_normalisation_is_that_of_training_to_the_last_bit(network, criteria, manifest, pixels):
    # The first exit hangs on the input: its features are the normalised image.
    x = torch.from_numpy(pixels)
    before = x.clone()
    with torch.no_grad():
        features = model_steps(network, criteria, manifest)[0](x)[-1]
    assert torch.equal(features, normalise(x, *normalisation(manifest.mean, manifest.std)))
    assert torch.equal(x, before)


def test_steps_hand_features_on_but_for_the_last(network, criteria, manifest):
    """Prediction, uncertainty and confidence; in eval mode, and nothing is shared with the network."""
    network.train()
    try:
        steps = model_steps(network, criteria, manifest)
        assert network.training
    finally:
        network.eval()
    assert [step.forwards for step in steps] == [True, True, False]
    assert not any(module.training for step in steps for module in step.modules())
    theirs = {id(parameter) for parameter in network.parameters()}
    assert not theirs & {id(parameter) for step in steps for parameter in step.parameters()}


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_names_the_files_and_their_checksums(name, folders, manifest):
    written = read_manifest(folders[name])
    suffix = "pt2" if name == "torch" else "onnx"
    names = ["model.onnx"] if name == "single" else [f"segment-{n}.{suffix}" for n in (1, 2, 3)]
    assert list(written.files) == names
    for each, file in written.files.items():
        content = (folders[name] / each).read_bytes()
        assert (file.sha256, file.bytes) == (checksum(content), len(content))
    assert replace(written, files={}) == replace(manifest, format=name)
    assert {file.name for file in folders[name].iterdir()} == {
        *names,
        "manifest.json",
        "manifest.schema.json",
    }
    assert json.loads((folders[name] / "manifest.json").read_bytes())["criterion"] == "entropy"


def test_the_manifest_states_the_inputs_and_outputs_that_the_models_have(folders):
    """By the models themselves; features have as many values as the toy network's layers give."""
    kinds = {
        onnx.TensorProto.UINT8: "uint8",
        onnx.TensorProto.INT64: "int64",
        onnx.TensorProto.FLOAT: "float32",
    }
    for name in ("segments", "single"):
        for file, stated in read_manifest(folders[name]).files.items():
            graph = onnx.load(folders[name] / file).graph
            for has, says in ((graph.input, stated.tensors.inputs), (graph.output, stated.tensors.outputs)):
                assert [each.name for each in has] == [each.name for each in says]
                types = [each.type.tensor_type for each in has]
                assert [kinds[each.elem_type] for each in types] == [each.dtype for each in says]
                sizes = [tuple(size.dim_value or "B" for size in each.shape.dim) for each in types]
                assert sizes == [each.shape for each in says]
    last = read_manifest(folders["segments"]).files["segment-3.onnx"].tensors
    assert last.inputs == (("features_2", "float32", "NCHW", ("B", 6, 12, 12)),)
    assert [each.name for each in last.outputs] == ["prediction_3", "uncertainty_3", "confidence_3"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_source_paths_travel_in_an_export(name, folders):
    source = str(Path(branchynet.__file__).parent).encode()
    for file in folders[name].iterdir():
        assert source not in file.read_bytes(), file.name
