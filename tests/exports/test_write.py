"""Every format against the slow loop of the paper's Figure 2, from bytes to answers, and without PyTorch."""

import copy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import branchynet
from branchynet.data.loader import normalisation, normalise
from branchynet.errors import UserError
from branchynet.exits.criteria import entropy
from branchynet.exports.agreement import agreement
from branchynet.runtime.engine import forced
from branchynet.exports.write import exit_steps, in_memory, write_export
from branchynet.exports.load import Answer, by_exit, load_export
from branchynet.exports.manifest import (
    FORMATS,
    Cost,
    Costs,
    Manifest,
    checksum,
    read_manifest,
    write_manifest,
)
from branchynet.exports.replay import replay

SHAPE = (1, 12, 12)
MEAN, STD = (0.4,), (0.3,)


@pytest.fixture(scope="module")
def middling(network, normalised):
    """Thresholds that send a third of the images out at each exit, and no image near them."""
    with torch.no_grad():
        uncertainty = torch.stack([entropy(out) for out in network(torch.from_numpy(normalised))], 1)
    first = uncertainty[:, 0].sort().values
    rest = uncertainty[uncertainty[:, 0] >= first[85], 1].sort().values
    return float(first[84] + first[85]) / 2, float(rest[84] + rest[85]) / 2


@pytest.fixture(scope="module")
def manifest(middling):
    costs = Costs("torch", 1, "a machine", Cost(3, 3.0), (Cost(1, 1.0), Cost(2, 2.0), Cost(3, 3.0)))
    return Manifest("segments", "toy", "entropy", middling, tuple("0123456789"), SHAPE, MEAN, STD, costs)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (257, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def normalised(pixels):
    return (pixels.astype(np.float32) / 255 - MEAN[0]) / np.float32(STD[0])


@pytest.fixture(scope="module")
def folders(network, manifest, tmp_path_factory):
    """An export of each format."""
    made = {}
    for name in FORMATS:
        made[name] = tmp_path_factory.mktemp(name)
        write_export(made[name], network, replace(manifest, format=name))
    return made


@pytest.fixture(scope="module", params=[*FORMATS, "in memory"])
def exported(request, folders, network, manifest):
    if request.param == "in memory":
        return in_memory(network, manifest)
    return load_export(folders[request.param], trust=request.param == "torch")


@pytest.mark.parametrize("size", [1, 2, 33, 257])
def test_every_format_is_the_slow_loop(size, exported, network, pixels, normalised, middling, figure_2):
    exported.thresholds = middling
    prediction, exits, uncertainty = figure_2(network, normalised, middling)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    outcomes = [exported.run(pixels[i : i + size]) for i in range(0, len(pixels), size)]
    assert np.array_equal(np.concatenate([o.exit for o in outcomes]), exits)
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
    assert (answer.exit == exit).all() and np.array_equal(answer.prediction, p.argmax(1).numpy())
    np.testing.assert_allclose(answer.confidence, p.max(1).values.numpy(), atol=1e-5)
    assert [column.dtype for column in answer] == [np.int64, np.int64, np.float32, np.float32]


def test_normalisation_is_that_of_training_to_the_last_bit(network, manifest, pixels):
    # The first exit hangs on the input: its features are the normalised image.
    x = torch.from_numpy(pixels)
    with torch.no_grad():
        features = exit_steps(network, manifest)[0](x)[-1]
    assert torch.equal(features, normalise(x, *normalisation(MEAN, STD)))


def test_the_single_model_knows_its_thresholds_and_takes_others(
    folders, network, pixels, normalised, middling, figure_2
):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folders["single"] / "model.onnx", options)
    for thresholds in (middling, (0.5, 2.2)):
        given = {} if thresholds == middling else {"thresholds": np.float32(thresholds)}
        taken = [session.run(["exit"], {"image": x[None], **given})[0][0] for x in pixels[:60]]
        assert taken == figure_2(network, normalised[:60], thresholds)[1].tolist()


def test_deeper_layers_of_the_single_model_lie_in_branches(folders):
    """What is not needed is not run: an If runs one of its branches."""

    def depth(graph):
        (inner,) = [node for node in graph.node if node.op_type == "If"] or [None]
        convs = sum(node.op_type == "Conv" for node in graph.node)
        branch = {a.name: a.g for a in inner.attribute} if inner else {}
        return [convs, *(depth(branch["else_branch"]) if inner else [])]

    # Nothing but a linear head on the input; conv 1 and the convolution of head 2; the rest.
    assert depth(onnx.load(folders["single"] / "model.onnx").graph) == [0, 2, 0]


