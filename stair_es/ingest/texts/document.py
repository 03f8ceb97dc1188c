"""The document of one text. Pure functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.document import (
    build_vector_fields,
    check_field_names,
    compute_document_fingerprint,
    make_content_id,
)
from stair_es.sources.base import ReadLimits

if TYPE_CHECKING:
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.sources.base import SourceItem
    from stair_es.token_policy import TokenPolicy
    from stair_es.types import SparseVector


@dataclass(frozen=True)
class TextItem:
    """A text of a source."""

    item: SourceItem
    text: str
    sha256: str
    fingerprint: str

    @property
    def id(self) -> str:
        """`_id` of its document."""
        return make_content_id(self.sha256)


def read_text_item(item: SourceItem, model_id: str, settings: DocumentSettings, text_tower: str) -> TextItem:
    """Read the text of an item. `text_tower` is part of the fingerprint, since another one gives other token weights."""
    read = item.locator.read(ReadLimits())
    data = read.data if read else b""
    sha256 = hashlib.sha256(data).hexdigest()
    tower = [f"text_tower={text_tower}"]
    return TextItem(item, data.decode(), sha256, compute_document_fingerprint(sha256, model_id, settings, item.fields, tower))


def build_text_document(
    text: TextItem,
    vector: SparseVector,
    *,
    model_id: str,
    ingested_at: str,
    settings: DocumentSettings,
    policy: TokenPolicy | None = None,
) -> dict[str, Any]:
    """Build the `_source` of one text: as for an image, with the text itself in `caption`.

    Raises:
        UsageError: If a column has a reserved name.
    """
    check_field_names(text.item.fields)
    return {
        **build_vector_fields(vector, settings, policy),
        **text.item.fields,
        "caption": text.text,
        "uri": text.item.uri,
        "source": text.item.source,
        "sha256": text.sha256,
        "model": model_id,
        "fingerprint": text.fingerprint,
        "ingested_at": ingested_at,
    }
