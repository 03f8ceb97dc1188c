"""The metadata of an index (`_meta.stair_es`): its name alone proves nothing. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_es.cluster.documents.document import DOCUMENT_VERSION, DocumentSettings
from stair_es.errors import IndexMismatch
from stair_es.token_policy import TokenPolicy
from stair_es.types import Json, ResizeMode

INDEX_FORMAT = 2
"""Format of an index, in `_meta.stair_es.format_version`: increment it when this version can't use indices of before."""
INDEX_ID = "index_id"
"""Name of a random id in `_meta.stair_es`, for clusters that don't report the UUID of an index."""
IDENTITY_PATHS = f"*.settings.index.uuid,*.settings.index.history.uuid,*.mappings._meta.stair_es.{INDEX_ID}"
"""Filter of a GET index response with what `get_index_identity` reads."""
_OPTIONAL_FIELDS = frozenset({"policy", "policy_undo", "text", "text_boxes"})
"""An index may lack these fields: those of a policy are added with the first one, and few indices have texts of pictures."""


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """What an index is made with: documents of another spec don't belong in it."""

    model_name: str
    model_id: str
    settings: Mapping[str, Json]
    """Everything else that changes documents."""
    fit: ResizeMode | None = None
    """How images were made square, for queries by image to do the same; already part of the model id."""

    @property
    def digest(self) -> str:
        """8 hex digits that identify the spec (the model counts by its id, not its name)."""
        parts = json.dumps([DOCUMENT_VERSION, self.model_id, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class WriteTarget:
    """An index that documents of one spec can be written to."""

    name: str
    identities: Mapping[str, str]
    """Identities by name, of the index and of its token index once that is written; see `get_index_identity`."""
    created: bool
    """Created by this call: then it is empty, and no document in it can be up to date."""
    replaces: str | None
    """The alias target that an alias swap would replace; None if that is `name` itself."""
    policy: TokenPolicy | None = None
    """Policy of the index, which applies to all documents in it."""
    pending_operation: str | None = None
    """`apply` or `rollback`, if it has not ended: some documents may still be unchanged."""


def build_index_meta(index_spec: IndexSpec, alias: str | None = None) -> dict[str, Any]:
    """Build `_meta.stair_es` of a new index; without an alias, of one that `ingest` doesn't write."""
    return {
        "format_version": INDEX_FORMAT,
        "model_name": index_spec.model_name,
        "model": index_spec.model_id,
        **({"fit": index_spec.fit} if index_spec.fit else {}),
        "settings": dict(index_spec.settings),
        **({"digest": index_spec.digest, "alias": alias} if alias else {}),
    }


def build_token_index_meta(index: str, alias: str) -> dict[str, Any]:
    """Build `_meta.stair_es` of the token index of `index`."""
    return {"format_version": INDEX_FORMAT, "token_index_of": index, "alias": alias}


def build_forgotten_list_meta(alias: str) -> dict[str, Any]:
    """Build `_meta.stair_es` of the list of forgotten images."""
    return {"format_version": INDEX_FORMAT, "forgotten_of": alias}


def get_content_type(meta: Mapping[str, Any]) -> str:
    """Return the content type in the metadata of an index: an index of texts never replaces one of images, nor the reverse."""
    return "texts" if "texts" in (meta.get("settings") or {}) else "images"


def get_top_token_count(index: Mapping[str, Any]) -> int:
    """Return the length of `top_tokens` in the documents of an index, from a GET mapping response."""
    settings = get_index_meta(index).get("settings", {})
    return int(settings.get("top_token_count", DocumentSettings().top_token_count))


def has_thumbnails(index: Mapping[str, Any]) -> bool:
    """Return whether the documents of an index, from a GET mapping response, were written with thumbnails."""
    meta = get_index_meta(index)
    settings = meta.get("settings")
    px = settings.get("thumbnail_px") if isinstance(settings, dict) else None  # missing in an old index
    return px != 0 and get_content_type(meta) == "images"


def has_image_sizes(index: Mapping[str, Any]) -> bool:
    """Return whether `width` and `height` of an index, from a GET mapping response, are those of images: in a shop, of goods."""
    return "annotates" not in get_index_meta(index)


def add_index_meta(body: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Add `_meta.stair_es` to the body of a new index; everything else in it stays unchanged."""
    mappings = body.get("mappings", {})
    return {**body, "mappings": {**mappings, "_meta": {**mappings.get("_meta", {}), "stair_es": dict(meta)}}}


def compare_mappings(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Compare the field types of an existing mapping with those wanted; returns one phrase per difference.

    Additional fields are fine, and so are missing fields of `_OPTIONAL_FIELDS`.
    """
    fields, existing = expected.get("properties", {}), found.get("properties", {})
    return [
        f"{name} is {existing[name].get('type', 'object')} instead of {spec.get('type', 'object')}"
        if name in existing
        else f"{name} is missing"
        for name, spec in fields.items()
        if (name not in existing and name not in _OPTIONAL_FIELDS)
        or existing.get(name, spec).get("type", "object") != spec.get("type", "object")
    ]


def get_index_identity(index: Mapping[str, Any]) -> str:
    """Get the identity of an index from a GET index response: its name may come back, its identity doesn't.

    An index that is created again has another UUID. One that is restored while it is closed keeps its UUID, and gets the UUID of
    another history. Where a serverless product hides the UUID, the id counts that the index got when it was created. The UUID
    comes first, since a restored or cloned index keeps the id.
    """
    settings = get_index_settings(index)
    if "uuid" not in settings:
        return str(_get_raw_meta(index).get(INDEX_ID, ""))
    return f"{settings['uuid']} {settings.get('history', {}).get('uuid', '')}".rstrip()


def get_index_settings(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get the settings of a GET index response; a serverless product hides those that it manages, or all."""
    settings = index.get("settings", {}).get("index", {})
    return settings if isinstance(settings, dict) else {}


def check_index_identities(expected: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise IndexMismatch if an index of a GET index response isn't the one that a run opened, but has its name."""
    for name in expected.keys() & found.keys():
        if get_index_identity(found[name]) != expected[name]:
            raise IndexMismatch(
                f"index {name!r} was deleted and created again, or restored, during this run: what the run wrote before is gone",
                "Run the same command again: it writes what is missing.",
                code="index-recreated",
            )


def get_index_meta(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get `_meta.stair_es` from a GET mapping response; empty for an index of another program, and for one without images."""
    meta = _get_raw_meta(index)
    return {} if "token_index_of" in meta or "forgotten_of" in meta else meta


def is_ingest_index(index: Mapping[str, Any]) -> bool:
    """Return whether ingest made the index of a GET mapping response, and not a program that uses our documents in its own."""
    return "digest" in get_index_meta(index)


def get_token_index_meta(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get `_meta.stair_es` of a token index from a GET mapping response; empty for all others."""
    meta = _get_raw_meta(index)
    return meta if "token_index_of" in meta else {}


def get_forgotten_list_meta(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get `_meta.stair_es` of a list of forgotten images from a GET mapping response; empty for all others."""
    meta = _get_raw_meta(index)
    return meta if "forgotten_of" in meta else {}


def check_not_token_index(name: str, index: Mapping[str, Any]) -> None:
    """Raise IndexMismatch for a token index where an image index is expected."""
    meta = get_token_index_meta(index)
    if meta:
        raise IndexMismatch(
            f"index {name!r} is the token index of {str(meta['token_index_of'])!r} and contains no images",
            f"Specify the images: --index {meta.get('alias', meta['token_index_of'])}; for a pattern use PATTERN,-*.tokens",
            code="token-index-given",
        )


def check_index_format(name: str, index: Mapping[str, Any]) -> None:
    """Raise IndexMismatch if another version of stair-es has written the index, in another format; foreign indices pass."""
    meta = _get_raw_meta(index)
    found = meta.get("format_version", 1)
    if not meta or found == INDEX_FORMAT:
        return
    newer = isinstance(found, int) and found > INDEX_FORMAT
    raise IndexMismatch(
        f"index {name!r} has the format {found} of another version of stair-es; this version uses {INDEX_FORMAT}",
        "Use the version that wrote it, or a newer one."
        if newer
        else f"Ingest again into a new index: stair-es ingest SOURCE --index NEW. Then delete the old one: DELETE /{name}",
        code="other-index-format",
    )


def _get_raw_meta(index: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = index.get("mappings", {}).get("_meta", {}).get("stair_es", {})
    return meta if isinstance(meta, dict) else {}
