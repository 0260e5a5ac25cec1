import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchynet.data.augment import (
    Augmentation,
    Draws,
    augment,
    crop,
    cutout,
    draw,
    flip,
    parse_augmentation,
    shift,
)
from branchynet.errors import UserError


def shift_slowly(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel: what was at (r, c) is at (r + down, c + right), if that is in the image."""
    out = torch.zeros_like(x)
    batch, _, height, width = x.shape
    for b in range(batch):
        down, right = offsets[b].tolist()
        for r in range(height):
            for c in range(width):
                if 0 <= r + down < height and 0 <= c + right < width:
                    out[b, :, r + down, c + right] = x[b, :, r, c]
    return out


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*(st.integers(1, top) for top in (5, 3, 6, 6))),
    reach=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_shift_is_the_slow_loop(shape, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    offsets = torch.randint(-reach, reach + 1, (shape[0], 2), generator=generator)
    before = x.clone()
    assert torch.equal(shift(x, offsets, reach), shift_slowly(x, offsets))
    assert torch.equal(x, before)


def test_shift_of_an_array_that_is_not_contiguous():
    x = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3).permute(0, 3, 1, 2)
    offsets = torch.tensor([[1, -2], [2, 2]])
    assert torch.equal(shift(x, offsets, 2), shift_slowly(x, offsets))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 7), st.integers(2, 7)),
    data=st.data(),
    seed=st.integers(0, 10**6),
)
def test_reflection_is_pytorchs_padding_cropped_image_by_image(shape, data, seed):
    reach = data.draw(st.integers(1, min(shape[2:]) - 1))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    offsets = torch.randint(-reach, reach + 1, (shape[0], 2), generator=generator)
    shifted = shift(x, offsets, reach, "reflect")
    assert shifted.dtype == torch.uint8
    for image, (down, right), out in zip(x, offsets.tolist(), shifted, strict=True):
        # PyTorch pads no bytes by reflection; small whole numbers are exact in float32.
        padded = torch.nn.functional.pad(image[None].float(), (reach,) * 4, mode="reflect")[0]
        top, left = reach - down, reach - right
        assert torch.equal(out.float(), padded[:, top : top + shape[2], left : left + shape[3]])


def test_a_batch_is_reflected_if_its_augmentation_says_so():
    x = torch.tensor([[[[1, 2, 3]] * 3]], dtype=torch.uint8)
    draws = Draws(torch.tensor([[0, 2]]))
    assert augment(x, draws, Augmentation(shift=2, fill="reflect"))[0, 0, 0].tolist() == [3, 2, 1]
    assert augment(x, draws, Augmentation(shift=2))[0, 0, 0].tolist() == [0, 0, 1]


def cut_out_slowly(x: torch.Tensor, centres: torch.Tensor, side: int) -> torch.Tensor:
    """Pixel by pixel: a square of `side` pixels, the one at the centre being number side // 2 of them."""
    out = x.clone()
    batch, _, height, width = x.shape
    for b in range(batch):
        row, column = int(centres[b, 0] * height), int(centres[b, 1] * width)
        for r in range(row - side // 2, row - side // 2 + side):
            for c in range(column - side // 2, column - side // 2 + side):
                if 0 <= r < height and 0 <= c < width:
                    out[b, :, r, c] = 0
    return out


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*(st.integers(1, top) for top in (5, 3, 7, 6))),
    side=st.integers(1, 8),
    seed=st.integers(0, 10**6),
)
def test_cutout_is_the_slow_loop(shape, side, seed):
    generator = torch.Generator().manual_seed(seed)
    x = 1 + torch.rand(shape, generator=generator)
    centres = torch.rand(shape[0], 2, generator=generator)
    assert torch.equal(cutout(x.clone(), centres, side), cut_out_slowly(x, centres, side))


def test_cutouts_lie_around_every_pixel_alike():
    draws = draw(Augmentation(cutout=1), 9000, np.random.default_rng(0))
    assert draws.centres is not None
    assert draws.offsets is None and draws.flips is None
    left = cutout(torch.ones(9000, 1, 3, 3), draws.centres, 1)
    assert torch.equal(left.sum((1, 2, 3)), torch.full((9000,), 8.0))  # one pixel of every image
    assert (9000 - left.sum((0, 1)) - 1000).abs().max() < 4.5 * 30


def test_a_crop_is_torchvisions_resized_crop_image_by_image():
    from torchvision.transforms.v2.functional import resized_crop

    height, width = 12, 9
    x = torch.randint(0, 256, (60, 3, height, width), dtype=torch.uint8)
    draws = draw(Augmentation(crop_scale=[0.08, 1], crop_ratio=[0.5, 2]), 60, np.random.default_rng(1))
    assert draws.crops is not None
    parts = crop(x, draws.crops)
    places = set()
    for image, drawn, part in zip(x, draws.crops.tolist(), parts, strict=True):
        rows, columns = max(1, round(drawn[0] * height)), max(1, round(drawn[1] * width))
        top = min(int(drawn[2] * (height - rows + 1)), height - rows)
        left = min(int(drawn[3] * (width - columns + 1)), width - columns)
        slow = resized_crop(image.float(), top, left, rows, columns, [height, width], antialias=False)
        assert (part - slow).abs().max() < 0.51  # rounded to a byte
        places.add((top, left, rows, columns))
    assert len(places) > 30
    whole = torch.tensor([[1.0, 1.0, 0.3, 0.9]]).expand(60, 4)
    assert torch.equal(crop(x, whole), x)
    assert crop(x[:2, :, :1, :1], whole[:2]).shape == (2, 3, 1, 1)


def test_crops_have_the_areas_and_shapes_that_are_said():
    draws = draw(Augmentation(crop_scale=(0.25, 0.5), crop_ratio=(0.8, 1.25)), 4000, np.random.default_rng(0))
    assert draws.crops is not None and draws.crops.dtype == torch.float32
    area, shape = draws.crops[:, :2].prod(1), draws.crops[:, 1] / draws.crops[:, 0]
    assert (
        area.min() >= 0.2499 and area.max() <= 0.5001 and area.mean().item() == pytest.approx(0.375, abs=0.01)
    )
    assert shape.min() >= 0.799 and shape.max() <= 1.2501 and shape.log().mean().abs() < 0.01
    # Of large parts those that fit are taken, and where none does, what of it lies within the image.
    tall = draw(Augmentation(crop_scale=(1, 1), crop_ratio=(0.5, 0.5)), 5, np.random.default_rng(0)).crops
    assert tall is not None and tall[:, 0].tolist() == [1] * 5
    assert tall[:, 1] == pytest.approx(0.5**0.5)


def test_what_was_drawn_before_there_were_crops_is_still_drawn():
    before = draw(Augmentation(shift=2, flip=True, cutout=3), 50, np.random.default_rng(4))
    now = draw(Augmentation(2, "zero", True, 3, crop_scale=(0.3, 1)), 50, np.random.default_rng(4))
    for name in ("offsets", "flips", "centres"):
        assert torch.equal(getattr(before, name), getattr(now, name))


def test_flip_mirrors_the_chosen_only():
    x = torch.arange(6, dtype=torch.uint8).reshape(2, 1, 1, 3)
    assert flip(x, torch.tensor([True, False])).flatten().tolist() == [2, 1, 0, 3, 4, 5]


def test_draws_cover_every_offset_alike():
    draws = draw(Augmentation(shift=1, flip=True), 9000, np.random.default_rng(0))
    assert draws.offsets is not None
    assert draws.flips is not None
    _, counts = torch.unique(draws.offsets, dim=0, return_counts=True)
    assert len(counts) == 9  # 3 × 3 offsets, each 1000 times but for 4.5 deviations
    assert counts.sub(1000).abs().max() < 4.5 * 30
    assert draws.flips.double().mean().item() == pytest.approx(0.5, abs=0.025)


def test_no_augmentation_leaves_the_batch_alone():
    draws = draw(Augmentation(), 5, np.random.default_rng(0))
    assert draws == Draws(None, None)
    x = torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    assert augment(x, draws, Augmentation()) is x


def test_both_shift_first():
    x = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)
    draws = Draws(torch.tensor([[0, 1]]), torch.tensor([True]))
    assert augment(x, draws, Augmentation(shift=1, flip=True)).flatten().tolist() == [2, 1, 0]


