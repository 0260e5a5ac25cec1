"""From tokens to one vector; and heads on tokens."""

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.heads import build_head
from branchynet.networks.tokens import POOLS, AttentionPool, token_pool

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


def test_each_pool_by_hand():
    assert torch.equal(token_pool("class", 8)(X), X[:, 0])
    assert torch.equal(token_pool("mean", 8)(X), X.mean(1))
    pool = token_pool("attention", 8)
    torch.testing.assert_close(pool(X), X.mean(1))  # a query of zeros
    with torch.no_grad():
        pool.query.copy_(torch.arange(8.0))
    weights = torch.softmax(X @ torch.arange(8.0) / 8**0.5, dim=1)
    torch.testing.assert_close(pool(X), torch.einsum("bt,btd->bd", weights, X))


@pytest.mark.parametrize("kind", POOLS)
def test_a_head_on_tokens(kind):
    head = build_head({"after": "x", "before": ["layer"], "tokens": kind, "fc": [6]}, (5, 8), 4)
    assert [type(layer) for layer in head] == [
        nn.LayerNorm, type(token_pool(kind, 8)), nn.Linear, nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert head(X).shape == (3, 4)
    head(X).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert ("query" in dict(AttentionPool(8).named_parameters())) and head[0].normalized_shape == (8,)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"convs": [4]}, "the trunk has tokens there"),
        ({"before": ["relu"]}, "allowed are tokens, fc"),
        ({"tokens": "first"}, "mean, class, attention"),
    ],
)
def test_what_tokens_do_not_take_is_told(spec, words):
    with pytest.raises(UserError, match=words):
        build_head({"after": "x", **spec}, (5, 8), 4)
