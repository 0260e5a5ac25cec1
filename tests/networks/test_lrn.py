"""Our local response normalisation against PyTorch's: forward, backward, dtypes, layouts, export."""

import onnx
import pytest
import torch
from torch import nn

from branchynet.networks.lrn import LocalResponseNorm, released_lrn
from branchynet.runtime.session import load_session
from branchynet.runtime.to_onnx import export

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


MODES = {"training": True, "evaluation": False}


def both(size, alpha=0.02, beta=0.75, k=2.0, training=True):
    """Ours, and the reference. An alpha that makes the normalisation matter."""
    arguments = size, alpha, beta, k
    return LocalResponseNorm(*arguments).train(training), nn.LocalResponseNorm(*arguments)


def answer(layer, x, grad):
    """What the layer gives, and the gradient with respect to x."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    y.backward(grad.to(y.dtype))
    return y, x.grad


def draw(*shape, layout=torch.contiguous_format, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    x, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    return tuple((9 * t).to(dtype).to(memory_format=layout) for t in (x, grad))


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
@pytest.mark.parametrize("size", [1, 3, 5, 9, 2, 4])
@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_it_gives_what_pytorchs_gives(training, size, beta):
    ours, theirs = both(size, beta=beta, training=training)
    x, grad = draw(2, 7, 5, 4)
    y, dx = answer(ours, x, grad)
    expected, expected_dx = answer(theirs, x, grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, expected_dx)
    assert (y / x).std() > 0.01  # it does more than to divide by a constant


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_fewer_channels_than_the_window_reaches(training, channels):
    ours, theirs = both(7, training=training)
    x, grad = draw(2, channels, 3, 3)
    for found, expected in zip(answer(ours, x, grad), answer(theirs, x, grad), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_gradient_is_the_derivative():
    ours, _ = both(3)
    x = draw(2, 4, 2, 3, dtype=torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(ours, (x,))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_the_layout_in_memory_is_kept(training, layout):
    ours, theirs = both(3, training=training)
    x, grad = draw(2, 6, 5, 4, layout=layout)
    y, dx = answer(ours, x, grad)
    assert y.is_contiguous(memory_format=layout) and dx.is_contiguous(memory_format=layout)
    expected, expected_dx = answer(theirs, x, grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, expected_dx)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_bf16_autocast_is_as_exact_as_its_own_rounding(training, layout):
    layer = released_lrn().train(training)
    x, grad = draw(2, 6, 5, 4, layout=layout, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, dx = answer(layer, x, grad)
    assert y.dtype == dx.dtype == torch.bfloat16
    expected, expected_dx = answer(nn.LocalResponseNorm(3, 1.5e-4, 0.75, 2.0), x.float(), grad.float())
    # Computed in float32 and rounded once: bf16 has 8 bits.
    torch.testing.assert_close(y.float(), expected, rtol=2**-8, atol=0)
    torch.testing.assert_close(dx.float(), expected_dx, rtol=2**-8, atol=0)


@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_half_precision_does_not_overflow(training):
    layer = released_lrn().train(training)
    x = torch.full((1, 3, 1, 1), 300.0, dtype=torch.float16)  # its square is more than float16 holds
    d = 2 + 5e-5 * 300**2 * torch.tensor([2.0, 3.0, 2.0])  # two neighbours at the edge, three inside
    torch.testing.assert_close(layer(x).flatten().float(), 300 * d**-0.75, rtol=2**-10, atol=0)


def test_a_second_derivative_is_refused_rather_than_wrong():
    ours, _ = both(3)
    x = draw(1, 4, 2, 2)[0].requires_grad_()
    (dx,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize("training", MODES.values(), ids=MODES)
def test_flat_inputs_are_pytorchs_own(training):
    ours, theirs = both(3, training=training)
    flat = draw(2, 6, 5)[0]
    assert torch.equal(ours(flat), theirs(flat))


def test_evaluation_leaves_its_input_alone():
    x = draw(2, 6, 5, 4)[0]
    before = x.clone()
    with torch.inference_mode():
        both(3, training=False)[0](x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [3, 4])
def test_the_export_gives_the_same_and_neither_pools_nor_raises_to_a_power(size):
    ours, theirs = both(size)
    x = draw(4, 6, 5, 4)[0]
    model = export(ours, (6, 5, 4))
    assert not {node.op_type for node in onnx.load_from_string(model).graph.node} & {"AveragePool", "Pow"}
    found = load_session(model, threads=1).run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), theirs(x))


def test_it_compiles_as_one_graph_with_its_gradient():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), both(3)[0])
    x = draw(2, 3, 6, 5)[0]
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    gradients = []
    for run in (compiled, net):
        net.zero_grad()
        run(x).square().sum().backward()
        gradients.append(net[0].weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_released_constants():
    layer = released_lrn()
    assert (layer.size, layer.alpha, layer.beta, layer.k) == (3, 1.5e-4, 0.75, 2.0)
    # As the original writes it: k + 5e-5 · Σ, not divided by the window.
    x = torch.full((1, 3, 1, 1), 100.0)
    assert layer(x)[0, 1, 0, 0].item() == pytest.approx(100 / (2 + 5e-5 * 3e4) ** 0.75)
