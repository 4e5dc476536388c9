"""What a setting takes: each kind reads a value, refuses a wrong one, and writes it back."""

import abc
import keyword
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from pgtasks.database_url import EXAMPLE_URL, masked_url
from pgtasks.duration import format_duration, parse_duration, shown
from pgtasks.errors import ConfigError, QueueNameError
from pgtasks.nearest import nearest
from pgtasks.queue_name import check_queue_name

_SWITCHES: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


@attrs.frozen
class Kind(abc.ABC):
    """What values a setting takes.

    Attributes:
        optional: whether None is a value too; in files and variables it is the text "none".
        unit: what is counted, or "".
    """

    optional: bool = attrs.field(default=False, kw_only=True)
    unit = ""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """The kind and range, as the reference says them."""

    def read(self, value: object) -> Any:
        """A value from a file or from Python, checked and in its Python type.

        Raises:
            ConfigError: says what is wrong with the value and what to write; not where it stood.
        """
        if self.optional and (value is None or value == "none"):
            return None
        return self._read(value)

    def parse(self, text: str) -> Any:
        """A value from an environment variable or a flag, where everything is text."""
        text = text.strip()
        if self.optional and text == "none":
            return None
        return self._read(self._from_text(text))

    def plain(self, value: Any) -> Any:
        """A value as TOML holds it."""
        return "none" if value is None else self._plain(value)

    def show(self, value: Any) -> str:
        """A value for people's eyes; never a secret."""
        return "none" if value is None else self._show(value)

    @abc.abstractmethod
    def _read(self, value: object) -> Any: ...

    def _from_text(self, text: str) -> object:
        return text

    def _plain(self, value: Any) -> Any:
        return value

    def _show(self, value: Any) -> str:
        return str(self._plain(value))


class Switch(Kind):
    """True or false; in variables also 1, yes, on, 0, no, off."""

    description = "true or false"

    def _read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown(value)} is neither true nor false; write true or false")
        return value

    def _from_text(self, text: str) -> object:
        return _SWITCHES.get(text.lower(), text)

    def _show(self, value: Any) -> str:
        return str(value).lower()


@attrs.frozen
class Whole(Kind):
    """A whole number between two bounds."""

    minimum: int
    maximum: int
    unit: str = ""

    @property
    def description(self) -> str:
        """The bounds in words."""
        return f"whole number, {self.minimum} to {self.maximum}"

    def _read(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{shown(value)} is not a whole number; write {self._near(value)}")
        if value < self.minimum:
            raise ConfigError(f"{value} is too small; write at least {self.minimum}")
        if value > self.maximum:
            raise ConfigError(f"{shown(value)} is too large; write at most {self.maximum}")
        return value

    def _from_text(self, text: str) -> object:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text

    def _near(self, value: object) -> str:
        digits = re.match(r"\s*([0-9]{1,18})(?![0-9])", str(value))
        number = min(max(int(digits[1]) if digits else 2, self.minimum), self.maximum)
        if digits is None:
            return f"e.g. {number}"
        return f"{number} without quotes" if value == digits[1] else str(number)


@attrs.frozen
class Duration(Kind):
    """A length of time between two bounds."""

    minimum: timedelta = attrs.field(default=timedelta(0), converter=parse_duration)
    maximum: timedelta = attrs.field(default=timedelta(days=365), converter=parse_duration)
    unit = "seconds"

    @property
    def description(self) -> str:
        """The bounds in words."""
        return f"duration, {format_duration(self.minimum)} to {format_duration(self.maximum)}"

    def _read(self, value: object) -> timedelta:
        length = parse_duration(value)
        if length < self.minimum:
            least = format_duration(self.minimum)
            raise ConfigError(f'{shown(value)} is too short; write at least "{least}"')
        if length > self.maximum:
            most = format_duration(self.maximum)
            raise ConfigError(f'{shown(value)} is too long; write at most "{most}"')
        return length

    def _plain(self, value: Any) -> str:
        return format_duration(value)


@attrs.frozen
class Choice(Kind):
    """One of a few words, in any case."""

    words: tuple[str, ...]

    @property
    def description(self) -> str:
        """The words."""
        *others, last = (f'"{word}"' for word in self.words)
        return f"{', '.join(others)} or {last}"

    def _read(self, value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word in self.words:
            return word
        near = nearest(word, self.words)
        advice = f'did you mean "{near}"?' if near else f"write {self.description}"
        raise ConfigError(f"{shown(value)} is not one of {self.description}; {advice}")


class QueueName(Kind):
    """The name of a queue."""

    description = "queue name"

    def _read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigError(f'{shown(value)} is not a queue name; write e.g. "emails"')
        try:
            return check_queue_name(value)
        except QueueNameError as error:
            raise ConfigError(str(error)) from None


class ModuleName(Kind):
    """The dotted name of a module, as `import` takes it."""

    description = "module name"

    def _read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigError(f'{shown(value)} is not a module name; write e.g. "app.tasks"')
        if not _is_importable(value):
            dotted = re.sub(r"[/\\]+", ".", value.strip().removesuffix(".py")).strip(".")
            known = _is_importable(dotted)
            advice = f'did you mean "{dotted}"?' if known else 'write e.g. "app.tasks"'
            raise ConfigError(f"{shown(value)} is not the name of a module; {advice}")
        return value


@attrs.frozen
class Several(Kind):
    """A list of one kind; in variables separated by commas.

    Where "none" is a value, an empty list is not.
    """

    item: Kind

    @property
    def description(self) -> str:
        """The kind of its items."""
        return f"list of {self.item.description}s"

    def _read(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            example = f"[{shown(value)}]" if isinstance(value, str) else 'e.g. ["a", "b"]'
            raise ConfigError(f"{shown(value)} is not a list; write {example}")
        if self.optional and not value:
            raise ConfigError("an empty list is not allowed here; name one, or remove the key")
        return tuple(dict.fromkeys(self.item.read(one) for one in value))

    def _from_text(self, text: str) -> object:
        return [part.strip() for part in text.split(",") if part.strip()]

    def _plain(self, value: Any) -> list[Any]:
        return list(value)

    def _show(self, value: Any) -> str:
        return ", ".join(value)


class Url(Kind):
    """The address of a Postgres database; no message shows it, for it may hold a password."""

    description = "postgresql:// URL"

    def _read(self, value: object) -> str:
        if not isinstance(value, str) or "://" not in value:
            raise ConfigError(f"this is not the URL of a database; write e.g. {EXAMPLE_URL}")
        scheme = value.partition("://")[0]
        if scheme not in {"postgres", "postgresql"}:
            what = f'"{scheme}://"' if re.fullmatch(r"[\w+.-]{1,40}", scheme) else "this"
            near = "postgresql://..." if scheme.startswith("postgres") else f"e.g. {EXAMPLE_URL}"
            raise ConfigError(f"{what} is not a Postgres URL; write {near}")
        try:
            urlsplit(value)
        except ValueError:
            hint = "in a user or password write [ ] / ? # @ as %5B %5D %2F %3F %23 %40"
            raise ConfigError(f"this URL cannot be read; {hint}") from None
        return value

    def _show(self, value: Any) -> str:
        return masked_url(value)


def _is_importable(name: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))
