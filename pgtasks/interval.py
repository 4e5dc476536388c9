"""Interval: ticks at the whole multiples of a duration."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class Interval:
    """Ticks at the whole multiples of `length` since the beginning of 1970 in UTC.

    They hang on no start of any process: workers agree on them without talking, and a deploy
    neither postpones one nor brings one forward.
    """

    length: timedelta

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The ticks strictly after a moment, earliest first."""
        number = (moment - _EPOCH) // self.length
        try:
            while True:
                number += 1
                yield _EPOCH + number * self.length
        except OverflowError:  # the calendar ends
            return

    def until(self, moment: datetime) -> Iterator[datetime]:
        """The ticks at or before a moment, latest first."""
        number = (moment - _EPOCH) // self.length
        try:
            while True:
                yield _EPOCH + number * self.length
                number -= 1
        except OverflowError:
            return
