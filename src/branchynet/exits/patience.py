"""A criterion that counts: how many exits in a row agree.

Source: Zhou, Xu, Ge, McAuley, Xu and Wei, 2020, "BERT Loses Patience: Fast and Robust Inference with Early Exit".
Shapes: B batch, K classes.
"""

import torch
from torch import Tensor

from branchynet.exits.criteria import Criterion


class Patience(Criterion):
    """1 / k, where k exits in a row, up to this one, have predicted the same class: 1, 1/2, 1/3, …

    So a threshold of 1 / t is the paper's patience t: t exits in a row predict what the one before them did, which
    makes k = t + 1 that agree. At exit 1 k is 1: no threshold tells one image there from another.

    >>> import torch
    >>> first, state = Patience()(torch.tensor([[0.0, 1.0], [3.0, 0.0]]), None)
    >>> second, state = Patience()(torch.tensor([[0.0, 9.0], [0.0, 1.0]]), state)
    >>> first, second
    (tensor([1., 1.]), tensor([0.5000, 1.0000]))
    """

    name = "patience"
    unit = "1 / exits in a row that agree"
    of_history = True

    def largest(self, num_classes: int) -> float:
        return 1.0

    def forward(self, logits: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, K), and (B, 2) from the exit before, to (B,) and (B, 2): the class that was predicted, and k."""
        prediction = logits.argmax(dim=1).float()
        agreeing = torch.ones_like(prediction)
        if state is not None:
            agreeing = agreeing + (prediction == state[:, 0]) * state[:, 1]
        return 1 / agreeing, torch.stack([prediction, agreeing], dim=1)
