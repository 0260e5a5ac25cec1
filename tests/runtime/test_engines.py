"""Every engine against the slow loop of the paper's Figure 2, and against each other."""

import copy
import gc
import math
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.criteria import CRITERIA, entropy
from branchynet.runtime.early_exit import TorchEngine, undivided
from branchynet.runtime.engine import check_engine, forced, make_classifier, make_engine

SHAPE = (1, 12, 12)


@pytest.fixture
def engine(made):
    return copy.copy(made)


@pytest.mark.parametrize("size", [1, 2, 5, 33, 257])
def test_every_batch_size_is_the_slow_loop(size, engine, network, images, middling, figure_2):
    engine.thresholds = middling
    prediction, exits, uncertainty = figure_2(network, images, middling)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    outcomes = [engine.run(images[i : i + size]) for i in range(0, len(images), size)]
    assert np.array_equal(np.concatenate([o.exit for o in outcomes]), exits)
    assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
    np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_forced_exits_give_the_networks_own_answers(exit, engine, network, images):
    engine.thresholds = forced(exit, 3)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))[exit].argmax(1).numpy()
    for batch in (images, images[:1]):
        outcome = engine.run(batch)
        assert (outcome.exit == exit).all()
        assert np.array_equal(outcome.prediction, expected[: len(batch)])


def test_the_comparison_is_strict_and_in_float32(engine, images):
    one = images[:1]
    engine.thresholds = forced(0, 3)
    uncertainty = engine.run(one).uncertainty[0]
    for threshold, exit in ((uncertainty, 2), (np.nextafter(uncertainty, np.float32(9)), 0)):
        engine.thresholds = (float(threshold), 0.0)
        assert engine.run(one).exit[0] == exit
    # In float64 a little above, in float32 the same number: not below it.
    engine.thresholds = (float(uncertainty) * (1 + 1e-9), 0.0)
    assert engine.run(one).exit[0] == 2


def test_layers_behind_the_exit_that_was_taken_are_not_run(network, images):
    """A later segment that would fail does not matter to samples that left before it."""
    engine = make_engine("torch", network, entropy, forced(0, 3), SHAPE)

    def fail(_):
        raise AssertionError("it was run")

    engine._steps[1:] = [fail, fail]
    assert (engine.run(images).exit == 0).all() and engine.run(images[:1]).exit[0] == 0
    engine.thresholds = forced(1, 3)
    with pytest.raises(AssertionError, match="it was run"):
        engine.run(images[:1])


def test_results_are_the_callers_own(engine, images):
    engine.thresholds = forced(1, 3)
    for size in (1, 5):
        first = engine.run(images[:size])
        kept = [array.copy() for array in first]
        engine.run(images[size : 2 * size])
        assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


def test_a_copy_has_thresholds_of_its_own(engine, images):
    engine.thresholds = forced(0, 3)
    other = copy.copy(engine)
    other.thresholds = forced(2, 3)
    for size in (1, 5):
        assert (engine.run(images[:size]).exit == 0).all() and (other.run(images[:size]).exit == 2).all()


def test_the_baseline_runs_through_the_same_protocol(engine_name, network, images):
    engine = make_engine(engine_name, undivided(network.trunk()), entropy, (), SHAPE)
    with torch.no_grad():
        logits = network(torch.from_numpy(images))[-1]
    for size in (1, 64, 257):
        found = engine.run(images[:size])
        assert np.array_equal(found.prediction, logits[:size].argmax(1).numpy())
        assert (found.exit == 0).all()
        np.testing.assert_allclose(found.uncertainty, entropy(logits[:size]).numpy(), atol=1e-5)


def test_images_of_another_shape_are_refused_and_not_spread(engine_name, engine, images):
    """Where memory is bound, a row could be broadcast over the image."""
    if engine_name == "torch":
        pytest.skip("it binds no memory")
    with pytest.raises(Exception, match=r"12|shape|dim"):
        engine.run(images[:1, :, :1])


