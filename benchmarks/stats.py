"""Stats: what is made of the samples of several rounds."""

import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen
class Series:
    """One measured thing: a sample from each round."""

    label: str
    unit: str
    samples: tuple[float, ...]
    beside: str | None = None
    """The label of the series it is held against, measured in the same rounds."""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The lowest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The highest sample."""
        return max(self.samples)


def ratio(series: Sequence[float], beside: Sequence[float]) -> float:
    """Return the median of the ratios of paired samples.

    Rounds are paired because a machine that is slow for a while is slow for both sides: the
    ratio moves far less than the figures do.

    Raises:
        ValueError: the samples are not of the same rounds.
    """
    return statistics.median(a / b for a, b in zip(series, beside, strict=True))


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least `percent` of the samples do not exceed.

    Example:
        >>> percentile([4, 1, 3, 2], 50)
        2
    """
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]
