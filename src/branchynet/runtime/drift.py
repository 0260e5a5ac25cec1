"""Are the images still like validation's? A sequential test on what live streams show. No PyTorch here.

All that a stream shows of the first exit's uncertainty u is u itself where an image left there, and that it is at
least T where one did not. So the test looks at the share of validation below min(u, T), which is known of every
image. On images like validation's its mean is F - F²/2, with F the share below T, whatever T is and was: so a
controller may move T meanwhile. Other means, above or below by more than validation's size leaves open, let a bet
on that grow without bound.

The bets are an e-detector of CUSUM type (Page, 1954; Shin, Ramdas and Rinaldo, 2022): each of six, three stakes on
harder and three on easier images, starts anew from 1 where it has fallen below. On images like validation's, their
mean reaches the alarm's value A only after A images on average or more, and that holds for every A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from branchynet.runtime.ladder import Rail
from branchynet.runtime.profile import QUANTILES

STAKES = (0.25, 0.5, 1.0)
BETS = [(stake, True) for stake in STAKES] + [(stake, False) for stake in STAKES]  # True: on harder images
DOUBT = 0.01  # the risk that validation, as small as it is, was not like its own kind


class DriftTest:
    """See the module.

    Args:
        rail: of the first exit.
        samples: of validation.
        every: images on average, at least, until a false alarm.
    """

    def __init__(self, rail: Rail, samples: int, every: float) -> None:
        self._rank, self._share_below = rail.rank, rail.share_below
        # Dvoretzky, Kiefer and Wolfowitz: the true share below is everywhere within the root of validation's, and
        # that within a hundredth of what its quantiles say.
        self.tolerance = math.sqrt(math.log(2 / DOUBT) / (2 * samples)) + 1 / QUANTILES
        self.every = every
        self.bets = [1.0] * len(BETS)
        self.set_threshold(math.inf)

    def set_threshold(self, threshold: float) -> None:
        """Of the first exit, for the images that follow."""
        self._share = share = self._share_below(threshold)
        mean, tolerance = share - share * share / 2, self.tolerance * share
        self._high, self._low = mean + tolerance, mean - tolerance

    def see(self, left: bool, uncertainty: float) -> bool:
        """Of one more image: whether it left at the first exit, and then how unsure that was. True: an alarm."""
        share = self._rank(uncertainty) if left else self._share
        up, down, bets = share - self._high, self._low - share, self.bets
        total = 0.0
        for place, (stake, way) in enumerate(BETS):
            bet = bets[place]
            bets[place] = bet = (bet if bet > 1.0 else 1.0) * (1.0 + stake * (up if way else down))
            total += bet
        if total > 1e200:  # long since an alarm; it may not overflow
            self.bets = [min(bet, 1e199) for bet in bets]
        return total >= len(bets) * self.every

    @property
    def harder(self) -> bool:
        """Whether most is bet on harder images."""
        count = len(STAKES)
        return sum(self.bets[:count]) >= sum(self.bets[count:])

    def state(self) -> list[float]:
        """What goes on; the rest is made again."""
        return list(self.bets)

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a state."""
        self.bets = [float(bet) for bet in state]