def test_steps_behind_the_exit_that_was_taken_are_not_run():
    def first(x):
        return np.zeros(len(x), np.int64), np.float32(x), np.ones(len(x), np.float32), x

    def fail(x):
        assert x.tolist() == [5, 7], "only those that did not leave, in their order"
        return np.ones(2, np.int64), np.float32([9, 8]), np.ones(2, np.float32)

    answer = by_exit([first, fail])(np.float32([1, 5, 2, 7]), (3.0,))
    assert answer.exit.tolist() == [0, 1, 0, 1] and answer.uncertainty.tolist() == [1, 9, 2, 8]
    assert (by_exit([first, fail])(np.float32([1, 2]), (3.0,)).exit == 0).all()


@pytest.mark.parametrize("name", FORMATS)
def test_no_source_paths_travel_in_an_export(name, folders):
    source = str(Path(branchynet.__file__).parent).encode()
    for file in folders[name].iterdir():
        assert source not in file.read_bytes(), file.name


@pytest.mark.parametrize("name", ["segments", "single"])
def test_another_process_without_torch_says_the_same(name, folders, pixels, middling):
    points = np.float32([middling, (0.5, 2.2)])
    answers = replay(folders[name], pixels, points, trust=False)
    for answer, thresholds in zip(answers, points, strict=True):
        here = load_export(folders[name])
        here.thresholds = thresholds
        for ours, theirs in zip(here.answer(pixels), answer, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_that_process_really_has_no_torch_and_loading_needs_none():
    code = (
        "import sys; import branchynet; branchynet.load_export; assert 'torch' not in sys.modules;"
        "from branchynet.exports.replay import NoTorch; sys.meta_path.insert(0, NoTorch());"
        "import numpy\n"
        "try: import torch\n"
        "except ImportError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_agreement_is_found_and_so_is_its_lack(folders, network, manifest, pixels, normalised):
    x = torch.from_numpy(normalised)
    found = agreement(folders["segments"], network, manifest, pixels, x)
    assert found.images == 257 and found.operating_point.unexplained == found.elsewhere.unexplained == 0
    assert 0 < found.uncertainty < 1e-5 and found.confidence < 1e-5
    # The last exit of another network: nothing of it shows where all leave before.
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.heads[-1].fc.bias[3] += 0.5
    found = agreement(folders["segments"], other, replace(manifest, thresholds=(9.0, 9.0)), pixels, x)
    assert found.operating_point.differences == 0 and found.elsewhere.unexplained > 0
    assert found.uncertainty > 1e-3 and found.confidence > 1e-3


@pytest.fixture
def copied(folders, tmp_path):
    return shutil.copytree(folders["segments"], tmp_path / "export")


def test_a_damaged_model_is_refused(copied):
    content = bytearray((copied / "segment-2.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "segment-2.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"segment-2\.onnx is damaged"):
        load_export(copied)


def test_a_model_that_is_none_gets_one_line_even_where_the_checksum_fits(copied, manifest):
    written = read_manifest(copied)
    (copied / "segment-2.onnx").write_bytes(b"no model")
    write_manifest(copied, replace(written, files={**written.files, "segment-2.onnx": checksum(b"no model")}))
    with pytest.raises(UserError, match="ONNX Runtime") as caught:
        load_export(copied)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_the_manifests_is_refused(copied):
    write_manifest(copied, replace(read_manifest(copied), input_shape=(1, 13, 12)))
    with pytest.raises(UserError, match=r"its manifest says image \(B, 1, 13, 12\)"):
        load_export(copied)


def test_programs_of_torch_are_loaded_only_where_they_are_trusted(folders, tmp_path):
    folder = shutil.copytree(folders["torch"], tmp_path / "export")
    for file in folder.glob("*.pt2"):
        file.unlink()  # it is not even looked at
    with pytest.raises(UserError, match="trust=true"):
        load_export(folder)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 1, 12, 12), np.float32),
        np.zeros((2, 12, 12), np.uint8),
        np.zeros((2, 1, 12, 13), np.uint8),
        np.zeros((0, 1, 12, 12), np.uint8),
        np.uint8(3),
        [[1, 2]],
    ],
)
def test_other_arrays_are_refused(x, exported):
    with pytest.raises(UserError, match=r"this export takes an array \(B, 1, 12, 12\) of uint8"):
        exported.run(x)


def test_wrong_thresholds_and_threads_get_one_line(exported, folders):
    with pytest.raises(UserError, match="give 2"):
        exported.thresholds = (1.0,)
    with pytest.raises(UserError, match="threads=0"):
        load_export(folders["segments"], threads=0)


def test_an_answer_begins_as_an_outcome_does(exported, pixels):
    assert Answer._fields[:3] == exported.run(pixels[:2])._fields