def test_config():
    assert parse_augmentation(None) == parse_augmentation({}) == Augmentation(0, "zero", False, 0)
    config = {"shift": 2, "fill": "reflect", "flip": True, "cutout": 8}
    assert parse_augmentation(config) == Augmentation(2, "reflect", True, 8)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"shift": -1}, "augment.shift=-1: it is a whole number, 0 or more, of pixels"),
        ({"shift": 1.5}, "augment.shift=1.5: it is"),
        ({"shift": True}, "augment.shift=True: it is"),
        ({"flip": "yes"}, "augment.flip=yes: it is true or false"),
        ({"fill": "mirror"}, "augment.fill=mirror: it is one of zero, reflect"),
        ({"fill": None}, "augment.fill=None: it is one of zero, reflect"),
        ({"cutout": -8}, "augment.cutout=-8: it is"),
        ({"cutout": "8"}, "augment.cutout=8: it is a whole number"),
        (
            {"rotate": 3},
            "augment.rotate is unknown; there are shift, fill, flip, cutout, crop_scale, crop_ratio",
        ),
        ({"crop_scale": 0.5}, "augment.crop_scale=0.5: it is [least, most], such as [0.35, 1]"),
        ({"crop_scale": [0, 1]}, "augment.crop_scale=[0, 1]: it is"),
        ({"crop_scale": [0.5, 1.5]}, "augment.crop_scale=[0.5, 1.5]: it is"),
        ({"crop_scale": ["a", 1]}, "augment.crop_scale=['a', 1]: it is"),
        ({"crop_ratio": [2, 1]}, "augment.crop_ratio=[2, 1]: it is [least, most], such as [0.75, 1.33]"),
        ("shift", "augment=shift: it is null or such as {shift: 4, flip: true}"),
    ],
)
def test_bad_config_is_one_line(config, says):
    with pytest.raises(UserError) as caught:
        parse_augmentation(config)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_an_augmentation_names_its_arguments_as_a_programmer_knows_them():
    with pytest.raises(UserError, match=r"^shift=-1: it is "):
        Augmentation(shift=-1)


def test_what_is_drawn():
    assert (
        not Augmentation().draws
        and not parse_augmentation(None).draws
        and not Augmentation(fill="reflect").draws
    )
    assert all(
        Augmentation(**{name: value}).draws
        for name, value in (("shift", 1), ("flip", True), ("cutout", 2), ("crop_scale", [0.5, 1]))
    )
