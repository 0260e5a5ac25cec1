"""From a network in memory to models on disk that need nothing of it: ONNX, or torch.export programs.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion, get_criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.blocks import keep_in_blocks
from branchynet.runtime.exported import Exported, by_exit, torch_step
from branchynet.runtime.for_inference import folded, pixel_by_pixel
from branchynet.runtime.manifest import Manifest, checksum, write_manifest
from branchynet.runtime.nested import nested
from branchynet.runtime.onnx import any_batch, export_model


class ExitStep(nn.Module):
    """Segment, head, criterion: (prediction, uncertainty, confidence[, features]).

    The first one takes bytes and normalises them; all but the last give the features that the next one takes.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        segment: nn.Module,
        head: nn.Module,
        criterion: Criterion,
        normalisation: tuple[Tensor, Tensor] | None,
        forwards: bool,
    ) -> None:
        super().__init__()
        self.segment, self.head, self.criterion, self.forwards = segment, head, criterion, forwards
        self.normalises = normalisation is not None
        if normalisation is not None:
            self.register_buffer("factor", normalisation[0])
            self.register_buffer("offset", normalisation[1])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.normalises:
            x = x.to(torch.float32) * self.factor - self.offset
        features = self.segment(x)
        logits = self.head(features)
        confidence = logits.float().softmax(dim=1).amax(dim=1)
        outputs = (logits.argmax(dim=1), self.criterion(logits), confidence)
        return (*outputs, features) if self.forwards else outputs


def exit_steps(network: BranchedNetwork, manifest: Manifest) -> list[ExitStep]:
    """N modules that, one after the other, are the network on bytes; the network itself is not kept."""
    criterion = get_criterion(manifest.criterion)
    # In float64 first, as in training: so the values are the very same.
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (manifest.mean, manifest.std))
    normalisation = ((1 / (255 * std)).float(), (mean / std).float())
    last = network.num_exits - 1
    return [
        ExitStep(
            folded(segment), folded(head), criterion, None if n else normalisation, forwards=n < last
        ).eval()
        for n, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True))
    ]


def in_memory(network: BranchedNetwork, manifest: Manifest, threads: int = 1) -> Exported:
    """The network itself with the face of an export: on bytes, by PyTorch, and nothing is written."""
    steps = exit_steps(network, manifest)
    return Exported(manifest, by_exit([torch_step(pixel_by_pixel(step), threads) for step in steps]))


def write_export(folder: Path, network: BranchedNetwork, manifest: Manifest) -> Manifest:
    """Write the models and then manifest.json into `folder`.

    Args:
        network: N exits.
        manifest: all but its `files`.

    Returns:
        The manifest as written, with its files and their checksums.
    """
    steps = exit_steps(network, manifest)
    # Three samples: 0 and 1 would be taken for constants.
    x = torch.zeros(1 if manifest.format == "single" else 3, *manifest.input_shape, dtype=torch.uint8)
    contents: dict[str, bytes] = {}
    models = []
    for n, step in enumerate(steps, start=1):
        if manifest.format == "torch":
            contents[f"segment-{n}.pt2"] = _torch_program(step, x)
        elif manifest.format == "segments":
            contents[f"segment-{n}.onnx"] = _onnx_model(step, x, n).SerializeToString()
        else:
            models.append(_onnx_model(step, x, n))
        if step.forwards:
            with torch.inference_mode():
                x = step(x)[-1]
            x = x.clone()  # a plain tensor: the exporters refuse those of inference mode
    if manifest.format == "single":
        contents["model.onnx"] = nested(models, manifest.thresholds).SerializeToString()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    manifest = replace(manifest, files={name: checksum(content) for name, content in contents.items()})
    write_manifest(folder, manifest)
    return manifest


def _onnx_model(step: ExitStep, example: Tensor, n: int) -> onnx.ModelProto:
    """Step n as ONNX, for any batch unless the example has one image.

    Names: from `image`, or `features_<n-1>`, to `prediction_<n>`, `uncertainty_<n>`, `confidence_<n>` and
    `features_<n>`.
    """
    outputs = ["prediction", "uncertainty", "confidence", *(["features"] if step.forwards else [])]
    input_name = "image" if n == 1 else f"features_{n - 1}"
    return keep_in_blocks(export_model(step, example, input_name, [f"{name}_{n}" for name in outputs]))


def _torch_program(step: ExitStep, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.export.export(step, (example,), dynamic_shapes=any_batch(example))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # where in whose source it comes from
        torch.export.save(program, buffer)
    return buffer.getvalue()
