"""Exits that are placed by the trunk's MACs: how settings ask for them. Nothing here needs PyTorch."""

from collections.abc import Mapping
from typing import Any

AUTO = "auto"


def is_auto(exits: Any) -> bool:
    """Whether exits are to be placed by `branchynet.networks.places.auto_exits`: `auto`, or a mapping."""
    return exits == AUTO or isinstance(exits, Mapping)
