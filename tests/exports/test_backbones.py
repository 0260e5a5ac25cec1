"""Every kind of backbone that a ready config names, and a tree: PyTorch, ONNX Runtime and both exports agree.

Small ones of the same architecture with random weights: what may go wrong is in the layers, not in their number.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from branchynet.exits.criteria import Entropy
from branchynet.exits.trace import run_all
from branchynet.exports.load import load_export
from branchynet.exports.manifest import Cost, Costs, Manifest
from branchynet.exports.nested import nested
from branchynet.exports.write import in_memory, write_export
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.networks.places import auto_exits, survey
from branchynet.networks.public import timm_trunk
from branchynet.runtime.base import forced
from branchynet.runtime.early_exit import TorchEngine
from branchynet.runtime.steps import exit_steps

K, IMAGES = 5, 7
TREE = [{"after": "conv1", "convs": [4, 4], "pool": 2, "exits": [{"after": "relu1", "global_pool": True}]}]


def timm(model, **more):
    pytest.importorskip("timm")
    return timm_trunk(model, num_classes=K, **more)


def mobilenet():
    blocks = [(16, 3, 16, 16, True, "RE", 2, 1), (16, 5, 32, 24, True, "HS", 2, 1)]
    return MobileNetV3([InvertedResidualConfig(*each, 0.5) for each in blocks], 32, num_classes=K)


def resnet(block, **more):
    """Two of its four stages."""
    trunk = ResNet(block, [1, 1, 1, 1], num_classes=K, **more)
    trunk.layer3, trunk.layer4 = nn.Identity(), nn.Identity()
    trunk.fc = nn.Linear(128 * block.expansion, K)
    return trunk


def timm_convnext():
    """Likewise."""
    trunk = timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    trunk.stages = trunk.stages[:2]
    return trunk


# By the ready config: a small trunk, and exits that are not placed.
SMALL = {
    "resnet18": lambda: resnet(BasicBlock),
    "resnet50": lambda: resnet(Bottleneck, width_per_group=8),
    "mobilenet_v3_small": mobilenet,
    "efficientnet_b0": lambda: EfficientNet(
        [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(6, 5, 2, 8, 12, 2)], 0.2, num_classes=K, last_channel=32
    ),
    "convnext_tiny": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=K),
    "vit_b_16": lambda: VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=K),
    "swin_t": lambda: SwinTransformer([4, 4], 8, [2, 1], [1, 2], [4, 4], num_classes=K),
    "timm_vit_tiny": lambda: timm("vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
    "timm_convnext_atto": timm_convnext,
    "b_lenet_tree": lambda: lenet5(3, K, 32),
}


@pytest.mark.parametrize("name", SMALL)
def test_all_ways_to_run_a_backbone_agree(name, tmp_path):
    torch.manual_seed(0)
    shape, trunk = (3, 32, 32), SMALL[name]().eval()
    exits = TREE if name == "b_lenet_tree" else auto_exits(survey(trunk, shape), {"at": [0.5]}, shape[1:])
    network = attach(trunk, exits, shape, K).eval()
    count = network.num_exits
    criteria = [Entropy()] * count
    costs = Costs("torch", 1, "a machine", Cost(1, 1.0), (Cost(1, 1.0),) * count)
    manifest = Manifest(
        "segments",
        name,
        "entropy",
        (0.5,) * (count - 1),
        tuple("abcde"),
        shape,
        (0.5,) * 3,
        (0.25,) * 3,
        costs,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), np.uint8)
    normalised = (pixels.astype(np.float32) / 255 - 0.5) / np.float32(0.25)
    trace = run_all(exit_steps(network, criteria), [torch.from_numpy(normalised)])
    assert torch.equal(trace.prediction[:, -1], trunk(torch.from_numpy(normalised)).argmax(dim=1))

    write_export(tmp_path, network, criteria, manifest)
    engine = TorchEngine(network, criteria, forced(0, count))
    asked = {"torch": lambda at: run(engine, at, normalised)}
    for form in (load_export(tmp_path), in_memory(network, criteria, manifest)):
        asked[type(form).__name__ + str(len(asked))] = lambda at, form=form: run(form, at, pixels)
    for n in range(count):
        for way, ask in asked.items():
            agrees(ask(forced(n, count)), trace, [n] * IMAGES, way)

    # Halves, so that rows leave and others go on; each by itself in the nested form, from the same models.
    at = tuple(trace.uncertainty[:, n].sort().values[3:5].mean().item() for n in range(count - 1))
    taken = [next((n for n, t in enumerate(at) if row[n] < t), count - 1) for row in trace.uncertainty]
    assert len(set(taken)) > 1
    for way, ask in asked.items():
        agrees(ask(at), trace, taken, way)
    models = [onnx.load(tmp_path / f"segment-{n}.onnx") for n in range(1, count + 1)]
    session = ort.InferenceSession(nested(models).SerializeToString())
    limits = np.array(at, np.float32)
    alone = [session.run(None, {"image": image[None], "thresholds": limits}) for image in pixels]
    prediction, exit_number, uncertainty, _ = (np.concatenate(column) for column in zip(*alone, strict=True))
    agrees((prediction, exit_number - 1, uncertainty), trace, taken, "nested")


def run(engine, thresholds, images):
    engine.thresholds = thresholds
    found = engine.run(images)
    return found.prediction, found.exit_index, found.uncertainty


def agrees(answer, trace, taken, way):
    prediction, exits, uncertainty = answer
    rows = np.arange(IMAGES)
    assert exits.tolist() == taken, way
    assert np.array_equal(prediction, trace.prediction.numpy()[rows, taken]), way
    np.testing.assert_allclose(uncertainty, trace.uncertainty.numpy()[rows, taken], atol=2e-5, err_msg=way)
