"""Events: what pgtasks logs, one line each, with named fields."""

import logging
from typing import Any

import attrs


@attrs.frozen
class Events:
    """The events of one part of pgtasks, under its name in the standard library's logging.

    Example:
        `Events("pgtasks.runner").warning("failed, trying again", task=name, attempt=2)`
    """

    name: str
    _logger: logging.Logger = attrs.field(init=False)

    @_logger.default
    def _named(self) -> logging.Logger:
        return logging.getLogger(self.name)

    def wants_debug(self) -> bool:
        """Tell whether anybody would see a debug event: ask before making its fields."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Log what only somebody who looks for a fault wants to see."""
        self.say(logging.DEBUG, event, **fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Log what an operator wants to see."""
        self.say(logging.INFO, event, **fields)

    def warning(self, event: str, /, *, raised: BaseException | None = None, **fields: Any) -> None:
        """Log what went wrong and mends itself."""
        self.say(logging.WARNING, event, raised=raised, **fields)

    def error(self, event: str, /, *, raised: BaseException | None = None, **fields: Any) -> None:
        """Log what went wrong and does not mend itself."""
        self.say(logging.ERROR, event, raised=raised, **fields)

    def say(
        self, level: int, event: str, /, *, raised: BaseException | None = None, **fields: Any
    ) -> None:
        """Log an event; the traceback of `raised` follows it."""
        self._logger.log(level, "%s", event, exc_info=raised, extra={"fields": fields})
