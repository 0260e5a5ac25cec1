import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from branchynet.reporting.samples import SAMPLES_PER_EXIT, sample_images, surest_and_least_sure
from branchynet.reporting.style import BLACK, RED


def rows(figure):
    return np.array(figure.axes).reshape(-1, SAMPLES_PER_EXIT)


def test_images_stand_at_the_exit_that_they_took(report, images):
    first, second = rows(sample_images(report, images))
    shown = [[int(panel.get_images()[0].get_array()[0, 0]) for panel in row if panel.get_images()]
             for row in (first, second)]  # fmt: skip
    # The first pixel tells the sample: 36 values each, modulo 256.
    assert shown == [[36 * sample % 256 for sample in range(5)], [36 * sample % 256 for sample in (5, 6, 7)]]


def test_wrong_answers_are_red(report, images):
    first, _ = rows(sample_images(report, images))
    # Sample 3 (label a) is the one wrong answer among those that leave at exit 1.
    assert [panel.get_title() for panel in first[:5]] == [
        "a→a\n0",
        "b→b\n0.1",
        "c→c\n0.2",
        "a→b\n0.3",
        "b→b\n0.4",
    ]
    colours = [panel.title.get_color() for panel in first[:5]]
    assert colours == [BLACK, BLACK, BLACK, RED, BLACK]


def test_an_exit_that_nobody_takes_says_so(make_report, images):
    nobody = make_report(chosen=0)
    first, second = rows(sample_images(nobody, images))
    assert [text.get_text() for text in first[0].texts] == ["exit 1\n0.0 %", "no sample leaves here"]
    assert [text.get_text() for text in second[0].texts] == ["exit 2\n100.0 %"]


def test_colour_images_keep_their_channels(report):
    images = torch.zeros(8, 3, 4, 5, dtype=torch.uint8)
    images[:, 2] = 200
    picture = rows(sample_images(report, images))[0, 0].get_images()[0].get_array()
    assert picture.shape == (4, 5, 3)
    assert picture[0, 0].tolist() == [0, 0, 200]


def test_images_of_another_split_are_refused(report, images):
    with pytest.raises(ValueError, match="8 uint8 images wanted, 7"):
        sample_images(report, images[:7])
    with pytest.raises(ValueError, match=r"8 torch.float32 given"):
        sample_images(report, images.float())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30),
    st.integers(1, 12),
)
def test_surest_and_least_sure(pairs, count):
    uncertainty = torch.tensor([float(value) for value, _ in pairs])
    chosen = torch.tensor([flag for _, flag in pairs], dtype=torch.bool)
    result = surest_and_least_sure(uncertainty, chosen, count)
    ranked = sorted(
        (index for index, (_, flag) in enumerate(pairs) if flag), key=lambda index: pairs[index][0]
    )
    assert len(result) == min(count, len(ranked)) == len(set(result))
    surest = len(result) - len(result) // 2
    assert result[:surest] == ranked[:surest]
    assert result[surest:] == ranked[len(ranked) - len(result) // 2 :]
