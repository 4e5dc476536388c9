"""Database URLs without their passwords."""

import re
from typing import Final
from urllib.parse import unquote

EXAMPLE_URL: Final = "postgresql://user:password@localhost:5432/app"

_HOST: Final = r"(?:\[[^\]]*\]|[^:,/?#\[\]]*)(?::[0-9]*)?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*(?=[/?#]|$)")


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
