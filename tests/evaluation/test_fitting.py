"""What is fitted, on which images: and none of them is among those that choose."""

import pytest
import torch
from torch import nn

from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.evaluation.fitting import (
    Fitting,
    Unseen,
    find_shares,
    fit_criteria,
    images_to_fit_on,
    part_of_validation,
    same_images,
)
from branchynet.exits.combining import Average, Separate, fit_shares
from branchynet.exits.criteria import Criterion, Entropy


class Distance(Criterion):
    """How far features are from their mean over what the exit was right about; and how often it was right."""

    name, unit, learns, of_features = "distance", "units", True, True

    def prepare(self, num_classes, shape):
        self.register_buffer("mean", torch.zeros(shape))
        self.share = nn.Parameter(torch.zeros(1))
        self.prepared = (num_classes, shape)

    def fit(self, logits, label, features=None):
        right = logits.argmax(1) == label
        self.mean.copy_(features[right].mean(0))
        # One step of gradient descent from 0, for which gradients have to be on.
        loss = (self.share - right.float().mean()) ** 2
        loss.backward()
        with torch.no_grad():
            self.share -= 0.5 * self.share.grad
        self.samples = len(label)

    def forward(self, logits, features):
        return (features - self.mean).flatten(1).norm(dim=1)


class OfLogits(Distance):
    """Wants no features: it is given none."""

    of_features = False

    def fit(self, logits, label, features=None):
        assert features is None
        self.seen = logits

    def forward(self, logits):
        return logits.amax(dim=1).neg().exp()


class Before(OfLogits):
    """Knows what it was given of the exit before, and hands on twice the largest logit and 1 if it was fitted."""

    of_history, width = True, 2

    def fit(self, logits, label, features=None, state=None):
        self.seen, self.before, self.share.data[:] = logits, state, 1

    def forward(self, logits, state):
        return super().forward(logits), (2 * logits.amax(1, keepdim=True) * self.share).expand(-1, self.width)


class Wider(Before):
    """Each exit hands on more than the one before."""

    def forward(self, logits, state):
        self.width = 1 if state is None else 2
        return super().forward(logits, state)


@pytest.fixture
def half(bright_data):
    """Of the 100 validation images."""
    return part_of_validation(bright_data.labels("val"), 0.5)


def samples(fitting, data):
    return torch.cat(list(fitting.normalised(data))), fitting.labels(data)


def test_what_does_not_learn_is_shared(bright_network, bright_data):
    criterion = Entropy()
    assert fit_criteria(criterion, bright_network(), bright_data, None) == (criterion, criterion)


def test_what_learns_learns_at_its_own_exit(bright_network, bright_data, half):
    network, criterion = bright_network(), Distance()
    first, last = fit_criteria(criterion, network, bright_data, half)
    x, label = samples(half, bright_data)
    features = [network.segments[0](x), network.segments[1](network.segments[0](x))]
    for n, own in enumerate((first, last)):
        right = network.heads[n](features[n]).argmax(1) == label
        assert own.prepared == (3, (1, 4, 4)) and own.samples == 50
        assert torch.allclose(own.mean, features[n][right].mean(0))
        assert float(own.share) == pytest.approx(float(right.float().mean()))
        # Ready to be copied, stored and run.
        assert not own.training and not any(p.requires_grad for p in own.parameters())
    assert not torch.equal(first.share, last.share)
    assert not hasattr(criterion, "prepared"), "the settings' own object stays as it was"


def test_features_are_for_those_that_want_them(bright_network, bright_data, half):
    network = bright_network()
    _, last = fit_criteria(OfLogits(), network, bright_data, half)
    with torch.no_grad():
        assert torch.allclose(last.seen, network(samples(half, bright_data)[0])[1])


class Means(Distance):
    """Keeps one number of each image's features."""

    def prepare(self, num_classes, shape):
        super().prepare(num_classes, ())
        self.asked = []

    def kept(self, features):
        self.asked.append(len(features))
        return features.flatten(1).mean(1)


def test_what_is_kept_of_features_is_what_is_fitted_on_and_they_are_never_all_there(
    bright_network, bright_data, half, monkeypatch
):
    monkeypatch.setattr("branchynet.evaluation.fitting.at_once", lambda shape: 30)
    network = bright_network()
    first, last = fit_criteria(Means(), network, bright_data, half)
    assert first.asked == last.asked == [30, 20]
    x, label = samples(half, bright_data)
    features = network.segments[0](x)
    right = network.heads[0](features).argmax(1) == label
    assert torch.allclose(first.mean, features[right].mean())


