"""Index life cycle: timestamped indices behind an alias, the next one built beside the one in use, one swap, some kept.

What belongs to whom stands in each index itself, in `_meta.stair_es`: a name alone proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.documents import DOCUMENT_VERSION
from stair_es.cluster.relax import relaxed
from stair_es.cluster.retry import persistently
from stair_es.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opensearchpy import OpenSearch

    from stair_es.types import Json

__all__ = [
    "Identity",
    "OpenIndex",
    "check_alias",
    "find_index",
    "index_name",
    "open_index",
    "prune",
    "refresh",
    "relaxed",
    "swap",
]

_BAD_NAME = re.compile(r'[\\/*?"<>|\s,#:A-Z]|^[-_+.]')
_LONGEST_NAME = 255
_OTHER_NAME = "Choose another name with --index / STAIR_ES_INDEX."


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an index is made with: documents of another identity don't belong into it."""

    model_name: str
    """What to ask for: `--model`."""
    model_id: str
    settings: Mapping[str, Json]
    """Everything else that makes documents differ."""

    @property
    def digest(self) -> str:
        """8 hex digits that stand for it (the name of the model doesn't count, its id does)."""
        parts = json.dumps([DOCUMENT_VERSION, self.model_id, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class OpenIndex:
    """An index that documents of one identity may be written into."""

    name: str
    write_alias: str
    """Where to write: the alias, or the build alias of an index that isn't in use yet."""
    created: bool
    """By this call: then it is empty, and no document in it can be up to date."""
    live: str | None
    """The index that the alias stands for, and that a swap would replace; None if that is `name` itself."""


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
    """`<alias>-<model>-<timestamp>`; a long model id is cut."""
    stamp = f"{now.astimezone(timezone.utc):%Y%m%d-%H%M%S-%f}"
    model = re.sub(r"[^a-z0-9.]+", "-", model_id.lower()).strip("-")
    return f"{alias}-{model[: _LONGEST_NAME - len(alias.encode()) - len(stamp) - 2]}-{stamp}"


def open_index(
    client: OpenSearch,
    connection: Connection,
    alias: str,
    body: Mapping[str, Any],
    identity: Identity,
    say: Callable[[str], None],
) -> OpenIndex:
    """The index to write into: the one behind `alias`, a new one, or the build of the next one (see `swap`).

    Runs that start together get the same index, and an interrupted build is found again.

    Args:
        client: Of the cluster.
        connection: Of that client.
        alias: What people search.
        body: Of a new index, without what belongs to stair-es in `_meta`.
        identity: Of this run.
        say: Is told why an index is built.

    Raises:
        UsageError: Not a name for an alias.
        IndexMismatch: The name is taken by something that isn't ours, or an unfinished build has another mapping.
    """
    check_alias(alias)
    about = _about(identity, alias)
    made = with_meta(body, about)
    with translated(connection):
        created = None if client.indices.exists(index=alias) else _create(client, alias, alias, made)
        if created:
            return OpenIndex(name=created, write_alias=alias, created=True, live=None)
        name, why = _live(client, alias, made)
        if why is None:
            return OpenIndex(name=name, write_alias=alias, created=False, live=None)
        opened = _open_build(client, alias, made, name)
        if opened.created:
            now, why_now = _live(client, alias, made)
            if why_now is None:  # a parallel run has finished the same build while we looked for it
                client.indices.delete(index=opened.name)
                return OpenIndex(name=now, write_alias=alias, created=False, live=None)
    say(f"{name} {why}: {'building' if opened.created else 'going on with'} {opened.name}, the alias moves when it is complete")
    return opened


def find_index(
    client: OpenSearch, connection: Connection, alias: str, body: Mapping[str, Any], identity: Identity
) -> OpenIndex | None:
    """What `open_index` would open, if it is there already; creates nothing.

    Raises:
        UsageError: Not a name for an alias.
        IndexMismatch: As for `open_index`.
    """
    check_alias(alias)
    made = with_meta(body, _about(identity, alias))
    with translated(connection):
        if not client.indices.exists(index=alias):
            return None
        name, why = _live(client, alias, made)
        if why is None:
            return OpenIndex(name=name, write_alias=alias, created=False, live=None)
        return _find_build(client, alias, made, name)


def with_meta(body: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a new index with `_meta.stair_es`; all else in it stays as it is."""
    mappings = body.get("mappings", {})
    return {**body, "mappings": {**mappings, "_meta": {**mappings.get("_meta", {}), "stair_es": dict(about)}}}


def mapping_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How the field types of an existing mapping differ from those wanted, one phrase a field; additional fields are fine."""
    fields, existing = wanted.get("properties", {}), found.get("properties", {})
    return [
        f"{name} is {existing[name].get('type', 'object')} instead of {spec.get('type', 'object')}"
        if name in existing
        else f"{name} is missing"
        for name, spec in fields.items()
        if name not in existing or existing[name].get("type", "object") != spec.get("type", "object")
    ]


def refresh(client: OpenSearch, connection: Connection, name: str) -> None:
    """Make everything that was written searchable."""
    persistently(lambda: client.indices.refresh(index=name), connection)


def swap(client: OpenSearch, connection: Connection, alias: str, opened: OpenIndex) -> None:
    """Let `alias` stand for the index that was built, in one step: a search finds the old one or the new one.

    Does nothing where a parallel run has done it.

    Raises:
        IndexMismatch: Meanwhile the alias stands for an index that this run doesn't know.
    """
    if opened.live is not None:
        persistently(partial(_swap, client, alias, opened), connection)


def prune(client: OpenSearch, connection: Connection, alias: str, keep: int) -> list[str]:
    """Delete the indices of `alias` that nothing stands for any more, all but the `keep` newest; returns their names.

    An index that has any alias is in use or being built; one that `_meta.stair_es.alias` doesn't name is someone else's.

    Raises:
        UsageError: `keep` is below 0.
    """
    if keep < 0:
        raise UsageError(f"can't keep {keep} indices", "Give 0 or more: --keep N")
    params = {"filter_path": "*.aliases,*.mappings._meta,*.settings.index.creation_date", "expand_wildcards": "all"}
    found = persistently(lambda: client.indices.get(index=f"{alias}-*", params=params), connection)
    retired = [
        (int(index["settings"]["index"]["creation_date"]), name)
        for name, index in found.items()
        if not index.get("aliases") and ours(index).get("alias") == alias
    ]
    names = [name for _, name in sorted(retired, reverse=True)[keep:]]
    for name in names:
        persistently(partial(client.indices.delete, index=name, ignore=[404]), connection)
    return names


def ours(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """`_meta.stair_es` of an index as the cluster describes it; empty for one that isn't ours."""
    about = index.get("mappings", {}).get("_meta", {}).get("stair_es", {})
    return about if isinstance(about, dict) else {}


def _about(identity: Identity, alias: str) -> dict[str, Any]:
    return {
        "model_name": identity.model_name,
        "model": identity.model_id,
        "settings": dict(identity.settings),
        "digest": identity.digest,
        "alias": alias,
    }


def _create(client: OpenSearch, alias: str, behind: str, body: Mapping[str, Any]) -> str | None:
    """The name of the new index; None where another run was quicker: an alias has one write index, so the engine lets one win."""
    name = index_name(alias, body["mappings"]["_meta"]["stair_es"]["model"], datetime.now(timezone.utc))
    aliases = {**body.get("aliases", {}), behind: {"is_write_index": True}}
    try:
        client.indices.create(index=name, body={**body, "aliases": aliases})
    except exceptions.TransportError:
        if client.indices.exists(index=behind):
            return None
        raise
    return name


def _only(client: OpenSearch, alias: str) -> tuple[str, Mapping[str, Any]]:
    """The one index behind an alias."""
    found = client.indices.get(index=alias)
    if len(found) > 1:
        raise IndexMismatch(f"alias {alias!r} stands for several indices: {', '.join(sorted(found))}", _OTHER_NAME)
    [(name, index)] = found.items()
    if name == alias:
        raise IndexMismatch(f"{alias!r} is an index, not an alias made by stair-es", _OTHER_NAME)
    if not ours(index):
        raise IndexMismatch(f"index {name!r} behind alias {alias!r} was not made by stair-es", _OTHER_NAME)
    return name, index


def _live(client: OpenSearch, alias: str, wanted: Mapping[str, Any]) -> tuple[str, str | None]:
    """The index behind the alias, and why it can't be written on (None if it can)."""
    name, index = _only(client, alias)
    theirs, about = ours(index), wanted["mappings"]["_meta"]["stair_es"]
    if theirs.get("model") != about["model"]:
        return name, f"was made with model {theirs.get('model')!r}, not with {about['model']!r}"
    if theirs.get("digest") != about["digest"]:
        return name, "was made with other settings"
    differences = mapping_differences(wanted["mappings"], index["mappings"])
    return name, f"has another mapping ({'; '.join(differences)})" if differences else None


def _build_alias(alias: str, wanted: Mapping[str, Any]) -> str:
    return f"{alias}.building-{wanted['mappings']['_meta']['stair_es']['digest']}"


def _find_build(client: OpenSearch, alias: str, wanted: Mapping[str, Any], live: str) -> OpenIndex | None:
    behind = _build_alias(alias, wanted)
    if not client.indices.exists(index=behind):
        return None
    name, index = _only(client, behind)
    differences = mapping_differences(wanted["mappings"], index["mappings"])
    if differences:
        raise IndexMismatch(
            f"the unfinished index {name!r} was begun with another mapping: {'; '.join(differences)}",
            f"Delete the index {name} to begin anew, or take the mapping that it was begun with.",
        )
    return OpenIndex(name=name, write_alias=behind, created=False, live=live)


def _open_build(client: OpenSearch, alias: str, wanted: Mapping[str, Any], live: str) -> OpenIndex:
    found = _find_build(client, alias, wanted, live)
    if found:
        return found
    behind = _build_alias(alias, wanted)
    created = _create(client, alias, behind, wanted)
    if created:
        return OpenIndex(name=created, write_alias=behind, created=True, live=live)
    [name] = client.indices.get_alias(name=behind)
    return OpenIndex(name=name, write_alias=behind, created=False, live=live)


def _swap(client: OpenSearch, alias: str, opened: OpenIndex) -> None:
    """One attempt: looks first, since an attempt whose answer was lost may have done it."""
    behind = set(client.indices.get_alias(name=alias)) if client.indices.exists_alias(name=alias) else set()
    if opened.name in behind:
        return
    if behind - {opened.live}:
        raise IndexMismatch(f"alias {alias!r} meanwhile stands for {', '.join(sorted(behind))}: {opened.name!r} stays aside")
    actions: list[dict[str, Any]] = [{"remove": {"index": name, "alias": alias, "must_exist": True}} for name in behind]
    actions.append({"add": {"index": opened.name, "alias": alias, "is_write_index": True}})
    actions.append({"remove": {"index": opened.name, "alias": opened.write_alias}})
    client.indices.update_aliases(body={"actions": actions})
