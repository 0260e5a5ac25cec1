"""The compiled engine: the eager one's answers, and how often it compiles."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.catalogue import get_backend, make_engine
from branchynet.runtime.compiled import CompiledEngine

SHAPE = (1, 12, 12)


def test_all_batch_sizes_need_three_versions_of_a_step_at_most(network, images, middling):
    """Captured by the compiler, run as captured: what is counted is the same with code made of it."""
    eager = make_engine("torch", network, Entropy(), middling, SHAPE)
    engines = [CompileCounterWithBackend("eager") for _ in range(4)]
    for counter in engines:  # four engines of three steps: more than what one piece of code may have versions
        engine = CompiledEngine(network, [Entropy()] * 3, middling, backend=counter)
        sizes = range(1, len(images) + 1) if counter is engines[0] else (1, 2, 257)
        for size in sizes:
            found, expected = engine.run(images[:size]), eager.run(images[:size])
            assert np.array_equal(found.exit_index, expected.exit_index)
            assert np.array_equal(found.prediction, expected.prediction)
            np.testing.assert_allclose(found.uncertainty, expected.uncertainty, atol=1e-6)
        assert 3 * 2 <= counter.frame_count <= 3 * 3


def test_nothing_but_a_batch_is_dynamic(network, images, middling):
    """Though segments differ in the sizes that they take: those would else be dynamic from the second one on."""
    seen = []

    def backend(graph, inputs):
        (x,) = (node for node in graph.graph.nodes if node.op == "placeholder" and node.name == "l_x_")
        seen.append([not isinstance(size, int) for size in x.meta["example_value"].shape])
        return graph

    for _ in range(2):
        engine = CompiledEngine(network, [Entropy()] * 3, (-np.inf, -np.inf), backend=backend)
        for size in (1, 40):
            del seen[:]
            engine.run(images[:size])
            assert [dynamic[0] for dynamic in seen] == 3 * [size > 1]
            assert not any(any(dynamic[1:]) for dynamic in seen)


def test_compiled_code_gives_the_eager_answers():
    """Two linear segments only: compiling takes its time."""
    try:
        get_backend("torch_compile").check()
    except UserError:
        pytest.skip("there is no C++ compiler")
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    network = BranchedNetwork([nn.Identity(), flat], [nn.Flatten(), nn.Linear(8, 16)], ["input"]).eval()
    images = np.random.default_rng(0).standard_normal((40, 1, 4, 4)).astype(np.float32)
    limit = [float(Entropy()(torch.from_numpy(images).flatten(1)).median())]
    engines = [make_engine(name, network, Entropy(), limit, (1, 4, 4)) for name in ("torch", "torch_compile")]
    for size in (1, 40):
        expected, found = (engine.run(images[:size]) for engine in engines)
        assert np.array_equal(found.exit_index, expected.exit_index)
        assert np.array_equal(found.prediction, expected.prediction)
        np.testing.assert_allclose(found.uncertainty, expected.uncertainty, atol=1e-5)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler"):
        get_backend("torch_compile").check()


def test_undivided_models_and_chains_are_compiled_for_one_image(network, images):
    """Captured once each, and run as captured."""
    captured, compile = [], torch.compile

    def capture(function, *, backend, dynamic, options):
        return compile(function, backend=lambda graph, _: captured.append(graph) or graph, dynamic=dynamic)

    backend = get_backend("torch_compile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", capture)
        classify = backend.classifier(network.trunk(), SHAPE, 1)
        run = backend.chain([nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(144, 3)], SHAPE, 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(images[:9]))[-1].argmax(dim=1).tolist()
    assert [classify(images[i : i + 1]) for i in range(9)] == expected
    for i in range(3):
        run(images[i : i + 1])
    assert len(captured) == 3, "one graph of the classifier, one of each module of the chain"
