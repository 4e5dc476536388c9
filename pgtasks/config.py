"""Config: every setting of pgtasks, listed once with its kind, default and meaning.

The classes below are the list. A field's metadata holds its `Kind` (what it takes, in which range,
how it is written) and one sentence; reading, validating, `config show`, the file that
`pgtasks init` writes and the reference in the documentation are all made from it.

`python -m pgtasks.config` prints that reference.
"""
# ruff: noqa: RUF009 - each of these calls declares a field, as attrs.field does

import abc
import difflib
import keyword
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import attrs

from pgtasks.duration import format_duration, parse_duration, shown
from pgtasks.errors import ConfigError, QueueNameError
from pgtasks.queue_name import check_queue_name

Backoff = Literal["exponential", "linear", "constant"]
BalanceStrategy = Literal["round-robin", "priority", "weighted"]
Ending = Literal["delete", "archive"]

EXAMPLE_URL: Final = "postgresql://user:password@localhost:5432/app"

_HOST: Final = r"(?:\[[^\]]*\]|[^:,/?#\[\]]*)(?::[0-9]*)?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*(?=[/?#]|$)")
_YEAR: Final = timedelta(days=365)


# What a setting takes


@attrs.frozen
class Kind(abc.ABC):
    """What values a setting takes: reads them, refuses wrong ones, writes them back.

    Attributes:
        unit: what is counted, or "".
        optional: whether None is a value too; in files and variables it is the text "none".
    """

    unit: str = attrs.field(default="", kw_only=True)
    optional: bool = attrs.field(default=False, kw_only=True)

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """The kind and range, as the reference says them."""

    @abc.abstractmethod
    def _read(self, value: object) -> Any:
        """The value in its Python type; raises ConfigError."""

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
        return self.read(text.strip())

    def plain(self, value: Any) -> Any:
        """A value as TOML holds it."""
        return "none" if value is None else value

    def show(self, value: Any) -> str:
        """A value for people's eyes; never a secret."""
        return str(self.plain(value))


@attrs.frozen
class Switch(Kind):
    """True or false."""

    description = "true or false"

    def _read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown(value)} is neither true nor false; write true or false")
        return value

    def parse(self, text: str) -> Any:
        """Also takes the words people use in environments: 1, yes, on; 0, no, off."""
        match text.strip().lower():
            case "true" | "1" | "yes" | "on":
                return True
            case "false" | "0" | "no" | "off":
                return False
            case _:
                return self.read(text)

    def show(self, value: Any) -> str:
        """As TOML writes it."""
        return "true" if value else "false"


