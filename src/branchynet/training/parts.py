"""Which parts of a network a stage trains, and how fast."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from branchynet.networks.branched import BranchedNetwork


def trained_parts(
    network: BranchedNetwork, trained: Sequence[bool], freeze_trunk: bool = False
) -> list[nn.Module]:
    """The segments and heads that get a gradient; of heads with exits inside, those of their own.

    Args:
        network: N exits.
        trained: N flags, at least one of them set; heads whose flag is False are left out, and so are the
            segments after the last head that is trained.
        freeze_trunk: leave out all segments.
    """
    flags = [trained[span] for span in network.spans]
    depth = 0 if freeze_trunk else max(n for n, own in enumerate(flags, start=1) if any(own))
    parts = list(network.segments[:depth])
    for head, own in zip(network.heads, flags, strict=True):
        if isinstance(head, BranchedNetwork):
            parts += trained_parts(head, own) if any(own) else []
        elif any(own):
            parts.append(head)
    return parts


def batch_norms(network: BranchedNetwork) -> list[nn.Module]:
    """Those of the trunk: of the segments and of the last head."""
    return [
        layer
        for part in (*network.segments, network.heads[-1])
        for layer in part.modules()
        if isinstance(layer, _BatchNorm)
    ]


def parameter_groups(
    parts: Iterable[nn.Module], trunk: Iterable[nn.Module] = (), trunk_lr: float | None = None
) -> list[dict[str, Any]]:
    """What of `parts` is trained, in groups: weight decay spares biases and the norms' scales.

    Args:
        parts: of a network.
        trunk: its segments; with a learning rate of their own they are two more groups, behind the others.
        trunk_lr: that learning rate.
    """
    parameters = [each for each in nn.ModuleList(parts).parameters() if each.requires_grad]
    slow = set() if trunk_lr is None else {id(each) for part in trunk for each in part.parameters()}
    groups = []
    for own, more in (
        ([each for each in parameters if id(each) not in slow], {}),
        ([each for each in parameters if id(each) in slow], {"lr": trunk_lr}),
    ):
        decayed = [parameter for parameter in own if parameter.ndim > 1]
        spared = [parameter for parameter in own if parameter.ndim <= 1]
        groups += [{"params": decayed, **more}] if decayed else []
        groups += [{"params": spared, "weight_decay": 0.0, **more}] if spared else []
    return groups
