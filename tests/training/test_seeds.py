"""Seeds for separate purposes."""

from branchynet.training.seeds import derive_seed


def test_seeds_repeat_and_differ_by_seed_and_purpose():
    assert derive_seed(0, "trunk") == derive_seed(0, "trunk")
    seeds = {
        derive_seed(seed, purpose) for seed in range(50) for purpose in ("trunk", "heads", "joint epoch 1")
    }
    assert len(seeds) == 150 and all(0 <= seed < 2**63 for seed in seeds)
