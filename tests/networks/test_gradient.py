"""A scaled gradient, and values that stay as they are."""

import torch

from branchynet.networks.gradient import scale_gradient


def test_the_gradient_is_scaled_and_the_value_is_not():
    x = torch.tensor([0.1, -3.0, 1e-30], requires_grad=True)
    y = scale_gradient(x, 0.3)
    assert torch.equal(x, y)
    (y * torch.tensor([1.0, 2.0, 10.0])).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([0.3, 0.6, 3.0]))


def test_what_follows_may_work_in_place():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    inner = x * 1
    torch.relu_(scale_gradient(inner, 0.5)).sum().backward()
    assert x.grad.tolist() == [0.0, 0.5] and inner.tolist() == [-1.0, 2.0]


def test_nothing_is_done_where_there_is_nothing_to_scale():
    x = torch.ones(2, requires_grad=True)
    assert scale_gradient(x, 1) is x and scale_gradient(y := torch.ones(2), 0.5) is y
    with torch.no_grad():
        assert not scale_gradient(x, 0.5).requires_grad
