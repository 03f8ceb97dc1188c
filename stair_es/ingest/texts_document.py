"""The document of one text. Pure functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents import check_fields, content_id, fingerprint, vector_fields
from stair_es.sources.item import Reading

if TYPE_CHECKING:
    from stair_es.cluster.documents import DocumentSettings
    from stair_es.policy import WordPolicy
    from stair_es.sources.item import Item
    from stair_es.types import SparseVector


@dataclass(frozen=True)
class Text:
    """A text of a source."""

    item: Item
    text: str
    sha256: str
    fingerprint: str

    @property
    def id(self) -> str:
        """`_id` of its document."""
        return content_id(self.sha256)


def text_of(item: Item, model_id: str, settings: DocumentSettings, text_tower: str) -> Text:
    """Read the text of an item. `text_tower` is part of the fingerprint, since another one gives other token weights."""
    read = item.place.read(Reading())
    data = read.data if read else b""
    sha256 = hashlib.sha256(data).hexdigest()
    tower = [f"text_tower={text_tower}"]
    return Text(item, data.decode(), sha256, fingerprint(sha256, model_id, settings, item.fields, tower))


def text_document(
    text: Text,
    vector: SparseVector,
    *,
    model_id: str,
    ingested_at: str,
    settings: DocumentSettings,
    policy: WordPolicy | None = None,
) -> dict[str, Any]:
    """Build the `_source` of one text: as for an image, with the text itself in `caption`.

    Raises:
        UsageError: If a column has a reserved name.
    """
    check_fields(text.item.fields)
    return {
        **vector_fields(vector, settings, policy),
        **text.item.fields,
        "caption": text.text,
        "uri": text.item.uri,
        "source": text.item.source,
        "sha256": text.sha256,
        "model": model_id,
        "fingerprint": text.fingerprint,
        "ingested_at": ingested_at,
    }