def test_what_is_bound_stays_in_memory_as_long_as_the_call(engine_name, made, images):
    if engine_name == "torch":
        pytest.skip("it binds no memory")
    outputs = [np.empty(2, np.int64), np.empty(2, np.float32)]
    found = [weakref.ref(output) for output in outputs]
    call = made._models[0].bind(images[:2].copy(), outputs)
    del outputs
    gc.collect()
    call()
    assert all(reference() is not None for reference in found)


def test_the_network_keeps_its_mode_and_is_not_shared(engine_name, network, images):
    network.train()
    try:
        engine = make_engine(engine_name, network, entropy, forced(2, 3), SHAPE)
        assert network.training
        with torch.no_grad():
            expected = network.eval()(torch.from_numpy(images))[2].argmax(1).numpy()
        # Batch norm and dropout are those of evaluation, whatever the network's mode was.
        assert np.array_equal(engine.run(images).prediction, expected)
    finally:
        network.eval()


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_engines_agree_on_every_criterion(criterion, engine_name, network, images):
    engines = [
        make_engine(name, network, CRITERIA[criterion], forced(1, 3), SHAPE)
        for name in ("torch", engine_name)
    ]
    first, second = (engine.run(images) for engine in engines)
    np.testing.assert_allclose(first.uncertainty, second.uncertainty, atol=1e-5)
    assert np.array_equal(first.prediction, second.prediction)


def test_the_undivided_classifier_is_the_trunk(engine_name, network, images):
    classify = make_classifier(engine_name, network.trunk(), SHAPE, 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))[-1].argmax(1).tolist()
    assert [classify(images[i : i + 1]) for i in range(50)] == expected[:50]


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [((1.0,), ["1 thresholds", "give 2"]), ((1.0, 1.0, 1.0), ["3 thresholds"]), ((1.0, math.nan), ["nan"])],
)
def test_wrong_thresholds_get_one_line(thresholds, words, engine):
    with pytest.raises(UserError) as caught:
        engine.thresholds = thresholds
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_unknown_engines_and_threads_get_one_line(network):
    with pytest.raises(UserError, match=r"torch, torch_compile, .*onnxruntime"):
        make_engine("tensorrt", network, entropy, (1.0, 1.0), SHAPE)
    with pytest.raises(UserError, match="threads=0"):
        make_engine("torch", network, entropy, (1.0, 1.0), SHAPE, threads=0)


@pytest.mark.parametrize("name", ["openvino", "openvino_bf16"])
def test_a_missing_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'branchynet\[openvino\]'") as caught:
        check_engine(name, 1)
    assert "\n" not in str(caught.value)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler"):
        check_engine("torch_compile", 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["torch_cuda", "torch_compile_cuda"])
def test_a_missing_gpu_is_named(name, network):
    with pytest.raises(UserError, match=f"engine={name} needs a GPU") as caught:
        make_engine(name, network, entropy, (1.0, 1.0), SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["torch_cuda", "torch_compile_cuda"])
def test_a_gpu_gives_what_the_cpu_gives(name, network, images, middling):
    expected = make_engine("torch", network, entropy, middling, SHAPE).run(images)
    engine = make_engine(name, network, entropy, middling, SHAPE)
    for x in (images, images[:1]):
        found = engine.run(x)
        # TF32 has 10 bits: a few samples near a threshold may leave elsewhere.
        assert (found.exit == expected.exit[: len(x)]).mean() > 0.95
        same = found.exit == expected.exit[: len(x)]
        np.testing.assert_allclose(found.uncertainty[same], expected.uncertainty[: len(x)][same], atol=0.05)
    assert make_classifier(name, network.trunk(), SHAPE, 1)(images[:1]) in range(10)


def test_an_engine_says_where_it_computes(network):
    names = [TorchEngine(network, entropy, (1.0, 1.0), device).name for device in ("cpu", "meta")]
    assert names == ["torch", "torch_meta"]


def test_names_errors_and_outcomes_need_no_torch():
    """Where exported models run there may be none."""
    code = "import sys; sys.modules['torch'] = None; import branchynet.runtime.engine"
    subprocess.run([sys.executable, "-c", code], check=True)
