"""The form of modules for inference: the same outputs, fewer layers, another layout, the original untouched."""

import pytest
import torch
from torch import nn

from branchynet.networks.lrn import released_lrn
from branchynet.networks.resnet import resnet_cifar
from branchynet.runtime.for_inference import folded, for_inference, pixel_by_pixel

LAST = torch.channels_last


def normalised(*layers):
    """With statistics and parameters of the normalisations that are not the initial ones."""
    module = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def norms(module):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def called(module):
    """How many normalisations a forward pass runs."""
    count = 0

    def hook(*_):
        nonlocal count
        count += 1

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(hook)
    return lambda: count


@pytest.fixture
def x():
    return torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_normalisations_go_into_the_convolutions_before_them(x):
    module = normalised(resnet_cifar(depth=8)).eval()
    made = for_inference(module)
    ran = called(made)
    torch.testing.assert_close(made(x), module(x), rtol=1e-4, atol=1e-5)
    assert ran() == 0 and norms(module) > 0


def test_beside_other_normalisations_too(x):
    module = normalised(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), released_lrn(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    made = for_inference(module.eval())
    ran = called(made)
    torch.testing.assert_close(made(x), module(x), rtol=1e-4, atol=1e-5)
    assert ran() == 0


def test_the_original_keeps_its_mode_and_its_weights(x):
    module = normalised(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    made = for_inference(module)
    made(x)
    assert module.training and not made.training and module[0].weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module[0].weight.is_contiguous(memory_format=LAST)


def test_a_normalisation_with_no_convolution_before_it_stays(x):
    module = normalised(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    made = folded(module)
    ran = called(made)
    assert torch.equal(made(x), module(x)) and ran() == 2
    torch.testing.assert_close(for_inference(module)(x), module(x))  # another layout may round otherwise


def test_a_convolution_that_is_called_twice_takes_nothing_in(x):
    shared = nn.Conv2d(3, 3, 3, padding=1)
    module = normalised(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3)).eval()
    torch.testing.assert_close(for_inference(module)(x), module(x))


def test_what_cannot_be_traced_stays_as_it_is(x):
    class Moody(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else -super().forward(x)

    module = Moody(*normalised(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    for sign in (1, -1):
        assert torch.equal(folded(module)(sign * x), module(sign * x))
        torch.testing.assert_close(for_inference(module)(sign * x), module(sign * x))


def test_the_layout_is_handed_on(x):
    module = for_inference(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)))
    y = module(x)
    assert y.is_contiguous(memory_format=LAST) and not y.is_contiguous()


def test_one_channel_has_no_layout():
    module = pixel_by_pixel(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten()))
    assert module[0].weight.is_contiguous()
