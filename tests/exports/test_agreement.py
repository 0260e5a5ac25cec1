"""The proof of an export: agreement is found, and so is its lack."""

import copy
from dataclasses import replace

import pytest
import torch

from branchynet.exports.agreement import agreement
from branchynet.exports.write import write_export


def test_agreement_is_found_and_so_is_its_lack(folders, network, criteria, manifest, pixels, normalised):
    x = torch.from_numpy(normalised).split(100)
    found = agreement(folders["segments"], network, criteria, manifest, pixels, x)
    assert found.images == 257 and found.operating_point.unexplained == found.elsewhere.unexplained == 0
    assert 0 < found.uncertainty < 1e-5 and found.confidence < 1e-5
    # The last exit of another network: nothing of it shows where all leave before.
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.heads[-1].fc.bias[3] += 0.5
    elsewhere = replace(manifest, thresholds=(9.0, 9.0))
    found = agreement(folders["segments"], other, criteria, elsewhere, pixels, x)
    assert found.operating_point.differences == 0 and found.elsewhere.unexplained > 0
    assert found.uncertainty > 1e-3 and found.confidence > 1e-3


def test_every_exits_own_criterion_is_compared(
    network, own_criteria, manifest, pixels, normalised, thirds, tmp_path
):
    x = torch.from_numpy(normalised).split(100)
    manifest = replace(manifest, thresholds=thirds(network, own_criteria, normalised))
    write_export(tmp_path, network, own_criteria, manifest)
    found = agreement(tmp_path, network, own_criteria, manifest, pixels, x)
    assert found.operating_point.unexplained == found.elsewhere.unexplained == 0
    assert found.uncertainty < 1e-5
    # Those of two exits in each other's place, where they fit: it shows.
    if not any(each.of_features for each in own_criteria[:2]):
        swapped = (own_criteria[1], own_criteria[0], own_criteria[2])
        found = agreement(tmp_path, network, swapped, manifest, pixels, x)
        assert found.operating_point.unexplained > 0 and found.uncertainty > 1e-3


@pytest.mark.parametrize("name", ["single", "torch"])
def test_other_formats_agree_too(name, folders, network, criteria, manifest, pixels, normalised):
    found = agreement(
        folders[name],
        network,
        criteria,
        replace(manifest, format=name),
        pixels[:60],
        [torch.from_numpy(normalised[:60])],
    )
    assert found.images == 60 and found.operating_point.unexplained == found.elsewhere.unexplained == 0
    assert found.uncertainty < 1e-5 and found.confidence < 1e-5
