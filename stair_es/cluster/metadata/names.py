"""Names of an index and of its aliases, and its write alias, which is restored if it is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.errors import IndexMismatch, UsageError

_BAD_NAME = re.compile(r'[\\/*?"<>|\s,#:A-Z]|^[-_+.]')
_TIMESTAMP_FORMAT = "%Y%m%d-%H%M%S-%f"
MAX_INDEX_NAME_BYTES = 255
TOKEN_INDEX_SUFFIX, WRITE_ALIAS_SUFFIX = ".tokens", ".write"
"""Suffixes of the name of an index's token index (see `token_index`), and of the alias that the index is written through."""
FORGOTTEN_LIST_SUFFIX = ".forgotten"
"""Suffix of an alias in the name of the list of its forgotten images."""
WRITE_ALIAS_OPTIONS = {"is_write_index": True}
"""Options of the alias: writes go to this index, even if another index is given the alias, too."""


def check_alias_name(alias: str) -> None:
    """Raise UsageError for a name of an alias that breaks a rule of the engines."""
    if not alias or _BAD_NAME.search(alias) or len(alias.encode()) > 200:
        raise UsageError(
            f"not an index name: {alias!r}",
            'Use lower case, without spaces and \\ / * ? " < > | , # : and not starting with - _ + or a dot.',
            code="invalid-index-name",
        )


def make_build_alias_prefix(alias: str) -> str:
    """Make the prefix of the aliases by which builds for `alias` are found again; it is followed by the digest of the spec."""
    return f"{alias}.building-"


def make_write_alias(index: str) -> str:
    """Make the alias that an index is written through for its whole life, independent of its search alias.

    An alias, since `require_alias` prevents that a deleted index is created again with guessed types.
    """
    return f"{index}{WRITE_ALIAS_SUFFIX}"


def list_other_aliases(index: str, described: Mapping[str, Any]) -> set[str]:
    """List the aliases of an index from a GET index response, without its write alias."""
    return set(described.get("aliases", {})) - {make_write_alias(index)}


def make_index_name(alias: str, model_id: str, now: datetime) -> str:
    """Make the name `<alias>-<model>-<timestamp>`; a long model id is truncated to leave room for the token index's suffix."""
    timestamp = now.astimezone(UTC).strftime(_TIMESTAMP_FORMAT)
    model = re.sub(r"[^a-z0-9.]+", "-", model_id.lower()).strip("-")
    max_bytes = MAX_INDEX_NAME_BYTES - len(TOKEN_INDEX_SUFFIX + WRITE_ALIAS_SUFFIX)
    return f"{alias}-{model[: max_bytes - len(alias.encode()) - len(timestamp) - 2]}-{timestamp}"


def get_creation_ms(name: str, creation_date: object = None) -> int:
    """Get the creation time of an index in milliseconds, from its settings or, where a product hides it, from its name."""
    if creation_date is not None:
        return int(str(creation_date))
    try:
        created_at = datetime.strptime("-".join(name.rsplit("-", 3)[1:]), _TIMESTAMP_FORMAT)
    except ValueError:
        return 0
    return int(created_at.replace(tzinfo=UTC).timestamp() * 1000)


def ensure_write_alias(cluster: Cluster, index: str) -> None:
    """Give an index its write alias, unless it has it.

    Raises:
        IndexMismatch: If writes through the alias go to another index.
    """
    cluster.call(_ensure_once, cluster.client, index)


def _ensure_once(client: OpenSearch, index: str) -> None:
    alias = make_write_alias(index)
    found = client.indices.get_alias(index=index, name=alias, ignore=[404])
    described = found.get(index) if isinstance(found, dict) else None
    if described and described["aliases"].get(alias, {}).get("is_write_index"):
        return
    try:
        client.indices.put_alias(index=index, name=alias, body=WRITE_ALIAS_OPTIONS)
    except exceptions.TransportError as error:
        if "more than one write index" not in str(error):
            raise
        raise IndexMismatch(
            f"{index!r} can't be written: its alias {alias!r} was given to another index",
            f"GET /_alias/{alias} names that index. Remove the alias from it and run this again: DELETE /INDEX/_alias/{alias}",
            code="alias-given-to-other-index",
        ) from None
