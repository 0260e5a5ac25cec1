"""The images of a page: of every kind some, on one sheet of bounded size."""

import base64
import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from branchynet.exits.trace import Trace
from branchynet.reporting import page_images
from branchynet.reporting.page_images import PER_KIND, main_class, pick, sheet_of


def trace_of(samples, classes=3, seed=0):
    """Two exits, the first right on nine of ten; and where the samples leave: three of four at exit 1."""
    random = np.random.default_rng(seed)
    label = torch.from_numpy(random.integers(0, classes, samples))
    wrong = torch.from_numpy(random.random((samples, 2)) < 0.1)
    prediction = torch.where(wrong, (label[:, None] + 1) % classes, label[:, None])
    uncertainty = torch.from_numpy(random.random((samples, 2)).astype(np.float32))
    return Trace(uncertainty, prediction, label), (uncertainty[:, 0] >= 0.75).long()


def kinds(trace, taken, samples):
    right = trace.correct.gather(1, taken[:, None])[:, 0]
    return Counter((int(trace.label[s]), int(taken[s]), bool(right[s])) for s in samples)


def test_of_every_kind_as_many_as_there_are_and_no_more_than_twenty():
    trace, taken = trace_of(2000)
    all_of_them = kinds(trace, taken, range(2000))
    picked = pick(trace, taken)
    assert len(set(picked.tolist())) == len(picked)
    assert kinds(trace, taken, picked) == {kind: min(PER_KIND, count) for kind, count in all_of_them.items()}
    # Any first part is as even as it can be: one of each of the twelve kinds, then a second one.
    assert set(kinds(trace, taken, picked[:12]).values()) == {1}
    assert set(kinds(trace, taken, picked[:24]).values()) == {2}


def test_of_a_kind_the_surest_and_the_least_sure_are_among_them():
    trace, taken = trace_of(2000)
    own = trace.uncertainty.gather(1, taken[:, None])[:, 0]
    right = trace.correct.gather(1, taken[:, None])[:, 0]
    of_kind = ((trace.label == 1) & (taken == 0) & right).nonzero()[:, 0]
    ordered = of_kind[own[of_kind].argsort()].tolist()
    picked = set(pick(trace, taken).tolist())
    assert [sample for sample in ordered if sample in picked] == ordered[:10] + ordered[-10:]


def sheet(found):
    form, content = found["sheet"].split(";base64,")
    return form, Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_images_lie_where_it_says():
    trace, taken = trace_of(50)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (50, 1, 6, 10))).to(torch.uint8)
    found = sheet_of(trace, taken, images.__getitem__)
    form, picture = sheet(found)
    assert (form, found["width"], found["height"]) == ("data:image/png", 10, 6)
    for place, sample in enumerate(found["samples"]):
        left, top = place % found["columns"] * found["wide"], place // found["columns"] * found["high"]
        pixels = np.asarray(picture.crop((left, top, left + 10, top + 6)))
        assert np.array_equal(pixels, images[sample, 0].numpy())
        assert found["predicted"][place] == trace.prediction[sample].tolist()
    assert found["samples"] == sorted(set(found["samples"]))


def test_large_colour_images_become_small_and_fit_into_the_bytes(monkeypatch):
    monkeypatch.setattr(page_images, "SHEET", 30_000)
    trace, taken = trace_of(300)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (300, 3, 50, 100))).to(torch.uint8)
    images[:, :, :, 50:] = 255
    found = sheet_of(trace, taken, images.__getitem__)
    form, picture = sheet(found)
    assert (form, picture.mode, found["width"], found["height"]) == ("data:image/jpeg", "RGB", 64, 32)
    assert 4 < len(found["samples"]) < 100 and len(found["sheet"]) < 30_000 * 4 / 3 + 100
    white = np.asarray(picture.crop((40, 0, 64, 32)))
    assert white.min() > 240, "shrunk as a whole, not cropped"


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_shown_grey(channels):
    trace, taken = trace_of(30)
    images = torch.full((30, channels, 8, 8), 10, dtype=torch.uint8)
    images[:, 0] = 10 + 4 * channels
    found = sheet_of(trace, taken, images.__getitem__)
    assert np.asarray(sheet(found)[1].convert("L").crop((0, 0, 8, 8))).tolist() == [[14] * 8] * 8


def test_of_maps_the_class_of_most_pixels_stands_for_the_image():
    classes = torch.tensor([2, 0])
    assert main_class(classes, 1) is classes
    assert main_class(torch.tensor([[1, 0, 5], [4, 3, 0]]), 1).tolist() == [2, 0]
