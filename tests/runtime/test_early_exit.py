"""PyTorch's engine: what it runs, what it waits for, and where it computes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion, Entropy
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import forced
from branchynet.runtime.catalogue import ENGINES, make_engine
from branchynet.runtime.early_exit import EagerTorch, TorchEngine, chain, classifier, on_device, torch_threads

SHAPE = (1, 12, 12)
LAST = torch.channels_last
ON_A_GPU = ["torch_cuda", "torch_compile_cuda"]


def test_layers_after_the_exit_that_was_taken_are_not_run(network, images):
    """A later segment that would fail does not matter to samples that left before it."""
    engine = make_engine("torch", network, Entropy(), forced(0, 3), SHAPE)

    def fail(*_):
        raise AssertionError("it was run")

    engine.steps[1:] = [fail, fail]
    assert (engine.run(images).exit_index == 0).all() and engine.run(images[:1]).exit_index[0] == 0
    engine.thresholds = forced(1, 3)
    for x in (images[:1], images):
        with pytest.raises(AssertionError, match="it was run"):
            engine.run(x)


def test_the_host_waits_once_per_exit_and_never_per_sample(network, images, middling):
    engine = make_engine("torch", network, Entropy(), middling, SHAPE)
    waits = {"aten::nonzero", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"}

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.total += function.name() in waits
            return function(*args, **(kwargs or {}))

    for size in (2, 33, 257):
        with Count() as count:
            assert engine.run(images[:size]).exit_index.max() == 2
        assert count.total == 2, "one wait per exit but the last"


class First(Criterion):
    """The first logit."""

    name, unit = "first", "none"

    def forward(self, logits):
        return logits[:, 0].clone()


class Laid(nn.Module):
    """The features of three channels, in a layout of memory, or flat."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def forward(self, x):
        x = x.repeat(1, 3, 1, 1)
        return x.flatten(1) if self.layout == "flat" else x.contiguous(memory_format=self.layout)


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format, "flat"])
def test_rows_that_go_on_are_the_right_ones_and_keep_their_layout(layout):
    """To take channels_last apart would take a CPU four times as long."""
    flat = nn.Flatten()
    network = BranchedNetwork([Laid(layout), nn.Identity()], [flat, flat], ["laid"]).eval()
    engine = TorchEngine(network, [First()] * 2, (0.5,))
    x = np.random.default_rng(0).uniform(1, 2, (5, 1, 4, 4)).astype(np.float32)
    x[[1, 2], 0, 0, 0] = 0.25  # these two leave at exit 1
    seen, step = [], engine.step

    def watched(n, features):
        seen.append(features)
        return step(n, features)

    engine.step = watched
    assert engine.run(x).exit_index.tolist() == [1, 0, 0, 1, 1]
    expected = Laid(layout)(torch.from_numpy(x))[[0, 3, 4]]
    assert torch.equal(seen[1], expected)
    if layout == "flat":
        assert seen[1].is_contiguous()
    else:
        assert seen[1].is_contiguous(memory_format=layout)
        assert seen[1].is_contiguous() == (layout == torch.contiguous_format)


@pytest.mark.parametrize("name", ["torch", "torch_compile"])
def test_an_engine_is_named_after_its_device(name):
    assert [on_device(name, device) for device in ("cpu", "meta")] == [name, f"{name}_meta"]
    assert EagerTorch("meta").name == "torch_meta" and ENGINES[f"{name}_cuda"].device == "cuda"


def test_an_engine_computes_where_it_is_to(network):
    engine = TorchEngine(network, [Entropy()] * 3, (1.0, 1.0), "meta")
    features, logits, uncertainty = engine.step(0, torch.zeros(4, *SHAPE, device="meta"))
    assert {tensor.device.type for tensor in (features, logits, uncertainty)} == {"meta"}
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_missing_gpu_is_named(name, network):
    with pytest.raises(UserError, match=f"engine={name} needs a GPU") as caught:
        make_engine(name, network, Entropy(), (1.0, 1.0), SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_gpu_gives_what_the_cpu_gives(name, network, images, middling):
    expected = make_engine("torch", network, Entropy(), middling, SHAPE).run(images)
    engine = make_engine(name, network, Entropy(), middling, SHAPE)
    for x in (images, images[:1]):
        found = engine.run(x)
        # TF32 has 10 bits: a few samples near a threshold may leave elsewhere.
        assert (found.exit_index == expected.exit_index[: len(x)]).mean() > 0.95
        same = found.exit_index == expected.exit_index[: len(x)]
        np.testing.assert_allclose(found.uncertainty[same], expected.uncertainty[: len(x)][same], atol=0.05)
    assert ENGINES[name].classifier(network.trunk(), SHAPE, 1)(images[:1]) in range(10)


def test_functions_of_tensors_take_images_of_the_hosts(images):
    seen = []
    double = chain([lambda x: 2 * x, seen.append])
    double(images[:1])
    assert np.array_equal(seen[0].numpy(), 2 * images[:1]) and seen[0].is_inference()
    assert classifier(lambda x: x.flatten(1).argmax(dim=1))(images[:1]) == images[0].argmax()


def test_threads_are_set_inside_and_restored():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), torch_threads(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before
