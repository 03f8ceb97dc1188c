"""Index life cycle: a timestamped index behind an alias, and the checks before anything is written into it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.documents import mapping_differences
from stair_es.cluster.retry import persistently
from stair_es.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opensearchpy import OpenSearch

_BAD_NAME = re.compile(r'[\\/*?"<>|\s,#:A-Z]|^[-_+.]')


@dataclass(frozen=True, kw_only=True)
class OpenIndex:
    """An index that documents of one model may be written into."""

    name: str
    created: bool
    """By this call: then it is empty, and no document in it can be up to date."""


def check_alias(alias: str) -> None:
    """Nothing, if an alias may be called so.

    Raises:
        UsageError: With the rule that it breaks.
    """
    if not alias or _BAD_NAME.search(alias) or len(alias.encode()) > 200:
        raise UsageError(
            f"not an index name: {alias!r}",
            'Use lower case, without spaces and \\ / * ? " < > | , # : and not starting with - _ + or a dot.',
        )


def index_name(alias: str, model_id: str, now: datetime) -> str:
    """`<alias>-<model>-<timestamp>`."""
    model = re.sub(r"[^a-z0-9.]+", "-", model_id.lower()).strip("-")
    return f"{alias}-{model}-{now.astimezone(timezone.utc):%Y%m%d-%H%M%S-%f}"


def index_body(body: Mapping[str, Any], *, model_name: str, model_id: str) -> dict[str, Any]:
    """The body of a new index: as in `mappings/`, with the model in `_meta`, so that a search knows how to encode."""
    mappings = body.get("mappings", {})
    meta = {**mappings.get("_meta", {}), "stair_es": {"model_name": model_name, "model": model_id}}
    return {**body, "mappings": {**mappings, "_meta": meta}}


def open_index(client: OpenSearch, connection: Connection, alias: str, body: dict[str, Any]) -> OpenIndex:
    """The index behind `alias`, created from `body` (see `index_body`) where there is none.

    Raises:
        UsageError: Not a name for an alias.
        IndexMismatch: The name is taken by something else, or the index was made with another mapping or model.
    """
    check_alias(alias)
    with translated(connection):
        if not client.indices.exists(index=alias) and (name := _create(client, alias, body)):
            return OpenIndex(name=name, created=True)
        found = client.indices.get(index=alias)
    if len(found) > 1:
        raise IndexMismatch(f"alias {alias!r} stands for several indices: {', '.join(sorted(found))}", _OTHER_NAME)
    [(name, existing)] = found.items()
    if name == alias:
        raise IndexMismatch(f"{alias!r} is an index, not an alias made by stair-es", _OTHER_NAME)
    _check(name, existing.get("mappings", {}), body["mappings"])
    return OpenIndex(name=name, created=False)


def _create(client: OpenSearch, alias: str, body: Mapping[str, Any]) -> str | None:
    """The name of the new index; None where another run was quicker: an alias has one write index, so the engine lets one win."""
    name = index_name(alias, body["mappings"]["_meta"]["stair_es"]["model"], datetime.now(timezone.utc))
    try:
        client.indices.create(index=name, body={**body, "aliases": {alias: {"is_write_index": True}}})
    except exceptions.TransportError:
        if client.indices.exists(index=alias):
            return None
        raise
    return name


_OTHER_NAME = "Choose another name with --index / STAIR_ES_INDEX."


def _check(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differences = mapping_differences(wanted, found)
    if differences:
        raise IndexMismatch(f"index {name!r} has another mapping: {'; '.join(differences)}", _OTHER_NAME)
    model = found.get("_meta", {}).get("stair_es", {}).get("model")
    ours = wanted["_meta"]["stair_es"]["model"]
    if model != ours:
        made_with = f"was made with model {model!r}" if model else "was not made by stair-es"
        raise IndexMismatch(f"index {name!r} {made_with}, this run would write {ours!r}", _OTHER_NAME)


def refresh(client: OpenSearch, connection: Connection, name: str) -> None:
    """Make everything that was written searchable."""
    persistently(lambda: client.indices.refresh(index=name), connection)
