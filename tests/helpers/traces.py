"""Traces that are drawn."""

import torch

from branchynet.exits.trace import Trace


def random_trace(samples: int, exits: int, seed: int = 0) -> Trace:
    """Later exits are surer and more often right; who is sure is right more often."""
    generator = torch.Generator().manual_seed(seed)
    margin = torch.randn(samples, 1, generator=generator) + torch.linspace(0.2, 1.2, exits)
    margin = margin + 0.6 * torch.randn(samples, exits, generator=generator)
    right = torch.rand(samples, exits, generator=generator) < torch.sigmoid(2 * margin)
    return Trace(torch.sigmoid(-2 * margin), right.long(), torch.ones(samples, dtype=torch.int64))
