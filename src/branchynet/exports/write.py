"""From a network in memory to models on disk that need nothing of it: ONNX, or torch.export programs.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from branchynet.data.normalise import normalisation, normalise
from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.exports.load import Exported, by_exit, torch_step
from branchynet.exports.manifest import (
    HANDS_ON,
    LOOKS_BACK,
    MAPS,
    VERSION,
    Manifest,
    ModelFile,
    checksum,
    write_manifest,
)
from branchynet.exports.nested import nested
from branchynet.exports.tensors import ANSWERS, of_segment, of_single
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.blocks import keep_in_blocks
from branchynet.runtime.for_inference import folded, frozen, pixel_by_pixel
from branchynet.runtime.steps import HandsOn, ModelStep, exit_steps, without_repeats
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

    Each gives (prediction, uncertainty, confidence[, features][, answer][, state]); all but the last give the
    features that the next one takes, the answer where that one averages, and the state where it looks back.
    """
    network = without_repeats(network, criteria)
    segments = [folded(segment) for segment in network.segments]
    segments[0] = OnBytes(segments[0], *normalisation(manifest.mean, manifest.std))
    steps = [
        step.of(segment, folded(step.head), frozen(step.criterion))
        for segment, step in zip(segments, exit_steps(network, criteria), strict=True)
    ]
    last = network.num_exits - 1
    return [ModelStep(step, forwards=n < last, confidence=True).eval() for n, step in enumerate(steps)]


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
        manifest: all but its `files`, and what the network says.

    Returns:
        The manifest as written, with its files and their checksums.
    """
    steps = model_steps(network, criteria, manifest)
    if manifest.format == "single" and manifest.maps:
        raise UserError(
            "format=single gives one class for an image, and this run gives maps: take format=segments"
        )
    # Three samples: 0 and 1 would be taken for constants.
    examples = [
        torch.zeros(1 if manifest.format == "single" else 3, *manifest.input_shape, dtype=torch.uint8)
    ]
    gives: dict[str, int] = {}
    beside: dict[str, int] = {}  # all that goes from model to model beside the features
    contents: dict[str, bytes] = {}
    tensors = [of_single(manifest.input_shape, len(steps))] if manifest.format == "single" else []
    models = []
    for n, step in enumerate(steps, start=1):
        if manifest.format == "torch":
            contents[f"segment-{n}.pt2"] = _torch_program(step, examples)
        elif manifest.format == "segments":
            contents[f"segment-{n}.onnx"] = _onnx_model(step, examples, n).SerializeToString()
        else:
            models.append(_onnx_model(step, examples, n))
        given, takes, gives = examples[0].shape[1:], gives, {}
        if step.forwards:
            with torch.inference_mode():
                behind = step(*examples)[len(ANSWERS) :]
            examples = [
                x.clone() for x in behind
            ]  # plain tensors: the exporters refuse those of inference mode
            gives = {name: x.shape[1] for name, x in zip(_names(step.step.gives), examples[1:], strict=True)}
        if manifest.format != "single":
            handed_on = examples[0].shape[1:] if step.forwards else None
            tensors.append(of_segment(n, given, handed_on, takes, gives, manifest.answer))
            beside |= gives
    if manifest.format == "single":
        contents["model.onnx"] = nested(models).SerializeToString()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {
        name: ModelFile(checksum(content), len(content), each)
        for (name, content), each in zip(contents.items(), tensors, strict=True)
    }
    manifest = replace(
        manifest,
        shares=network.shares or (),
        state=beside.get("state", 0),
        files=files,
        format_version=_version(manifest, beside),
    )
    write_manifest(folder, manifest)
    return manifest


def _version(manifest: Manifest, beside: Mapping[str, int]) -> int:
    if manifest.maps:
        return MAPS
    return LOOKS_BACK if "state" in beside else HANDS_ON if beside else VERSION


def _onnx_model(step: ModelStep, examples: Sequence[Tensor], n: int) -> onnx.ModelProto:
    """Step n as ONNX, for any batch unless the examples have one image.

    Names: from `image`, or `features_<n-1>`, with `answer_<n-1>` where it averages and `state_<n-1>` where it looks
    back, to `prediction_<n>`, `uncertainty_<n>`, `confidence_<n>` and what the next step takes: `features_<n>`, ….
    """
    outputs = [*ANSWERS, *(["features"] if step.forwards else []), *_names(step.step.gives)]
    before = [f"{name}_{n - 1}" for name in _names(step.step.takes)]
    inputs = ["image" if n == 1 else f"features_{n - 1}", *before]
    given = dict(zip(inputs, examples, strict=True))
    return keep_in_blocks(export_model(step, given, [f"{name}_{n}" for name in outputs]))


def _names(handed: HandsOn) -> list[str]:
    return [name for name, is_handed in handed._asdict().items() if is_handed]


def _torch_program(step: ModelStep, examples: Sequence[Tensor]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.export.export(step, tuple(examples), dynamic_shapes=any_batch(*examples))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # where in whose source it comes from
        torch.export.save(program, buffer)
    return buffer.getvalue()
