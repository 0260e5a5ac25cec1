"""Images and labels, looked at; what else may be wrong with them is in test_arrays.py."""

import numpy as np
import pytest
import torch

from branchynet.data.checked import build
from branchynet.data.files import FileProblem

X, Y = np.arange(120, dtype=np.uint8).reshape(6, 5, 4), np.arange(6) % 3


def test_labels_of_one_column_are_labels():
    dataset = build(
        "it", {"train": (X, Y[:, None]), "test": (X[:3], Y[:3].astype(np.uint8)[:, None])}, None, "file"
    )
    assert dataset.train.y.tolist() == Y.tolist() and dataset.test.y.dtype == torch.int64
    assert dataset.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.eye(3)[Y], r"labels is float64 \(6, 3\), one column for each class: store y.argmax"),
        (np.eye(3, dtype=int)[Y] | [1, 0, 0], "several labels for an image: exits answer with one class"),
        (np.ones((6, 2), int), "several labels"),
        (Y[:, None, None], r"must be integers of shape \(S,\) or \(S, 1\)"),
        (Y / 2, r"must be integers of shape \(S,\) or \(S, 1\)"),
    ],
)
def test_labels_that_are_none_are_refused_by_their_own_name(y, says):
    with pytest.raises(FileProblem, match=f"file: labels.*{says}" if "labels is" not in says else says):
        build("it", {"train": (X, Y), "test": (X, y)}, None, "file", {"y_test": "labels"})
