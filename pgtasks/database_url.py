"""Database URLs: what is wrong with them, without their passwords, of another database."""

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

EXAMPLE_URL: Final = "postgresql://user:password@localhost:5432/app"

_HOST: Final = r"(?:\[[^\]]*\]|[^:,/?#\[\]]*)(?::[0-9]*)?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*(?=[/?#]|$)")
_PORT: Final = re.compile(r":([0-9]*)(?=,|$)")
_ESCAPES: Final = (
    f"write e.g. {EXAMPLE_URL} and, in a user or password, "
    "% @ : / ? # [ ] as %25 %40 %3A %2F %3F %23 %5B %5D"
)
_WORDS: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any", "primary", "standby", "prefer-standby", "read-write", "read-only",
    ),
}  # fmt: skip
_DATABASE: Final = re.compile(r"(?P<server>[^/?#]*://[^/?#]*)(?:/[^?#]*)?")


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


def mistake_in(url: str) -> str | None:
    """What keeps a URL from being read as it is meant, in words that show nothing of it.

    The driver is not as strict: it takes the first "@" for the end of the password, and would ask
    a name server for the host "word@db" of `postgresql://me:pass@word@db/app`.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    except ValueError:
        return _ESCAPES
    user, at, hosts = parts.netloc.rpartition("@")
    if "#" in url or "@" in user or (not at and "@" in parts.path) or not _HOSTS.fullmatch(hosts):
        return _ESCAPES
    if any(port and not 0 < int(port) < 65_536 for port in _PORT.findall(hosts)):
        return "write a port from 1 to 65535"
    for key, words in _WORDS.items():
        if any(name == key and value not in words for name, value in query):
            *some, last = words
            return f"write {key}= with one of {', '.join(some)} or {last}"
    return None


def is_local(url: str) -> bool:
    """Whether a URL leads to sockets in the file system only, and over no network.

    Example:
        >>> is_local("postgresql:///app?host=/run/postgresql")
        True
    """
    parts = urlsplit(url)
    named = parts.netloc.rpartition("@")[2]
    if not named:
        named = next((value for key, value in parse_qsl(parts.query) if key == "host"), "")
    return bool(named) and all(host.startswith("/") for host in unquote(named).split(","))


def has_password(url: str) -> bool:
    """Whether a URL holds a password."""
    return masked_url(url) != url


def with_database(url: str, name: str) -> str:
    """The URL of another database of the same server.

    Not put together by `urllib`, which drops the slashes of a URL without a host.

    Example:
        >>> with_database("postgresql:///app?host=/tmp", "other")
        'postgresql:///other?host=/tmp'
    """
    return _DATABASE.sub(lambda match: f"{match['server']}/{quote(name, safe='')}", url, count=1)


def _masked_query(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        secret = "password" in unquote(match[2]).lower() and match[3]
        return f"{match[1]}{match[2]}=***" if secret else match[0]

    return re.sub(r"([?&])([^=&]*)=([^&]*)", mask, text)
