"""Every config in conf/model goes through the same invariants."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from branchynet.networks.attach import attach
from branchynet.networks.heads import DEFAULTS
from branchynet.runs.auto import resolved

CONF = Path(__file__).parents[2] / "conf"
# Those that take classes and exits from the data: see test_ready_models.
READY = sorted(p.stem for p in (CONF / "model").glob("*.yaml") if "auto" in p.read_text())
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in READY)
BATCH = 4


def make(config, shape, seed):
    """(trunk, network), as `branchynet train` makes them."""
    torch.manual_seed(seed)
    trunk = instantiate(config.trunk)
    exits = OmegaConf.to_container(config.exits, resolve=True)
    return trunk, attach(trunk, exits, shape, config.trunk.num_classes)


@torch.no_grad()
def settle(network, x):
    """Set batch norm's statistics to those of x: with the initial ones a deep ResNet's numbers explode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    """config, trunk, network, images x, and in evaluation the network's `logits` for x."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"model={request.param}"]).model
    size = config.trunk.get("size", 32)
    shape = (config.trunk.get("in_channels", 3), size, size)
    trunk, network = make(config, shape, seed=0)
    x = torch.randn(BATCH, *shape)
    settle(network, x)
    with torch.no_grad():
        logits = network.eval()(x)
    return SimpleNamespace(
        name=request.param, config=config, shape=shape, trunk=trunk, network=network, x=x, logits=logits
    )


def close(found, expected, tolerance):
    """Whether the difference is small against the expected logits' own size: both as wholes."""
    return (found.float() - expected).norm() <= tolerance * expected.norm()


def test_there_are_models():
    assert {"b_lenet", "b_alexnet", "b_alexnet_released", "b_resnet110", "b_resnet110_released"} <= set(NAMES)


def test_every_exit_gives_finite_logits_that_depend_on_the_image(model):
    inside = sum(len(exit_.get("exits", ())) for exit_ in model.config.exits)
    assert len(model.logits) == len(model.config.exits) + 1 + inside == model.network.num_exits
    for logits in model.logits:
        assert logits.shape[:2] == (BATCH, model.config.trunk.num_classes) and logits.isfinite().all()
        assert logits.shape[2:] == (model.shape[1:] if model.name == "b_unet" else ()), (
            "a class, or maps of them"
        )
        assert (logits.std(dim=0) > 0).all()


@torch.no_grad()
def test_exits_are_the_trunk_up_to_their_place_and_their_head(model):
    """The trunk, whole, with an ear at each place; then the head."""
    heard = {"input": model.x}
    hooks = [
        model.trunk.get_submodule(exit_.after).register_forward_hook(
            lambda module, inputs, output, place=exit_.after: heard.update({place: output})
        )
        for exit_ in model.config.exits
        if exit_.after != "input"
    ]
    last = model.trunk(model.x)
    for hook in hooks:
        hook.remove()
    told = zip(model.config.exits, model.network.heads, model.network.spans, strict=False)
    for exit_, head, own in told:
        given = head(heard[exit_.after])  # of a head with exits inside a list
        assert torch.equal(
            torch.stack(given) if "exits" in exit_ else given[None], torch.stack(model.logits[own])
        )
    assert torch.equal(last, model.logits[-1])


@torch.no_grad()
def test_the_undivided_trunk_is_the_last_exit(model):
    whole = model.network.trunk()
    assert torch.equal(whole(model.x), model.logits[-1])
    assert set(whole.state_dict()) == set(model.trunk.state_dict())


def test_every_parameter_gets_a_gradient(model):
    network = copy.deepcopy(model.network).train()
    torch.manual_seed(0)
    outputs = network(model.x)
    label = torch.arange(BATCH).view(BATCH, *[1] * (outputs[0].ndim - 2))
    sum(F.cross_entropy(out, label.expand(BATCH, *out.shape[2:])) for out in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_a_state_dict_goes_to_another_network_and_back(model):
    _, other = make(model.config, model.shape, seed=1)
    other.eval()
    assert not any(torch.equal(a, b) for a, b in zip(other(model.x), model.logits, strict=True))
    state = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(other(model.x), model.logits, strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


@torch.no_grad()
def test_channels_last_gives_close_logits(model):
    network = copy.deepcopy(model.network).to(memory_format=torch.channels_last)
    logits = network(model.x.contiguous(memory_format=torch.channels_last))
    assert all(close(a, b, 2e-5) for a, b in zip(logits, model.logits, strict=True))


@torch.no_grad()
def test_bf16_gives_close_logits(model):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.network(model.x)
    # 8 bits, through up to 110 layers.
    assert all(close(a, b, 0.1) for a, b in zip(logits, model.logits, strict=True))
    assert not any(torch.equal(a.float(), b) for a, b in zip(logits, model.logits, strict=True))


def test_every_key_of_an_exit_is_named_and_explained_where_it_first_stands(model):
    for exit_ in model.config.exits:
        # So that no override needs a plus sign; none of these trunks has tokens.
        assert set(exit_) - {"exits"} == {"after", *DEFAULTS} - {"tokens"}
    seen = set()
    for line in (CONF / "model" / f"{model.name}.yaml").read_text().splitlines():
        key, colon, _ = line.partition("#")[0].strip().removeprefix("- ").partition(":")
        if colon and key not in seen:
            seen.add(key)
            assert "#" in line, line


@pytest.mark.parametrize("name", READY)
def test_ready_models_take_what_they_need_from_the_images(name):
    """At 32 pixels, so that it takes no minute; the trunk's own numbers come out, and every exit has a gradient."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"model={name}", "model.exits.count=2"]).model
    shape, settings = (3, 32, 32), OmegaConf.to_container(config)
    found = resolved(settings, shape, 7)
    trunk = instantiate(found["trunk"]).eval()
    network = attach(trunk, found["exits"], shape, 7).eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        logits = network(x)
        assert torch.equal(logits[-1], trunk(x)) and [tuple(each.shape) for each in logits] == [(2, 7)] * 3
    sum(each.square().sum() for each in network(x)).backward()
    assert all(p.grad is not None for p in network.parameters())