@attrs.frozen
class Whole(Kind):
    """A whole number between two bounds."""

    minimum: int
    maximum: int

    @property
    def description(self) -> str:
        """The bounds in words."""
        return f"whole number, {self.minimum} to {self.maximum}"

    def _read(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{shown(value)} is not a whole number; {self._advice(value)}")
        if value < self.minimum:
            raise ConfigError(f"{value} is too small; write at least {self.minimum}")
        if value > self.maximum:
            raise ConfigError(f"{shown(value)} is too large; write at most {self.maximum}")
        return value

    def parse(self, text: str) -> Any:
        """Digits, with a sign if need be."""
        text = text.strip()
        return self.read(int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text)

    def _advice(self, value: object) -> str:
        digits = re.match(r"\s*([0-9]{1,18})(?![0-9])", str(value))
        nearest = int(digits[1]) if digits else max(2, self.minimum)
        quotes = " without quotes" if digits and value == digits[1] else ""
        example = "" if digits else "e.g. "
        return f"write {example}{min(max(nearest, self.minimum), self.maximum)}{quotes}"


@attrs.frozen
class Duration(Kind):
    """A length of time between two bounds."""

    minimum: timedelta = timedelta(0)
    maximum: timedelta = _YEAR
    unit: str = attrs.field(default="seconds", kw_only=True)

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

    def plain(self, value: Any) -> Any:
        """As text with a unit."""
        return "none" if value is None else format_duration(value)


@attrs.frozen
class Choice(Kind):
    """One of a few words, in any case."""

    words: tuple[str, ...]

    @property
    def description(self) -> str:
        """The words."""
        return " or ".join((", ".join(map(_quoted, self.words[:-1])), _quoted(self.words[-1])))

    def _read(self, value: object) -> str:
        if isinstance(value, str) and value.lower() in self.words:
            return value.lower()
        near = nearest(value.lower(), self.words) if isinstance(value, str) else None
        advice = f'did you mean "{near}"?' if near else f"write {self.description}"
        raise ConfigError(f"{shown(value)} is not one of {self.description}; {advice}")


@attrs.frozen
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


@attrs.frozen
class ModuleName(Kind):
    """The dotted name of a module, as `import` takes it."""

    description = "module name"

    def _read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigError(f'{shown(value)} is not a module name; write e.g. "app.tasks"')
        if not _is_importable(value):
            dotted = re.sub(r"[/\\]+", ".", value.strip().removesuffix(".py")).strip(".")
            near = dotted if _is_importable(dotted) else None
            advice = f'did you mean "{near}"?' if near else 'write e.g. "app.tasks"'
            raise ConfigError(f"{shown(value)} is not the name of a module; {advice}")
        return value


@attrs.frozen
class Several(Kind):
    """A list of one kind; in environment variables separated by commas."""

    item: Kind
    at_least_one: bool = False

    @property
    def description(self) -> str:
        """The kind of its items."""
        return f"list of {self.item.description}s"

    def _read(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            raise ConfigError(f"{shown(value)} is not a list; write [{shown(value)}]")
        if not isinstance(value, Sequence):
            raise ConfigError(f"{shown(value)} is not a list; write e.g. [{self._example()}]")
        if self.at_least_one and not value:
            raise ConfigError("an empty list is not allowed here; name one, or remove the key")
        return tuple(dict.fromkeys(self.item.read(one) for one in value))

    def parse(self, text: str) -> Any:
        """The items between commas."""
        if self.optional and text.strip() == "none":
            return None
        return self.read([part.strip() for part in text.split(",") if part.strip()])

    def plain(self, value: Any) -> Any:
        """As a TOML array."""
        return "none" if value is None else list(value)

    def show(self, value: Any) -> str:
        """As environment variables take it."""
        return "none" if value is None else ", ".join(value)

    def _example(self) -> str:
        return '"app.tasks"' if isinstance(self.item, ModuleName) else '"emails"'


@attrs.frozen
class Url(Kind):
    """The address of a Postgres database."""

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
        except ValueError:  # its text may hold the password
            hint = "in a user or password write [ ] / ? # @ as %5B %5D %2F %3F %23 %40"
            raise ConfigError(f"this URL cannot be read; {hint}") from None
        return value

    def show(self, value: Any) -> str:
        """Without the password."""
        return "none" if value is None else masked_url(str(value))


@attrs.frozen
class Section:
    """A table of settings: one of the classes below."""

    cls: type[Any]


@attrs.frozen
class Tables:
    """One table of settings for each name that somebody gives."""

    cls: type[Any]
    name: Kind
    placeholder: str

    def read(self, value: object) -> dict[str, Any]:
        """The tables by name; raises ConfigError when one is not what it should be."""
        if not isinstance(value, Mapping):
            raise ConfigError(f"{shown(value)} is not a table")
        for one in value.values():
            if not isinstance(one, self.cls):
                raise ConfigError(f"{shown(one)} is not a {self.cls.__name__}")
        return {self.name.read(name): one for name, one in value.items()}


# How a setting is declared


def _convert(value: object, field: "attrs.Attribute[Any]") -> Any:
    try:
        return field.metadata["kind"].read(value)
    except ConfigError as error:
        raise ConfigError(f"{kebab(field.name)}: {error}") from None


def _setting(default: Any, kind: Kind, doc: str, *, at_least: str | None = None) -> Any:
    """One key: its default, what it takes, its meaning, and the field it may not be below."""
    metadata = {"kind": kind, "doc": doc, "at_least": at_least}
    converter = attrs.Converter(_convert, takes_field=True)
    secret = isinstance(kind, Url)
    return attrs.field(
        default=default,
        converter=converter,
        repr=(lambda value: repr(value and masked_url(value))) if secret else True,
        metadata=metadata,
    )


def _section(cls: type[Any], doc: str) -> Any:
    """A table of settings."""
    return attrs.field(factory=cls, metadata={"kind": Section(cls), "doc": doc})


def _tables(cls: type[Any], name: Kind, placeholder: str, doc: str) -> Any:
    """One table of settings a name."""
    metadata = {"kind": Tables(cls, name, placeholder), "doc": doc}
    converter = attrs.Converter(_convert, takes_field=True)
    return attrs.field(factory=dict, converter=converter, hash=False, metadata=metadata)


def order_problem(cls: type[Any], values: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Two settings of one table that contradict each other.

    Args:
        cls: one of the classes below.
        values: its values by attribute name.

    Returns:
        (attribute, the attribute it may not be below, the problem in words), or None.
    """
    for field in attrs.fields(cls):
        other = field.metadata.get("at_least")
        if other is not None and values[field.name] < values[other]:
            kind = field.metadata["kind"]
            mine, least = kind.show(values[field.name]), kind.show(values[other])
            text = f"{mine} is less than {kebab(other)} ({least}); write at least {least}"
            return field.name, other, text
    return None


class _Ordered:
    """Refuses contradicting settings when built by hand, too."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        cls: Any = type(self)
        values = {field.name: getattr(self, field.name) for field in attrs.fields(cls)}
        if problem := order_problem(cls, values):
            name, _, text = problem
            raise ConfigError(f"{kebab(name)}: {text}")


# The settings


_ENDING: Final = Choice(("delete", "archive"))


@attrs.frozen
class DatabaseConfig(_Ordered):
    """Where Postgres is and how many connections a process may hold."""

    url: str | None = _setting(
        None,
        Url(optional=True),
        "The database to use; with none, an embedded Postgres is started in .pgtasks.",
    )
    min_connections: int = _setting(
        1,
        Whole(0, 10_000, unit="connections"),
        "Connections that each process keeps open when idle.",
    )
    max_connections: int = _setting(
        10,
        Whole(1, 10_000, unit="connections"),
        "The most connections that each process opens in its pool.",
        at_least="min_connections",
    )
    connect_timeout: timedelta = _setting(
        timedelta(seconds=5),
        Duration(timedelta(milliseconds=1)),
        "How long opening one connection may take.",
    )
    acquire_timeout: timedelta = _setting(
        timedelta(seconds=5),
        Duration(timedelta(milliseconds=1)),
        "How long to wait for a free connection of the pool.",
    )
    pgbouncer: bool = _setting(
        False, Switch(), "Whether the URL leads to a pooler in transaction mode."
    )


@attrs.frozen
class QueueConfig:
    """How workers treat one queue."""

    concurrency: int | None = _setting(
        None,
        Whole(1, 100_000, unit="messages", optional=True),
        "Slots of each process for this queue alone; with none it shares the common slots.",
    )
    weight: int = _setting(
        1,
        Whole(1, 1_000),
        "This queue's share of the common slots when balance-strategy is weighted.",
    )


@attrs.frozen
class QueueFetchConfig:
    """How workers look for messages."""

    empty_delay: timedelta = _setting(
        timedelta(seconds=2),
        Duration(timedelta(milliseconds=10), timedelta(hours=1)),
        "The longest pause before an empty queue is looked at again.",
    )
    error_delay: timedelta = _setting(
        timedelta(seconds=10),
        Duration(timedelta(milliseconds=10), timedelta(hours=1)),
        "The longest pause after an error of the database.",
    )
    notify: bool = _setting(
        True, Switch(), "Whether new messages wake workers at once instead of at the next look."
    )


@attrs.frozen
class InstallConfig:
    """What workers install."""

    enable: bool = _setting(
        True, Switch(), "Whether workers create or upgrade the schema of pgtasks when they start."
    )


@attrs.frozen
class WorkerConfig:
    """What `pgtasks worker` runs."""

    tasks: tuple[str, ...] = _setting(
        (), Several(ModuleName()), "The modules to import, so that their tasks are known."
    )
    concurrency: int = _setting(
        20,
        Whole(1, 100_000, unit="messages"),
        "How many messages each process runs at the same time.",
    )
    processes: int = _setting(1, Whole(1, 1_024, unit="processes"), "How many processes to run.")
    queues: tuple[str, ...] | None = _setting(
        None,
        Several(QueueName(), at_least_one=True, optional=True),
        "The queues to serve; with none, those of all known tasks.",
    )
    balance_strategy: BalanceStrategy = _setting(
        "round-robin",
        Choice(("round-robin", "priority", "weighted")),
        "Who gets a free slot: each queue in turn, the first named, or by weight.",
    )
    grace: timedelta = _setting(
        timedelta(seconds=30),
        Duration(timedelta(0), timedelta(days=7)),
        "How long running tasks may go on after a stop was asked for.",
    )
    durable: bool = _setting(
        False,
        Switch(),
        "Whether each message is settled as soon as its task has returned, not in batches.",
    )
    queue_config: Mapping[str, QueueConfig] = _tables(
        QueueConfig, QueueName(), "<name>", "How one queue is treated."
    )
    queue_fetch: QueueFetchConfig = _section(QueueFetchConfig, "How messages are looked for.")
    install: InstallConfig = _section(InstallConfig, "What a worker installs when it starts.")


@attrs.frozen
class TaskConfig(_Ordered):
    """What tasks use that do not say otherwise."""

    queue: str = _setting("default", QueueName(), "The queue that messages are sent to.")
    timeout: timedelta | None = _setting(
        timedelta(seconds=60),
        Duration(timedelta(milliseconds=1), optional=True),
        'How long one run may take; "none" lets it take for ever.',
    )
    lease: timedelta = _setting(
        timedelta(seconds=30),
        Duration(timedelta(milliseconds=500), timedelta(days=7)),
        "How long after a worker's death its messages wait for another; extended while tasks run.",
    )
    retries: int = _setting(
        25,
        Whole(0, 1_000_000, unit="retries"),
        "How often a failed message is tried again; 0 is never.",
    )
    delay: timedelta = _setting(
        timedelta(seconds=1), Duration(), "The pause before the first retry."
    )
    jitter: timedelta = _setting(
        timedelta(seconds=1), Duration(), "The most that chance adds to each pause."
    )
    max_delay: timedelta = _setting(
        timedelta(days=1), Duration(), "The longest pause between retries.", at_least="delay"
    )
    backoff: Backoff = _setting(
        "exponential",
        Choice(("exponential", "linear", "constant")),
        "How the pause grows from retry to retry.",
    )
    on_success: Ending = _setting("delete", _ENDING, "What becomes of a message that is done.")
    on_failure: Ending = _setting(
        "archive", _ENDING, "What becomes of a message that has failed for good."
    )


@attrs.frozen
class LogConfig:
    """What is logged, and how it looks."""

    level: str = _setting(
        "info",
        Choice(("debug", "info", "warning", "error", "critical")),
        "The least important events to log.",
    )
    format: Literal["auto", "text", "json"] = _setting(
        "auto",
        Choice(("auto", "text", "json")),
        "One line for people, or one JSON object; auto is text, with colours on a terminal.",
    )


@attrs.frozen
class Config:
    """All settings of pgtasks; `pgtasks.layers.load` fills them in from files and environment.

    Built by hand it checks the same ranges, and takes what files take: `TaskConfig(lease="5s")`
    works, although its type asks for a timedelta.
    """

    database: DatabaseConfig = _section(DatabaseConfig, "Where Postgres is.")
    worker: WorkerConfig = _section(WorkerConfig, "What `pgtasks worker` runs.")
    task: TaskConfig = _section(TaskConfig, "What tasks use that do not say otherwise.")
    log: LogConfig = _section(LogConfig, "What is logged.")


# The list of settings


@attrs.frozen
class Field:
    """One key of the list.

    Attributes:
        path: its tables and its name as files spell them; `<name>` stands for a queue's name.
        kind: what it takes.
        default: its value when nobody sets it.
        doc: one sentence.
    """

    path: tuple[str, ...]
    kind: Kind
    default: Any
    doc: str

    @property
    def key(self) -> str:
        """The dotted path, as in `worker.queue-fetch.notify`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable, as in `PGTASKS__WORKER__QUEUE_FETCH__NOTIFY`."""
        return "PGTASKS__" + "__".join(part.upper().replace("-", "_") for part in self.path)


def fields(cls: type[Any] = Config, prefix: tuple[str, ...] = ()) -> Iterator[Field]:
    """Every key of pgtasks in the order of the reference: a table's own keys first."""
    inner: list[Field] = []
    for field in attrs.fields(cls):
        path, kind = (*prefix, kebab(field.name)), field.metadata["kind"]
        match kind:
            case Section():
                inner += fields(kind.cls, path)
            case Tables():
                inner += fields(kind.cls, (*path, kind.placeholder))
            case _:
                yield Field(path, kind, field.default, field.metadata["doc"])
    yield from inner


def reference() -> str:
    """The reference of all keys as Markdown, one table a section."""
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for field in fields():
        if field.path[:-1] != section:
            section = field.path[:-1]
            lines += ["", f"### `[{'.'.join(section)}]`", ""]
            lines += ["| key | type | unit | default | meaning |", "|---|---|---|---|---|"]
        lines.append(_reference_row(field))
    return "\n".join(lines[1:]) + "\n"


def _reference_row(field: Field) -> str:
    kind = field.kind
    takes = f'{kind.description}, or "none"' if kind.optional else kind.description
    default = kind.show(field.default)
    default = f"`{default}`" if default else "empty"
    return f"| `{field.path[-1]}` | {takes} | {kind.unit} | {default} | {field.doc} |"


# Names and words


def masked_url(url: str) -> str:
    """A URL without its password, for eyes and logs.

    Where it is not certain what is a password, more is hidden rather than less.

    Example:
        >>> masked_url("postgresql://me:secret@db/app")
        'postgresql://me:***@db/app'
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "***"
    # An unescaped "/", "?" or "@" may be part of a password: take the last "@" of the whole text.
    user, at, place = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        return f"{scheme}://{name}{':***' if colon else ''}@{_masked_query(place)}"
    if not _HOSTS.match(rest):  # "user:password" whose "@host" was forgotten
        return f"{scheme}://{rest.partition(':')[0]}:***"
    return f"{scheme}://{_masked_query(rest)}"


def has_password(url: str) -> bool:
    """Whether a URL holds a password."""
    return masked_url(url) != url


def _masked_query(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        secret = "password" in unquote(match[2]).lower() and match[3]
        return f"{match[1]}{match[2]}=***" if secret else match[0]

    return re.sub(r"([?&])([^=&]*)=([^&]*)", mask, text)


def kebab(name: str) -> str:
    """A Python name as files spell it."""
    return name.replace("_", "-")


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _quoted(word: str) -> str:
    return f'"{word}"'


def _is_importable(name: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


if __name__ == "__main__":
    sys.stdout.write(reference())
