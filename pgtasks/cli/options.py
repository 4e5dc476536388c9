"""The options that many commands share, and how a value given as text is read."""

from typing import Annotated, Any, Final

import attrs
from cyclopts import Group, Parameter

from pgtasks import layers
from pgtasks.cli.output import warn
from pgtasks.database_url import has_password
from pgtasks.errors import ArgumentError, ConfigError
from pgtasks.layers import Flag, Loaded
from pgtasks.setting_kind import Duration, Kind, Whole

_GROUP: Final = Group("Which settings", sort_key=10)
_PLACE: Final = "--database-url"


@Parameter(name="*", group=_GROUP)
@attrs.frozen
class Source:
    """Where the settings of a command come from, besides files and variables."""

    database_url: Annotated[
        str | None,
        Parameter(metavar="URL", help="The database, for this command; else as configured."),
    ] = attrs.field(default=None, repr=False)
    environment: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Read pgtasks.NAME.toml too; else PGTASKS_ENVIRONMENT."),
    ] = None

    def load(self, overrides: dict[str, Flag] | None = None) -> Loaded:
        """Read the settings; warnings are printed.

        Raises:
            ConfigError: with everything that is wrong.
        """
        loaded = self.load_quietly(overrides)
        for text in loaded.warnings:
            warn(text)
        return loaded

    def load_quietly(self, overrides: dict[str, Flag] | None = None) -> Loaded:
        """Read the settings, and leave the warnings to the caller."""
        url = {"database.url": Flag(_PLACE, self.database_url)}
        loaded = layers.load(url | (overrides or {}), environment=self.environment)
        if self.database_url is not None and has_password(self.database_url):
            loaded.warnings.append(
                f"the password in {_PLACE} can be read by everybody on this machine (ps, shell "
                "history); set PGTASKS_DATABASE_URL instead"
            )
        return loaded


NOTHING_GIVEN: Final = Source()

Json = Annotated[bool, Parameter(name="--json")]


def whole(flag: str, text: str, minimum: int, maximum: int) -> int:
    """A number given on the command line.

    Raises:
        ConfigError: it is none, or out of range.
    """
    number: int = read(Whole(minimum, maximum), flag, text)
    return number


def read(kind: Kind, flag: str, text: str) -> Any:
    """A value given on the command line, read as files and variables are.

    Raises:
        ConfigError: it is wrong; the text names the flag.
    """
    try:
        return kind.parse(text)
    except ConfigError as error:
        raise ArgumentError(f"{flag}: {error}") from None


DELAY: Final = Duration()