@torch.no_grad()
def test_shares_are_fitted_on_what_is_set_aside(bright_network, bright_data, half, monkeypatch):
    monkeypatch.setattr("branchynet.evaluation.fitting.at_once", lambda shape: 30)
    network = bright_network()
    x, label = samples(half, bright_data)
    assert find_shares(Average(), network, bright_data, half) == fit_shares(network(x), label)
    assert find_shares(Separate(), network, bright_data, None) is None
    with pytest.raises(UserError, match=r"^combine\.shares=\[0, 0.5, 1\]: it is 2 numbers"):
        find_shares(Average([0, 0.5, 1]), network, bright_data, None)


@torch.no_grad()
def test_what_learns_learns_from_averaged_answers(bright_network, bright_data, half):
    network = bright_network()
    _, last = fit_criteria(OfLogits(), network.with_shares((0, 0.25)), bright_data, half)
    first, second = network(samples(half, bright_data)[0])
    assert torch.allclose(last.seen, 0.75 * second + 0.25 * first)


@torch.no_grad()
def test_what_looks_back_learns_from_what_the_exit_before_hands_on(bright_network, bright_data, half):
    network = bright_network()
    first, last = fit_criteria(Before(), network, bright_data, half)
    assert first.before is None and torch.allclose(last.before, 2 * first.seen.amax(1, True).expand(-1, 2))
    with pytest.raises(UserError, match=r"^the criterion distance hands on \(50, 2\) float32 from exit 2"):
        fit_criteria(Wider(), network, bright_data, half)


def test_a_part_of_validation_has_its_share_of_each_class_and_is_always_the_same():
    label = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    fitting = part_of_validation(label, 0.3)
    assert fitting.images == 30 == int(fitting.val.sum()) and fitting.split == "validation"
    assert label[fitting.val].bincount().tolist() == [18, 9, 3]
    assert torch.equal(part_of_validation(label, 0.3).val, fitting.val)


@pytest.mark.parametrize("share", [0.004, 0.996])
def test_some_images_fit_and_some_choose(share):
    with pytest.raises(
        UserError, match=rf"^fit_share={share}: of 100 validation images some are to be fitted on"
    ):
        part_of_validation(torch.zeros(100, dtype=torch.int64), share)


def test_images_are_set_aside_only_for_what_is_fitted(bright_data):
    assert images_to_fit_on(Entropy(), Separate(), bright_data) is None
    assert images_to_fit_on(Entropy(), Average([0, 0.5]), bright_data) is None
    for criterion, combining in ((Distance(), Separate()), (Entropy(), Average())):
        found = images_to_fit_on(criterion, combining, bright_data, 0.2)
        assert (found.images, found.split, found.share) == (20, "validation", 0.2)


def test_calibration_images_fit_and_all_of_validation_chooses(bright_data):
    data = ImageData("arrays", path=bright_data.path, validation_size=100, calibration=0.2)
    data.setup()
    found = images_to_fit_on(Distance(), Separate(), data, 0.5)
    assert (found.images, found.split, found.val) == (40, "calibration", None)
    x, label = samples(found, data)
    assert len(x) == len(label) == 40 and torch.equal(x, next(data.batches("calibration", 10_000))[0])
    assert torch.equal(next(Unseen(data, found).normalised("val")), next(data.batches("val", 10_000))[0])
    # Those of validation are the same with and without.
    assert torch.equal(data.images("val"), bright_data.images("val"))


def test_too_few_to_fit_on_are_told_with_the_number_needed(bright_data):
    class Greedy(Distance):
        name = "greedy"

        def least(self, num_classes):
            return 40 * num_classes

    message = "^the criterion greedy has 50 validation images to be fitted on and needs 120: more by "
    with pytest.raises(
        UserError, match=message + r"data\.calibration, data\.validation_size or sweep\.fit_share"
    ):
        images_to_fit_on(Greedy(), Separate(), bright_data)


def test_what_chooses_has_not_fitted(bright_data, half):
    unseen = Unseen(bright_data, half)
    for which in ("val", "test"):
        assert torch.equal(unseen.image(which, 7), unseen.images(which)[7])
    x, label = torch.cat(list(unseen.normalised("val", 30))), unseen.labels("val")
    assert len(x) == 50 and torch.equal(label, bright_data.labels("val")[~half.val])
    assert torch.equal(unseen.images("val"), bright_data.images("val")[~half.val])
    for which in ("test", "train"):
        assert torch.equal(next(unseen.normalised(which)), next(bright_data.batches(which, 10_000))[0])
    assert torch.equal(
        next(Unseen(bright_data, None).normalised("val")), next(bright_data.batches("val", 10_000))[0]
    )


def test_what_was_fitted_stays_where_the_images_are_the_same(half):
    other, calibration = Fitting(50, half.val.roll(1), 0.5), Fitting(50)
    assert same_images(None, None) and same_images(half, Fitting(50, half.val.clone(), 0.5))
    assert same_images(calibration, Fitting(50)) and not same_images(calibration, Fitting(51))
    assert not any(same_images(half, one) for one in (None, other, calibration))
