"""The built-in enricher `keywords`: keywords that people or programs have written into a file (XMP, IPTC) become labels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from PIL import IptcImagePlugin

from stair_es.cluster.documents.document import LABEL_FIELDS
from stair_es.errors import UsageError
from stair_es.feature_names import normalize_label
from stair_es.ingest.enrichers.base import EnricherInput, Enrichment
from stair_es.sources.image.isolated import find_isolated_format
from stair_es.sources.image.pillow import open_image
from stair_es.types import is_utf8

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

MAX_KEYWORDS = 200
MAX_KEYWORD_CHARS = 200
_MAX_XMP_BYTES = 1 << 20
_XMP_TAG = 700
"""Of TIFF."""
_SUBJECT = "{http://purl.org/dc/elements/1.1/}subject"
_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
_IPTC_KEYWORDS = (2, 25)


class _KeywordsEnricher:
    version = "1"
    field_types = LABEL_FIELDS

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [Enrichment(labels=dict.fromkeys(read_keywords(image.data), 1.0)) for image in images]


def read_keywords(data: bytes) -> list[str]:
    """Read the keywords of a file as labels: those of XMP (`dc:subject`), and those of IPTC. The bytes are untrusted.

    Formats that are decoded in a process of their own have none.
    """
    if find_isolated_format(data):
        return []
    try:
        with open_image(data) as image:
            found = [*islice(_read_xmp(_find_packet(image)), MAX_KEYWORDS), *islice(_read_iptc(image), MAX_KEYWORDS)]
    except Exception:  # noqa: BLE001  the decoder has accepted the pixels, and any of its readers may fail on other parts
        return []
    labels = (normalize_label(text) for text in found if len(text) <= MAX_KEYWORD_CHARS and is_utf8(text))
    return list(dict.fromkeys(filter(None, labels)))[:MAX_KEYWORDS]


def _find_packet(image: PilImage) -> bytes:
    tags = getattr(image, "tag_v2", None) or {}
    for value in (image.info.get("xmp"), image.info.get("XML:com.adobe.xmp"), tags.get(_XMP_TAG)):
        if value:
            return value.encode() if isinstance(value, str) else bytes(value)
    return b""


def _read_xmp(packet: bytes) -> Iterator[str]:
    """Yield the items of `dc:subject`. A document type could define entities that grow without bound, and XMP has none."""
    packet = packet.strip(b"\0")
    if not packet or len(packet) > _MAX_XMP_BYTES or b"<!" in packet or b"\0" in packet:  # UTF-16 would hide it
        return
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(packet)):
            if element.tag == _SUBJECT:
                yield from (item.text for items in element for item in items if item.tag == _ITEM and item.text)
                element.clear()
    except (ElementTree.ParseError, ValueError):
        return


def _read_iptc(image: PilImage) -> Iterator[str]:
    found = (IptcImagePlugin.getiptcinfo(image) or {}).get(_IPTC_KEYWORDS) or []  # type: ignore[arg-type]  # `open_image` reads files
    for value in found if isinstance(found, list) else [found]:
        try:
            yield bytes(value).decode()
        except UnicodeDecodeError:
            yield bytes(value).decode("latin-1")


class KeywordsKind:
    """The enricher kind `keywords`."""

    name = "keywords"
    description = "keywords in the file (XMP, IPTC) as labels"

    def build(self, options: Mapping[str, str]) -> _KeywordsEnricher:
        """Build the enricher, which has no options."""
        if options:
            raise UsageError(
                f"enricher 'keywords' has no option {', '.join(sorted(options))}",
                "It has none.",
                code="unknown-enricher-option",
            )
        return _KeywordsEnricher()


KIND = KeywordsKind()
