"""From a network in memory to models on disk that need nothing of it: ONNX, or torch.export programs.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from branchynet.data.normalise import normalisation, normalise
from branchynet.exits.criteria import Criterion
from branchynet.exports.load import Exported, by_exit, torch_step
from branchynet.exports.manifest import Manifest, ModelFile, checksum, write_manifest
from branchynet.exports.nested import nested
from branchynet.exports.tensors import of_segment, of_single
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.blocks import keep_in_blocks
from branchynet.runtime.for_inference import folded, frozen, pixel_by_pixel
from branchynet.runtime.steps import ExitStep, ModelStep, without_repeats
from branchynet.runtime.to_onnx import any_batch, export_model


class OnBytes(nn.Module):
    """A segment that takes bytes (B, C, H, W) and normalises them."""

    factor: Tensor
    offset: Tensor

    def __init__(self, segment: nn.Module, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.segment = segment
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.segment(normalise(x, self.factor, self.offset))


def model_steps(
    network: BranchedNetwork, criteria: Sequence[Criterion], manifest: Manifest
) -> list[ModelStep]:
    """N modules that, one after the other, are the network on bytes; the network itself is not kept.

    Each gives (prediction, uncertainty, confidence[, features]); all but the last give the features that the next
    one takes.
    """
    network = without_repeats(network, criteria)
    segments = [folded(segment) for segment in network.segments]
    segments[0] = OnBytes(segments[0], *normalisation(manifest.mean, manifest.std))
    last = network.num_exits - 1
    return [
        ModelStep(
            ExitStep(segment, folded(head), frozen(criterion)), forwards=n < last, confidence=True
        ).eval()
        for n, (segment, head, criterion) in enumerate(zip(segments, network.heads, criteria, strict=True))
    ]


def in_memory(
    network: BranchedNetwork, criteria: Sequence[Criterion], manifest: Manifest, threads: int = 1
) -> Exported:
    """The network itself with the face of an export: on bytes, by PyTorch, and nothing is written."""
    steps = model_steps(network, criteria, manifest)
    return Exported(manifest, by_exit([torch_step(pixel_by_pixel(step), threads) for step in steps]))


def write_export(
    folder: Path, network: BranchedNetwork, criteria: Sequence[Criterion], manifest: Manifest
) -> Manifest:
    """Write the models and then manifest.json into `folder`.

    Args:
        network: N exits.
        criteria: N.
        manifest: all but its `files`.

    Returns:
        The manifest as written, with its files and their checksums.
    """
    steps = model_steps(network, criteria, manifest)
    # Three samples: 0 and 1 would be taken for constants.
    x = torch.zeros(1 if manifest.format == "single" else 3, *manifest.input_shape, dtype=torch.uint8)
    contents: dict[str, bytes] = {}
    tensors = [of_single(manifest.input_shape, len(steps))] if manifest.format == "single" else []
    models = []
    for n, step in enumerate(steps, start=1):
        if manifest.format == "torch":
            contents[f"segment-{n}.pt2"] = _torch_program(step, x)
        elif manifest.format == "segments":
            contents[f"segment-{n}.onnx"] = _onnx_model(step, x, n).SerializeToString()
        else:
            models.append(_onnx_model(step, x, n))
        given = x.shape[1:]
        if step.forwards:
            with torch.inference_mode():
                x = step(x)[-1]
            x = x.clone()  # a plain tensor: the exporters refuse those of inference mode
        if manifest.format != "single":
            tensors.append(of_segment(n, given, x.shape[1:] if step.forwards else None))
    if manifest.format == "single":
        contents["model.onnx"] = nested(models).SerializeToString()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {
        name: ModelFile(checksum(content), len(content), each)
        for (name, content), each in zip(contents.items(), tensors, strict=True)
    }
    manifest = replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest


def _onnx_model(step: ModelStep, example: Tensor, n: int) -> onnx.ModelProto:
    """Step n as ONNX, for any batch unless the example has one image.

    Names: from `image`, or `features_<n-1>`, to `prediction_<n>`, `uncertainty_<n>`, `confidence_<n>` and
    `features_<n>`.
    """
    outputs = ["prediction", "uncertainty", "confidence", *(["features"] if step.forwards else [])]
    input_name = "image" if n == 1 else f"features_{n - 1}"
    return keep_in_blocks(export_model(step, example, input_name, [f"{name}_{n}" for name in outputs]))


def _torch_program(step: ModelStep, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.export.export(step, (example,), dynamic_shapes=any_batch(example))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # where in whose source it comes from
        torch.export.save(program, buffer)
    return buffer.getvalue()
