"""Seeds for separate purposes out of one."""

import hashlib


def derive_seed(seed: int, purpose: str) -> int:
    """A seed (0 … 2**63 - 1) of its own for `purpose`, so that one purpose's draws never shift another's."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
