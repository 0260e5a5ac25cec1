"""Another network as teacher: asked once about an image that never changes, and no part of the student."""

import copy
import pickle
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from branchynet.data.augment import Augmentation
from branchynet.training.distilled import Distilled
from branchynet.training.module import BranchyClassifier
from branchynet.training.stages import fit
from branchynet.training.teacher import Memory, Teacher

TRAINER = {"accelerator": "cpu", "devices": 1}
IMAGES = {"train": 100, "val": 20}
EPOCHS = 3


class Asked(nn.Module):
    """A teacher with batch norm and dropout, which would show in training mode; it notes what it is asked about."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        layers = [
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(48, 3),
        ]
        self.layers = nn.Sequential(*layers)
        self.images = []

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        self.images += list(x.clone())
        return self.layers(x)


@pytest.fixture
def distil(data, tmp_path, with_norms):
    """A function that trains a student of three exits; gives it, its module, its teacher, and what was logged."""

    class Logged(Callback):
        def __init__(self):
            self.epochs = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def run(name="run", numbered=True, drawn=False, epochs=EPOCHS, ema=None, **options):
        if not drawn:
            data.augmentation = Augmentation()
        data.numbered = numbered
        weights = options.pop("weights", (1.0, 0.0, 0.5))
        net, asked, logged = with_norms(dropout=0.0), Asked(), Logged()
        objective = Distilled(weights, share=0.5, teacher="a path", label_smoothing=0.1)
        module = BranchyClassifier(
            net, objective, partial(torch.optim.AdamW, lr=0.01), teacher=Teacher(asked, IMAGES), **options
        )
        fit(module, data, epochs, tmp_path / name, TRAINER, callbacks=[logged], ema=ema)
        return net, module, asked, logged.epochs

    return run


def counts(images):
    """How often each distinct image was asked about, and how many there are."""
    found = torch.stack(images).unique(dim=0, return_counts=True)[1]
    return found.max().item(), len(found)


def test_it_is_asked_once_about_an_image_that_never_changes_and_the_student_learns_the_same(distil):
    once, _, asked, logged = distil("once")
    assert counts(asked.images) == (1, 120)
    often, _, others, expected = distil("often", numbered=False)
    assert counts(others.images) == (EPOCHS, 120)
    # Not bit for bit: an image stands in other batches, and sums are rounded otherwise.
    for first, second in zip(logged, expected, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    for name, value in once.state_dict().items():
        torch.testing.assert_close(value, often.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_where_images_are_augmented_it_is_asked_about_every_batch_but_once_in_validation(distil):
    _, _, asked, _ = distil(drawn=True)
    assert len(asked.images) == EPOCHS * 100 + 20


def test_it_is_no_part_of_the_student_and_is_never_changed(distil, tmp_path):
    net, module, asked, _ = distil(ema=0.9, weights=(1.0, 0.3, 0.0), freeze_trunk=True, channels_last=True)
    assert all(torch.equal(value, Asked().state_dict()[name]) for name, value in asked.state_dict().items())
    assert all(parameter.grad is None for parameter in asked.parameters())
    assert counts(asked.images) == (1, 120)  # by the copy of the student that has the average, too
    for state in (
        module.state_dict(),
        torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"],
    ):
        assert {name.partition(".")[0] for name in state} == {"network"}
    own = {id(parameter) for parameter in net.parameters()}
    assert {id(parameter) for parameter in module.parameters()} == own
    teacher = module.teacher
    assert copy.deepcopy(teacher) is teacher


def test_after_a_resume_it_is_asked_about_those_alone_that_it_was_not_asked_about():
    memory, asked = Memory(5), []

    def ask(new, numbers):
        asked.append(numbers[new].tolist())
        return numbers[new][:, None] * torch.tensor([1.0, 10.0])

    for numbers in ([3, 1], [1, 4, 3, 0], [0, 1], [2], [4, 2]):
        numbers = torch.tensor(numbers)
        said = memory.said(numbers, lambda new, numbers=numbers: ask(new, numbers))
        assert said.tolist() == [[n, 10 * n] for n in numbers.tolist()]
    assert asked == [[3, 1], [4, 0], [2]] and memory.left == 0


def test_it_goes_to_another_process_and_to_another_device():
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), IMAGES)
    x = torch.randn(2, 1, 2, 2)
    assert torch.equal(pickle.loads(pickle.dumps(teacher))(x, "val"), teacher(x, "val"))
    teacher.to(torch.device("meta"), torch.channels_last)
    assert teacher.network[1].weight.is_meta and teacher(x.to("meta"), "val").is_meta


def test_of_too_many_images_nothing_is_remembered(monkeypatch):
    monkeypatch.setattr("branchynet.training.teacher.MOST", 14)
    memory, asked = Memory(5), []

    def ask(new):
        asked.append(int(new.sum()))
        return torch.arange(3.0)[:, None].expand(3, 3)

    for _ in range(2):
        assert memory.said(torch.tensor([4, 0, 2]), ask)[:, 0].tolist() == [0, 1, 2]
    assert asked == [3, 3] and memory.answers is None
