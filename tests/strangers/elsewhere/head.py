"""A head: called with the shape at its place, the number of classes and its own settings."""

import torch
from torch import Tensor, nn


class SideBySide(nn.Module):
    """Mean and maximum of every channel, side by side, and two linear layers."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * shape[0], width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K)."""
        both = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.classifier(self.hidden(both).relu())
