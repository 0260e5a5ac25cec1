"""Engines with one model per segment: memory that is bound once, and what is handed from model to model."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.exits.criteria import Entropy
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import forced
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.host import Argmax, HostChain, HostClassifier, HostEngine

SHAPE = (1, 12, 12)


class Loading:
    """How ONNX Runtime loads a model; it keeps what the models are bound to."""

    def __init__(self):
        self.load, self.bound = ENGINES["onnxruntime"].load(1), []

    def __call__(self, content):
        return Bound(self.load(content), self.bound)


class Bound:
    def __init__(self, model, bound):
        self.model, self.bound = model, bound

    def bind(self, inputs, outputs):
        self.bound.append((inputs[0], list(outputs)))
        return self.model.bind(inputs, outputs)


class Several(nn.Module):
    """Three tensors of different types and shapes."""

    def forward(self, x):
        y = x.flatten(1)
        return [y.sum(dim=1, keepdim=True), y.argmax(dim=1), 2 * y]


def test_images_of_another_shape_are_refused_and_not_spread(host_engine, images):
    """Where memory is bound, a row could be broadcast over the image."""
    with pytest.raises(Exception, match=r"12|shape|dim"):
        host_engine.run(images[:1, :, :1])


def test_what_is_bound_stays_in_memory_as_long_as_the_call(host_engine, images):
    outputs = [np.empty(2, np.int64), np.empty(2, np.float32)]
    found = [weakref.ref(output) for output in outputs]
    call = host_engine.models[0].bind([images[:2].copy()], outputs)
    del outputs
    gc.collect()
    call()
    assert all(reference() is not None for reference in found)


def test_it_says_what_every_model_hands_on(host_engine, network):
    """The first segment is the identity: its features are the image, which is there already."""
    assert len(host_engine.models) == 3
    assert host_engine.features == [None, network.feature_shapes(SHAPE)[1], None]
    assert host_engine.beside == [(), (), ()], "nobody averages or looks back"


@pytest.fixture(scope="module")
def watched(network):
    """An engine, and how its models were loaded."""
    load = Loading()
    return HostEngine(network, [Entropy()] * 3, (0.0, 0.0), SHAPE, load), load


def test_for_one_image_a_segment_reads_what_the_one_before_has_written(watched, network, images):
    engine, load = watched
    (image, first), (same, second), (features, _) = load.bound[:3]
    assert same is image and features is second[-1] and len(first) == 2
    engine.thresholds, bound = forced(2, 3), len(load.bound)
    engine.run(images[:1])
    assert np.array_equal(image, images[:1]) and len(load.bound) == bound, "bound once"
    with torch.no_grad():
        _, expected = network.with_features(torch.from_numpy(images[:1]))
    np.testing.assert_allclose(features, expected[1].numpy(), atol=1e-5)


def test_models_after_the_exit_that_was_taken_are_not_run(watched, images):
    engine, load = watched
    deeper = [output for _, outputs in load.bound[1:3] for output in outputs]
    for output in deeper:
        output.fill(-7)
    engine.thresholds, bound = forced(0, 3), len(load.bound)
    assert engine.run(images[:1]).exit_index[0] == 0
    assert (engine.run(images[:9]).exit_index == 0).all()
    assert all((output == -7).all() for output in deeper)
    assert len(load.bound) == bound + 1, "the batch was bound to the first model alone"


def test_a_network_of_identities_hands_the_image_on(images):
    """Two exits on the image itself, and one after a layer."""
    torch.manual_seed(0)
    flat = [nn.Sequential(nn.Flatten(), nn.Linear(144, 4)) for _ in range(3)]
    network = BranchedNetwork([nn.Identity(), nn.Identity(), nn.ReLU()], flat, ["a", "b"]).eval()
    engine = ENGINES["onnxruntime"].engine(network, [Entropy()] * 3, (0.0, 0.0), SHAPE, 1)
    assert engine.features == [None, None, None]
    with torch.no_grad():
        expected = [out.argmax(dim=1).numpy() for out in network(torch.from_numpy(images[:20]))]
    for exit in range(3):
        engine.thresholds = forced(exit, 3)
        for size in (1, 20):
            assert np.array_equal(engine.run(images[:size]).prediction, expected[exit][:size])


def test_a_classifier_binds_its_memory_once(images):
    load = Loading()
    classify = HostClassifier(nn.Flatten(), SHAPE, load)
    assert [classify(images[i : i + 1]) for i in range(9)] == images[:9].reshape(9, -1).argmax(1).tolist()
    assert len(load.bound) == 1


def test_the_class_is_the_largest_logit(images):
    x = torch.from_numpy(images[:9])
    assert torch.equal(Argmax(nn.Flatten())(x), x.flatten(1).argmax(dim=1))


def test_a_chain_hands_on_and_its_last_module_may_give_several_tensors(images):
    load = Loading()
    run = HostChain([nn.ReLU(), nn.MaxPool2d(2), Several()], SHAPE, load)
    x, pool = torch.from_numpy(images[:2]), nn.MaxPool2d(2)
    for i in range(2):
        run(images[i : i + 1])
        (image, (rectified,)), (read, (pooled,)), (last, outputs) = load.bound
        assert np.array_equal(image, images[i : i + 1]) and read is rectified and last is pooled
        for found, expected in zip(outputs, Several()(pool(x[i : i + 1].relu())), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
            assert found.shape == expected.shape and found.dtype == expected.numpy().dtype


def test_modules_are_copied_and_run_in_eval_mode(images):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(144, 10)).train()
    classify = HostClassifier(module, SHAPE, Loading())
    assert module.training
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images[:20])).argmax(dim=1).tolist()
        module[2].weight.zero_()
    assert [classify(images[i : i + 1]) for i in range(20)] == expected
