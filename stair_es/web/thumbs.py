"""The pictures of an index: small ones from its documents, else from originals below an allowed root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stair_es.errors import DecodeError
from stair_es.inspection.stored import fields_of, thumbnail_of
from stair_es.sources.decode import DecodeLimits
from stair_es.web.engine import not_found
from stair_es.web.pictures import Album, Picture, drawn

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.web.gate import Gate
    from stair_es.web.limits import Limits
    from stair_es.web.originals import Roots
    from stair_es.web.watch import Watch

THUMB_PX = 256
"""Longer side of a thumbnail that is drawn from an original."""
ORIGINAL_PX = 1600
_STORED = DecodeLimits(max_pixels=1_000_000)
"""Of the thumbnail in a document: ingest writes 128 pixels."""


class Thumbs:
    """Draws them, and keeps the last ones."""

    def __init__(
        self, client: OpenSearch, connection: Connection, index: str, *, roots: Roots, gate: Gate, limits: Limits, watch: Watch
    ) -> None:
        """Nothing is drawn yet."""
        self._client, self._connection, self._index = client, connection, index
        self._roots, self._gate, self._limits = roots, gate, limits
        self._watch = watch
        self.album = Album(limits.cache_bytes)

    def thumb(self, id_: str, version: str) -> tuple[Picture, bool]:
        """The small picture of an image, and whether it is that of this version: then it never changes.

        Raises:
            Refused: There is none, for whatever reason.
            ClusterError: The cluster fails the request.
        """
        known = self.album.get((id_, version)) if version else None
        self._watch.thumbnail(ready=known is not None)
        if known is not None:
            return known, True
        source = self._source(id_)
        found = source.get("fingerprint")
        fingerprint = found if isinstance(found, str) else ""
        picture = self._of_document(source.get("thumbnail"))
        if picture is None:
            picture = self._of_original(id_, source.get("uri"), THUMB_PX)
        if fingerprint:
            self.album.put((id_, fingerprint), picture)
        return picture, bool(version) and version == fingerprint

    def original(self, id_: str) -> Picture:
        """The large picture of an image.

        Raises:
            Refused: There is none, for whatever reason.
            ClusterError: The cluster fails the request.
        """
        if not self._roots:
            raise not_found(id_)
        return self._of_original(id_, self._source(id_).get("uri"), ORIGINAL_PX)

    def _of_document(self, value: object) -> Picture | None:
        found = thumbnail_of(value)
        try:
            return drawn(found.data, THUMB_PX, "WEBP", _STORED) if found else None
        except DecodeError:
            return None

    def _of_original(self, id_: str, uri: object, side_px: int) -> Picture:
        if not self._roots or not isinstance(uri, str):
            raise not_found(id_)
        with self._gate():
            original = self._roots.read(uri, self._limits.original_bytes)
            if original is None:
                raise not_found(id_)
            known = self.album.get((side_px, original.key))
            if known is not None:
                return known
            try:
                made = drawn(original.data, side_px, "WEBP" if side_px == THUMB_PX else "JPEG", self._limits.decode)
            except DecodeError:
                raise not_found(id_) from None
        return self.album.put((side_px, original.key), made)

    def _source(self, id_: str) -> dict[str, Any]:
        source = fields_of(self._client, self._connection, self._index, id_, ["thumbnail", "fingerprint", "uri"])
        if source is None:
            raise not_found(id_)
        return source
