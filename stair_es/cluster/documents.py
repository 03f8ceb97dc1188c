"""The document of one image. Pure: values in, values out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stair_es import vocab
from stair_es.config import THUMBNAIL_PX
from stair_es.types import SparseVector

DOCUMENT_VERSION = 1
"""Goes into each fingerprint: raise it when the same image would give another document."""


@dataclass(frozen=True, kw_only=True)
class DocumentSettings:
    """What a document holds besides the vector; part of its fingerprint."""

    top_words: int = 16
    """Length of `top_tokens`."""
    thumbnail_px: int = THUMBNAIL_PX
    """Longer side of the thumbnail; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of an image besides its words."""

    uri: str
    source: str
    sha256: str
    width: int
    height: int
    format: str
    taken_at: str | None
    thumbnail: str | None


def document_id(uri: str) -> str:
    """The `_id` of the image at `uri`: the first 128 bits of the URI's SHA-256, in hex."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def fingerprint(sha256: str, model_id: str, settings: DocumentSettings) -> str:
    """Changes with the image's content, the model and the settings: equal means that the stored document is up to date."""
    parts = json.dumps([DOCUMENT_VERSION, sha256, model_id, asdict(settings)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def document(
    vector: SparseVector, facts: ImageFacts, *, model_id: str, fingerprint: str, ingested_at: str, top_words: int
) -> dict[str, Any]:
    """The `_source` of one image; facts that are `None` are left out."""
    known = {name: value for name, value in asdict(facts).items() if value is not None}
    return {
        "tokens": {vocab.escape(word): weight for word, weight in vector},
        "top_tokens": list(vector.top(top_words).features),
        **known,
        "model": model_id,
        "fingerprint": fingerprint,
        "ingested_at": ingested_at,
    }


def mapping_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How the field types of an existing mapping differ from those wanted, one phrase a field; additional fields are fine."""
    fields, existing = wanted.get("properties", {}), found.get("properties", {})
    return [
        f"{name} is {existing[name].get('type', 'object')} instead of {spec['type']}"
        if name in existing
        else f"{name} is missing"
        for name, spec in fields.items()
        if name not in existing or existing[name].get("type", "object") != spec["type"]
    ]
