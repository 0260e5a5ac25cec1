"""Criteria that learn from what an exit says whether it is right: its uncertainty is 1 - p(right).

Their danger is overfitting: with some thousand samples, of which a few are wrong, a network that judges may know
less than the entropy. So entropy is where they begin, what they add to it is held small, and where that is not
surely better on samples that it has not been fitted on, they are entropy again.

Shapes: B batch, D inputs, K classes, S samples, W wrong answers.
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchynet.errors import check_whole, not_allowed
from branchynet.exits.criteria import Criterion, Entropy

INPUTS = ("softmax", "sorted_logits", "features")
FOLDS = 4  # of the samples: each is judged by what was fitted on the others
FEW = 2 * FOLDS  # of right or of wrong answers: with fewer, nothing is learned
ITERATIONS = 10  # of L-BFGS in a round
# Nats that are added before the logarithm: a thousand times the rounding of entropy, in which engines differ. What
# is surer than that is still told apart.
LEAST_ENTROPY = 1e-3
LEAST_SPREAD = 0.1  # of ln entropy, for a slope that stays finite
MOST = 80.0  # of the logit of p(right): 1 - p is still a normal float32


class Learned(Criterion):
    """1 - p(right), p(right) = sigmoid(base + net), base linear in ln entropy, and net what is learned beside it.

    Base alone, with a slope that falls, makes it a rising function of entropy: what the criterion falls back to.
    `mean` and `scale` make the inputs, ln entropy the first of them, 0 on average with a spread of 1.

    Args:
        inputs: what it looks at, one or more: `softmax`, the probabilities, class by class; `sorted_logits`, the
            largest first; `features`, of the exit's place on the trunk, the mean of each channel.
    """

    unit = "0 to 1"
    learns = of_probability = True
    decays: Sequence[float]  # penalties on the weights' squares that are tried
    rounds: int  # after each of which it may be stopped

    mean: Tensor
    scale: Tensor
    held_out: Tensor
    answers: Tensor

    def __init__(self, inputs: Sequence[str] = ("sorted_logits",)) -> None:
        super().__init__()
        several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
        if not several or not inputs or any(each not in INPUTS for each in inputs):
            raise not_allowed("inputs", inputs, f"a list of one or more of {', '.join(INPUTS)}")
        self.inputs = tuple(inputs)
        self.of_features = "features" in self.inputs
        self.entropy = Entropy()

    def largest(self, num_classes: int) -> float:
        return 1.0

    def least(self, num_classes: int) -> int:
        """Of FEW or more wrong answers there have to be some, and of right ones."""
        return 50

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        # Maps are (C, H, W), or, as in Swin and ConvNeXt, (H, W, C); tokens are (T, C).
        self.channel = -1 if len(shape) == 2 or (len(shape) == 3 and shape[0] == shape[1]) else 0
        widths = {"features": shape[self.channel]}
        width = 1 + sum(widths.get(each, num_classes) for each in self.inputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.base, self.net = nn.Linear(1, 1), self.make(width)
        for tensor in (*self.base.parameters(), *self.net[-1].parameters()):
            nn.init.zeros_(tensor)
        nn.init.constant_(self.base.weight, -1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        # AUROC on held-out samples, its own, entropy's, and the difference's standard error; 0: not compared.
        self.register_buffer("held_out", torch.zeros(3))
        self.register_buffer("answers", torch.zeros(2, dtype=torch.int64))  # right and wrong ones
        self.alone = False  # whether base is all that is computed
        self.register_load_state_dict_post_hook(_settle)

    def make(self, width: int) -> nn.Sequential:
        """From D inputs to one number; it ends in a linear layer."""
        raise NotImplementedError

    def forward(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """(B, K) to (B,)."""
        if self.alone:
            z: Tensor = self.base((self._ln_entropy(logits.float()) - self.mean[:1]) * self.scale[:1])
        else:
            x = (self.seen(logits, features) - self.mean) * self.scale
            z = self.base(x[:, :1]) + self.net(x)
        return (-z[:, 0].clamp(max=MOST)).sigmoid()

    def _ln_entropy(self, logits: Tensor) -> Tensor:
        return (self.entropy(logits)[:, None] + LEAST_ENTROPY).log()

    def seen(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """(B, D): ln entropy and the inputs."""
        logits = logits.float()
        parts = [self._ln_entropy(logits)]
        for each in self.inputs:
            if each == "softmax":
                parts.append(logits.softmax(dim=1))
            elif each == "sorted_logits":
                parts.append(logits.topk(logits.shape[1], dim=1).values)
            else:
                assert features is not None  # it is `of_features`
                parts.append(self.kept(features.float()))
        return torch.cat(parts, dim=1)

    def kept(self, features: Tensor) -> Tensor:
        """(B, C): the mean of each channel; vectors as they are."""
        others = features.ndim - 2
        if not others:
            return features
        return features.mean(dim=tuple(range(1, 1 + others) if self.channel else range(2, 2 + others)))

    def fit(
        self, logits: Tensor, label: Tensor, features: Tensor | None = None, state: Tensor | None = None
    ) -> None:
        right = logits.argmax(dim=1) == label
        with torch.no_grad():
            x = self.seen(logits, features)
            spread = x.std(dim=0)
            self.mean.copy_(x.mean(dim=0))
            # What is the same for all samples says nothing.
            self.scale.copy_(torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0))
            self.scale[0] = 1 / spread[0].clamp(min=LEAST_SPREAD)
            self.answers.copy_(torch.stack([right.sum(), (~right).sum()]))
            x = ((x - self.mean) * self.scale).double()
        y = right.double()
        decay, rounds = 0.0, 0
        if self.answers.min() >= FEW:
            decay, rounds = self._on_held_out(x, y)
        _settle(self)
        if self.alone:
            self._fall_back(x, y)
            return
        for base, net in self._rounds(x, y, decay, rounds):
            self.base.load_state_dict(base.state_dict())
            self.net.load_state_dict(net.state_dict())

    def note(self) -> str:
        own, entropy, _ = self.held_out.tolist()
        right, wrong = self.answers.tolist()
        if not entropy:
            return f"entropy alone, for {right:,} right and {wrong:,} wrong answers are too few to learn from"
        found = f"AUROC on held-out samples {own:.3f}, of entropy {entropy:.3f}"
        return f"entropy alone, for what was learned is not surely better: {found}" if self.alone else found

    def _on_held_out(self, x: Tensor, y: Tensor) -> tuple[float, int]:
        """The penalty and the number of rounds with the least cross-entropy on the samples of other folds."""
        fold = _folds(y)
        judged: dict[tuple[float, int], Tensor] = {}
        for decay in self.decays:
            logits = torch.zeros(self.rounds, len(y), dtype=torch.float64)
            for held in range(FOLDS):
                rest, out = fold != held, fold == held
                for n, (base, net) in enumerate(self._rounds(x[rest], y[rest], decay, self.rounds)):
                    with torch.no_grad():
                        logits[n, out] = (base(x[out, :1]) + net(x[out]))[:, 0]
            judged |= {(decay, n + 1): each for n, each in enumerate(logits)}
        best = min(judged, key=lambda each: F.binary_cross_entropy_with_logits(judged[each], y).item())
        right = y.bool()
        own, entropy = surer(-judged[best], right), surer(x[:, 0], right)
        more = own - entropy
        error = more.std() / len(more) ** 0.5
        self.held_out.copy_(torch.stack([own.mean(), entropy.mean(), error]))
        return best

    def _fall_back(self, x: Tensor, y: Tensor) -> None:
        """To a rising function of entropy: the one that fits best, or, where that falls, one with a slope of 1."""
        slope, shift = -1.0, float(((y.sum() + 1) / (len(y) + 2)).logit())
        if self.answers.min() >= FEW:
            for base, _ in self._rounds(x, y, 0.0, 1, alone=True):
                if base.weight.item() < 0:
                    slope, shift = base.weight.item(), base.bias.item()
        with torch.no_grad():
            self.base.weight.fill_(slope)
            self.base.bias.fill_(shift)
            for tensor in self.net[-1].parameters():
                tensor.zero_()

    def _rounds(
        self, x: Tensor, y: Tensor, decay: float, rounds: int, alone: bool = False
    ) -> Iterator[tuple[nn.Linear, nn.Sequential]]:
        """`base` and `net` after each round of fitting to samples (S, D), right or not (S,); `alone`: base only."""
        base, net = copy.deepcopy(self.base).double(), copy.deepcopy(self.net).double()
        weights = [] if alone else list(net.parameters())
        optimizer = torch.optim.LBFGS(
            [*base.parameters(), *weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.binary_cross_entropy_with_logits((base(x[:, :1]) + net(x))[:, 0], y)
            for each in weights:
                value = value + decay / 2 * each.square().sum()
            value.backward()
            return value

        for _ in range(rounds):
            optimizer.step(loss)
            yield base, net


class Logistic(Learned):
    """Logistic regression."""

    name = "logistic"
    decays = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    rounds = 4

    def make(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, 1, bias=False))


class Mlp(Learned):
    """A small network: one hidden layer of `hidden` units, stopped early.

    Args:
        inputs: see `Learned`.
        hidden: units.
    """

    name = "mlp"
    decays = (0.1, 0.01, 0.001)
    rounds = 8

    def __init__(self, inputs: Sequence[str] = ("sorted_logits",), hidden: int = 16) -> None:
        super().__init__(inputs)
        check_whole("hidden", hidden, 1, 1024)
        self.hidden = hidden

    def least(self, num_classes: int) -> int:
        return 100

    def make(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))


def _settle(criterion: Learned, _: object = None) -> None:
    """After fitting and after loading: a criterion that has fallen back to entropy computes nothing else."""
    own, entropy, error = criterion.held_out.tolist()
    criterion.alone = bool(criterion.answers.any()) and own <= entropy + error


def surer(uncertainty: Tensor, right: Tensor) -> Tensor:
    """(W,): for each wrong answer the share of the right ones that are surer, equally sure ones count as half.

    Their mean is the AUROC, and their spread over the wrong answers, of which there are few, is most of its error.

    Args:
        uncertainty: (S,).
        right: (S,) bool.

    >>> surer(torch.tensor([0.1, 0.2, 0.2, 0.9]), torch.tensor([True, True, False, False]))
    tensor([0.7500, 1.0000])
    """
    rising, wrong = uncertainty[right].sort().values, uncertainty[~right].contiguous()
    below = torch.searchsorted(rising, wrong) + torch.searchsorted(rising, wrong, right=True)
    return below.to(uncertainty.dtype) / (2 * len(rising))


def _folds(y: Tensor) -> Tensor:
    """(S,): the number of each sample's fold; of right and of wrong answers each fold has its share."""
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    by_answer = order[y[order].argsort(stable=True)]
    fold = torch.empty(len(y), dtype=torch.int64)
    fold[by_answer] = torch.arange(len(y)) % FOLDS
    return fold
