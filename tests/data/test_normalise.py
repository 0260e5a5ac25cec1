"""Statistics by counting against NumPy's, and normalisation against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.data.normalise import (
    byte_counts,
    channel_statistics,
    fixed_normalisation,
    for_channels,
    normalisation,
    normalise,
)
from branchynet.errors import ArgumentError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (103, 2, 7, 6), dtype=torch.uint8, generator=GENERATOR)


def test_statistics_are_numpys():
    mean, std = channel_statistics(IMAGES)
    values = IMAGES.double().numpy() / 255
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-12)
    assert all(type(value) is float for value in (*mean, *std))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4), min_size=1, max_size=5))
def test_statistics_of_any_bytes_are_numpys(rows):
    """Two channels of two pixels each; a channel that never changes has deviation 1."""
    x = torch.tensor(rows, dtype=torch.uint8).reshape(len(rows), 2, 1, 2)
    mean, std = channel_statistics(x)
    for channel in range(2):
        values = np.array(rows)[:, 2 * channel : 2 * channel + 2] / 255
        assert mean[channel] == pytest.approx(values.mean(), rel=1e-12)
        expected = 1.0 if values.min() == values.max() else values.std()
        assert std[channel] == pytest.approx(expected, rel=1e-9)


def test_a_constant_channel_becomes_zero():
    x = torch.full((4, 1, 3, 3), 51, dtype=torch.uint8)
    mean, std = channel_statistics(x)
    assert mean[0] == pytest.approx(0.2)
    assert std == (1.0,)
    assert normalise(x, *normalisation(mean, std)).abs().max() < 1e-6


def test_normalising_is_its_definition_channel_by_channel():
    mean, std = (0.25, 0.5), (0.125, 2.0)
    factor, offset = normalisation(mean, std)
    assert factor.shape == offset.shape == (2, 1, 1)
    assert factor.dtype == offset.dtype == torch.float32
    before = IMAGES.clone()
    found = normalise(IMAGES, factor, offset)
    assert found.dtype == torch.float32 and torch.equal(IMAGES, before)
    values = IMAGES.double().numpy() / 255
    for channel in range(2):
        expected = (values[:, channel] - mean[channel]) / std[channel]
        np.testing.assert_allclose(found[:, channel].numpy(), expected, rtol=0, atol=1e-6)


def test_what_is_normalised_by_its_own_statistics_is_standardised():
    x = normalise(IMAGES, *normalisation(*channel_statistics(IMAGES))).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(2).double(), rtol=0, atol=1e-6)
    # An image alone is normalised as it is among others.
    one = normalise(IMAGES[5:6], *normalisation(*channel_statistics(IMAGES)))
    assert torch.equal(one[0].double(), x[5])


def test_statistics_are_the_same_in_parts(monkeypatch):
    x = torch.randint(0, 256, (37, 3, 5, 4), dtype=torch.uint8)
    whole = channel_statistics(x)
    monkeypatch.setattr("branchynet.data.normalise.walk", lambda x: x.split(10))
    assert channel_statistics(x) == whole
    counts = byte_counts(x)
    assert counts.shape == (3, 256) and counts[1, 7] == (x[:, 1] == 7).sum()


# Fixed


def test_fixed_normalisation():
    assert fixed_normalisation() is None
    mean, std = for_channels(fixed_normalisation("imagenet"), 3)
    assert (mean[0], std[2]) == (0.485, 0.225)
    assert for_channels(fixed_normalisation("half"), 4) == ((0.5,) * 4, (0.5,) * 4)
    assert for_channels(fixed_normalisation(mean=[0.1, 0.2], std=[1, 0.5]), 2) == ((0.1, 0.2), (1.0, 0.5))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"normalise": "imagnet"}, "normalise=imagnet: it is one of train, imagenet, half"),
        ({"mean": [0.5]}, "std=None: it is a list of one number per channel"),
        ({"mean": [0.5], "std": [0.0]}, "of numbers above 0"),
        ({"mean": [123.7], "std": [58.4]}, "bytes are divided by 255 first"),
        ({"mean": 0.5, "std": [0.5]}, "mean=0.5: it is a list"),
        ({"mean": [float("nan")], "std": [0.5]}, "mean=.nan.: it is a list"),
        ({"normalise": "half", "mean": [0.5], "std": [0.5]}, "mean and std are given, too"),
    ],
)
def test_fixed_normalisation_that_cannot_be(settings, says):
    with pytest.raises(ArgumentError, match=says):
        fixed_normalisation(**settings)


def test_fixed_normalisation_is_for_so_many_channels():
    with pytest.raises(ArgumentError, match="of 1 number: so many channels"):
        for_channels(fixed_normalisation("imagenet"), 1)
