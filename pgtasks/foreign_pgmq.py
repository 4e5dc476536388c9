"""ForeignPgmq: the pgmq that another program has installed, and whose guest we then are."""

from typing import Final

import attrs

from pgtasks.errors import SchemaError
from pgtasks.store import Store

FEATURES: Final = {
    "queue locks": (("acquire_queue_lock(text)",), "1.6"),
    "insert notifications": (
        ("enable_notify_insert(text)", "enable_notify_insert(text, integer)"), "1.7",
    ),
    "grouped reads": (("read_grouped(text, integer, integer)",), "1.9"),
    "topics": (("send_topic(text, jsonb)",), "1.11"),
}  # fmt: skip
"""By which functions a feature is known, and since which version it is there. The version is for
people: numbers are not trusted, since snapshots of a version may carry what came later."""

DETACHED: Final = "detached: our own tables, without pgmq's functions"


@attrs.frozen
class ForeignPgmq:
    """What was found in the schema `pgmq`."""

    name: str
    """What it is, in words."""
    features: tuple[str, ...]
    missing: tuple[str, ...]
    """Each with the version that it came with."""
    has_headers: bool

    @classmethod
    async def find(cls, store: Store) -> "ForeignPgmq | None":
        """Return the pgmq of another program; None when there is our own, or none."""
        row = await store.foreign_pgmq()
        if row is None:
            return None
        if row["extension"] is not None:
            name = f"the extension pgmq {row['extension']}"
        elif row["has_migrations"]:
            name = f"pgmq {await store.foreign_pgmq_version()}, installed by its SQL"
        else:
            name = "a pgmq that was installed by its SQL"
        since = {"headers": "1.5", "last_read_at": "1.10"}
        has = {column: column in row["record"] for column in since}
        for feature, (signatures, version) in FEATURES.items():
            since[feature] = version
            has[feature] = any(one in row["functions"] for one in signatures)
        return cls(
            name,
            features=tuple(feature for feature in has if has[feature]),
            missing=tuple(f"{feature} ({since[feature]})" for feature in has if not has[feature]),
            has_headers=has["headers"],
        )

    @staticmethod
    async def describe(store: Store) -> str:
        """Return in words whose pgmq there is in a database that has our schema."""
        if foreign := await ForeignPgmq.find(store):
            return f"guest of {foreign}"
        return "our own" if await store.owns_pgmq() else DETACHED

    def check(self) -> None:
        """Make sure that it is one that we can be a guest of.

        Raises:
            SchemaError: it is older than 1.5.
        """
        if not self.has_headers:
            raise SchemaError(
                f"this database has {self.name}, which is older than 1.5: its messages have no "
                "headers, where pgtasks keeps what it knows of a message\n"
                "Upgrade it (`ALTER EXTENSION pgmq UPDATE`, or the SQL of pgmq 1.5 or newer), or "
                "give pgtasks a database without pgmq, where it brings its own."
            )

    def __str__(self) -> str:
        """Return it in words, as after "guest of"."""
        lacks = f"; it lacks {', '.join(self.missing)}" if self.missing else ""
        return f"{self.name}, which has {', '.join(self.features) or 'no more than 1.4'}{lacks}"
