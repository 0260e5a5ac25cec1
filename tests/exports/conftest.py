"""The network of tests/runtime, images as bytes, and an export of each format."""

from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.exits.criteria import Entropy, judge
from branchynet.exports.load import load_export
from branchynet.exports.manifest import FORMATS, Cost, Costs, Manifest
from branchynet.exports.write import in_memory, write_export
from branchynet.networks.branched import BranchedNetwork

# By its path: no package holds the tests.
_spec = spec_from_file_location("of_runtime", Path(__file__).parents[1] / "runtime" / "conftest.py")
_of_runtime = module_from_spec(_spec)
_spec.loader.exec_module(_of_runtime)
network, figure_2, thirds = _of_runtime.network, _of_runtime.figure_2, _of_runtime.thirds
own_criteria = _of_runtime.own_criteria

SHAPE = (1, 12, 12)
MEAN, STD = (0.4,), (0.3,)


@pytest.fixture(scope="session")
def criteria():
    return (Entropy(),) * 3


@pytest.fixture(scope="session")
def middling(network, criteria, normalised, thirds):
    """Thresholds that send a third of the images out at each exit, and no image near them."""
    return thirds(network, criteria, normalised)


@pytest.fixture(scope="session")
def manifest(middling):
    costs = Costs("torch", 1, "a machine", Cost(3, 3.0), (Cost(1, 1.0), Cost(2, 2.0), Cost(3, 3.0)))
    return Manifest("segments", "toy", "entropy", middling, tuple("0123456789"), SHAPE, MEAN, STD, costs)


@pytest.fixture(scope="session")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (257, *SHAPE), np.uint8)


@pytest.fixture(scope="session")
def normalised(pixels):
    return (pixels.astype(np.float32) / 255 - MEAN[0]) / np.float32(STD[0])


@pytest.fixture(scope="session")
def folders(network, criteria, manifest, tmp_path_factory):
    """An export of each format; not to be changed."""
    made = {}
    for name in FORMATS:
        made[name] = tmp_path_factory.mktemp(name)
        write_export(made[name], network, criteria, replace(manifest, format=name))
    return made


@pytest.fixture(scope="session")
def averaged(network, normalised):
    """The network without its first exit, the last one averaging; and thresholds that halve the images."""
    first = nn.Sequential(*network.segments[:2])
    made = BranchedNetwork(
        [first, network.segments[2]], network.heads[1:], network.places[1:], (0, 0.6)
    ).eval()

    @torch.no_grad()
    def halving(kind):
        rising = judge(kind(), made(torch.from_numpy(normalised))[0], None)[0].sort().values
        return (float(rising[127] + rising[128]) / 2,)

    return made, halving


@pytest.fixture(scope="session")
def averaged_folder(averaged, manifest, tmp_path_factory):
    """A function: its export in a format, with a kind of criterion, made once; not to be changed."""
    made, halving = averaged
    costs = replace(manifest.costs, exits=manifest.costs.exits[:2])

    @cache
    def folder(name, kind=Entropy):
        path = tmp_path_factory.mktemp(f"averaged-{name}")
        described = replace(manifest, format=name, thresholds=halving(kind), costs=costs)
        write_export(path, made, [kind()] * 2, described)
        return path

    return folder


@pytest.fixture(scope="session", params=[*FORMATS, "in memory"])
def exported(request, folders, network, criteria, manifest):
    """Loaded; whoever sets its thresholds sets them for the others."""
    if request.param == "in memory":
        return in_memory(network, criteria, manifest)
    return load_export(folders[request.param], trust=request.param == "torch")
