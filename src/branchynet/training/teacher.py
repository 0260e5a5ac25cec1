"""Another network as teacher: asked about every batch, or, where an image never changes, once about every image.

Shapes: B batch, C channels, H, W, K classes, S images of a split.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Teacher:
    """What a trained network says of images.

    It is no module: so it is no part of the state dict, the optimiser, the average of the weights and the compiled
    batches of whoever holds it, and several processes do not keep it in step. It runs in eval mode and gets no
    gradient.

    Args:
        network: from (B, C, H, W) to logits (B, K).
        images: S by split, of the splits whose batches may come with numbers.
    """

    def __init__(self, network: nn.Module, images: Mapping[str, int]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.memory = {split: Memory(count) for split, count in images.items()}
        self.memory_format = torch.contiguous_format

    def __deepcopy__(self, _: Any) -> "Teacher":
        """Itself: a copy of the student has the same teacher."""
        return self

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move the network, and lay its weights and what it gets out as the student's."""
        self.network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        self.memory_format = memory_format

    def __call__(self, x: Tensor, split: str, numbers: Tensor | None = None) -> Tensor:
        """Logits (B, K) float32.

        Args:
            x: images (B, C, H, W).
            split: which they are of.
            numbers: theirs in it, (B,), where a number stands for the same image every time. Then the network is
                asked about those alone that it was not asked about before.
        """
        if numbers is None:
            return self._ask(x)
        return self.memory[split].said(numbers, lambda new: self._ask(x[new]))

    @torch.no_grad()
    def _ask(self, x: Tensor) -> Tensor:
        return self.network(x.contiguous(memory_format=self.memory_format)).float()


MOST = 2**27  # numbers, that are remembered of a split: half a GiB


class Memory:
    """What was said of the S images of a split, (S, K) float32, each asked about once; of too many nothing."""

    def __init__(self, images: int) -> None:
        self.images = self.left = images
        self.too_many = False
        # Made when the first is asked about: before, neither K nor the device is known.
        self.answers: Tensor | None = None
        self.known: Tensor | None = None  # (S,) bool

    def said(self, numbers: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, K), of the images with these numbers (B,); `ask` gives it of those where its argument is true."""
        if self.too_many:
            return ask(torch.ones_like(numbers, dtype=torch.bool))
        # With all of them known nobody waits for a GPU's answer to that, batch after batch.
        if self.left:
            if self.known is None:
                self.known = torch.zeros(self.images, dtype=torch.bool, device=numbers.device)
            new = ~self.known[numbers]
            if new.any():
                answers = ask(new)
                if self.images * answers.shape[1] > MOST:  # then there is nothing to remember
                    self.too_many = True
                    return answers
                if self.answers is None:
                    self.answers = answers.new_zeros(self.images, answers.shape[1])
                self.answers[numbers[new]], self.known[numbers] = answers, True
                self.left -= len(answers)
        assert self.answers is not None
        return self.answers[numbers]
