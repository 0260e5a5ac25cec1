"""What a rule promises of the point that it took, on new data. Nothing here needs PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - `delta` over the draw of the samples, the mean of `bounded` is at most `limit`.

    The mean is the one over new samples of the same kind, drawn independently as those that certified were. It
    holds at the point's own thresholds; whoever moves thresholds later has them as the limit that was certified.

    Args:
        promise: the same in a sentence.
        bounded: what is bounded: a loss, `harmful` or `net`, in fractions of the samples, or a cost, such as
            `latency_us`, per sample.
        limit: ε, or the budget.
        delta: δ.
        samples: that certified: they chose nothing before, and fitted nothing.
        ordering: other samples, which said in which order points are tested.
        observed: the mean over the samples that certified.
        p_value: of the test whose null hypothesis is that the mean is above `limit`.
        against: whose accuracy is lost, `last` or `baseline`; empty for a cost.
        harmful: of the samples that certified, those answered wrongly where `against` is right.
        helpful: those answered rightly where it is wrong.
    """

    promise: str
    bounded: str
    limit: float
    delta: float
    samples: int
    ordering: int
    observed: float
    p_value: float
    against: str = ""
    harmful: int | None = None
    helpful: int | None = None
