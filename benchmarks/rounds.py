"""Rounds: contestants measured in turn, so that each round treats all of them alike."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

Sample = Mapping[str, float]
"""What one turn measured, by label."""


async def compete(
    contestants: Sequence[Callable[[], Awaitable[Sample]]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """Return the samples of every label: one warm-up, then `rounds` rounds.

    Who begins changes with each round: what comes after a large commit, or before a checkpoint,
    is not always the same.
    """
    for turn in contestants:
        await turn()
    samples: dict[str, list[float]] = {}
    for number in range(rounds):
        first = number % len(contestants)
        for turn in (*contestants[first:], *contestants[:first]):
            for label, value in (await turn()).items():
                samples.setdefault(label, []).append(value)
    return {label: tuple(values) for label, values in samples.items()}
