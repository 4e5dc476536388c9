"""What a setting takes: each kind reads a value, refuses a wrong one, and writes it back."""

import abc
import ipaddress
import keyword
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import attrs
from msgspec import UNSET

from pgtasks.database_url import EXAMPLE_URL, masked_url, mistake_in
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
    """A whole number between two bounds; `zero` says what would become of none."""

    minimum: int
    maximum: int
    unit: str = ""
    zero: str = ""

    @property
    def description(self) -> str:
        """The bounds in words."""
        return f"whole number, {self.minimum} to {self.maximum}"

    def _read(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{shown(value)} is not a whole number; write {self._near(value)}")
        if value < self.minimum:
            why = f": {self.zero}" if value == 0 and self.zero else ""
            raise ConfigError(f"{shown(value)} is too small{why}; write at least {self.minimum}")
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
        return parse_duration(value, self.minimum, self.maximum)

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


class Name(Kind):
    """A name that people give to something of theirs."""

    description = "name of 1 to 100 printable characters"

    def _read(self, value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= 100 or not value.isprintable():
            raise ConfigError(f'{shown(value)} is not a {self.description}; write e.g. "shop"')
        return value


class Listen(Kind):
    """An address to listen on: `127.0.0.1:9464`, `[::1]:9464`, or a port of this machine alone."""

    description = "port, or address with port"

    @staticmethod
    def split(address: str) -> tuple[str, int]:
        """The host and the port of an address that was read.

        Example:
            >>> Listen.split("[::1]:9464")
            ('::1', 9464)
        """
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)

    def _read(self, value: object) -> str:
        text = value.strip() if isinstance(value, str) else value
        if isinstance(text, int) and 0 < text < 65_536 and text is not True:
            text = str(text)
        address = _address(text) if isinstance(text, str) else None
        if address is None:
            advice = _listen_advice(text if isinstance(text, str) else "")
            raise ConfigError(f"{shown(value)} is not an address and a port; {advice}")
        return address


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
            parts = self._from_text(value) if isinstance(value, str) else None
            example = f"[{', '.join(map(shown, parts))}]" if parts else 'e.g. ["a", "b"]'
            raise ConfigError(f"{shown(value)} is not a list; write {example}")
        if self.optional and not value:
            raise ConfigError("an empty list is not allowed here; name one, or remove the key")
        return tuple(dict.fromkeys(self.item.read(one) for one in value))

    def _from_text(self, text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    def _plain(self, value: Any) -> list[Any]:
        return list(value)

    def _show(self, value: Any) -> str:
        return ", ".join(value)


@attrs.frozen
class Inherited(Kind):
    """A kind of setting that, where nobody sets it, is as another key says.

    That is `msgspec.UNSET`, in files and variables "inherit": None may be a value by itself.
    """

    kind: Kind
    unit: str = attrs.field(init=False)

    @unit.default
    def _unit_of_kind(self) -> str:
        return self.kind.unit

    @property
    def description(self) -> str:
        """The kind, and the words that it takes too."""
        none = ', "none"' if self.kind.optional else ""
        return f'{self.kind.description}{none} or "inherit"'

    def plain(self, value: Any) -> Any:
        """A value as TOML holds it."""
        return "inherit" if value is UNSET else self.kind.plain(value)

    def show(self, value: Any) -> str:
        """A value for people's eyes."""
        return "inherit" if value is UNSET else self.kind.show(value)

    def _read(self, value: object) -> Any:
        return UNSET if value is UNSET or value == "inherit" else self.kind.read(value)

    def _from_text(self, text: str) -> object:
        return self.kind._from_text(text)  # noqa: SLF001 - one kind reads for another


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
        if hint := mistake_in(value):
            raise ConfigError(f"this URL cannot be read; {hint}")
        return value

    def _show(self, value: Any) -> str:
        return masked_url(value)


def _is_importable(name: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def _address(text: str) -> str | None:
    """An address with its port as they are written best; None when the text is none."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    if host == "localhost" or (not host and text == port):
        host = "127.0.0.1"
    try:
        known = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if bracketed != (known.version == 6):
        return None
    return f"[{known}]:{int(port)}" if bracketed else f"{known}:{int(port)}"


def _listen_advice(text: str) -> str:
    """The nearest address to what was probably meant, or the forms."""
    text = text.lower().rpartition("://")[2]
    host, _, port = text.partition("/")[0].rpartition(":")
    host = {"*": "0.0.0.0", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - asked for
    for near in (f"{host}:{port}", f"[{host}]:{port}"):
        if _address(near):
            return f'did you mean "{_address(near)}"?'
    return 'write e.g. "127.0.0.1:9464", or "9464" for the same'
