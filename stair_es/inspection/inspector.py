"""Look up an image: its stored document, the vector that a model gives its file now, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.config import THUMBNAIL_PX
from stair_es.errors import DecodeError, ReadError
from stair_es.inspection.compare import Comparison, Now, Steered, compare, steered
from stair_es.inspection.stored import StoredImage, Thumbnail, stored, stored_by_content, thumbnail, thumbnail_of
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.item import Reading
from stair_es.sources.local_file import FileAt
from stair_es.sources.paths import file_at, uri_of
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.model.encoder import Encoder
    from stair_es.policy import WordPolicy
    from stair_es.types import Json


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file as a model encodes it now."""

    uri: str
    now: Now
    facts: dict[str, Json]
    thumbnail: Thumbnail | None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """The result for one image: at least one of `image` and `seen` is set."""

    image: StoredImage | None
    """The stored document."""
    seen: Seen | None
    """The encoded file, if requested or if there is no document."""
    comparison: Comparison | None
    """Comparison of the two."""
    steered: Steered | None
    """Effect of the token policy on the document."""
    changed: bool
    """Whether the file is known to differ from the ingested one."""

    @property
    def uri(self) -> str:
        """URI of the document, or of the file."""
        return self.image.uri if self.image else self.seen.uri if self.seen else ""

    @property
    def vector(self) -> SparseVector:
        """The stored vector if there is one, else the current one."""
        return self.image.vector if self.image else self.seen.now.vector if self.seen else SparseVector((), ())


class Inspector:
    """Looks up images of one index. Read-only; connects lazily."""

    def __init__(
        self,
        client: OpenSearch,
        connection: Connection,
        index: str,
        encoder: Callable[[], Encoder],
        policy: WordPolicy | None = None,
    ) -> None:
        """Set the index and the model.

        Args:
            client: Client of the cluster.
            connection: Connection of the client.
            index: An alias or index.
            encoder: Returns the model; called when the first file has to be encoded.
            policy: Token policy of the index.
        """
        self._client, self._connection, self._index = client, connection, index
        self._encoder, self._policy = encoder, policy

    def inspect(self, names: Iterable[str], file: Path | None, *, against_file: bool = False) -> Inspected | None:
        """Look up the image with one of `names` or in `file`; None if it is neither in the index nor a file.

        Args:
            names: Ids and URIs, tried in turn.
            file: File of the image. A document with the same bytes is found regardless of its URI.
            against_file: Encode the file, or the one at the document's URI, even if the image is in the index.

        Raises:
            DecodeError: If the file must be encoded and can't be decoded.
            ModelError: If the model can't be loaded.
            ClusterError: If a request failed.
        """
        image = next(filter(None, (stored(self._client, self._connection, self._index, name) for name in names)), None)
        try:
            data = _bytes(file) if file else None
        except DecodeError:
            if image is None or against_file:
                raise
            data = None  # the document exists, even if the file is unreadable
        sha256 = hashlib.sha256(data).hexdigest() if data is not None else None
        if image is None and sha256:
            image = stored_by_content(self._client, self._connection, self._index, sha256)
        if image is None and file is None:
            return None
        if against_file and file is None and image and image.uri.startswith("file:"):
            file = file_at(image.uri)
            data = _bytes(file) if file else None
        seen = self.see(file, data) if file and data is not None and (image is None or against_file) else None
        return Inspected(
            image=image,
            seen=seen,
            comparison=compare(image, seen.now, self._policy) if image and seen else None,
            steered=steered(image, self._policy) if image else None,
            changed=bool(image and sha256 and image.source.get("sha256") not in (None, sha256)),
        )

    def see(self, file: Path, data: bytes) -> Seen:
        """Encode a file with the model.

        Raises:
            DecodeError: If it is not an image.
            ModelError: If the model can't be loaded.
        """
        encoder = self._encoder()
        try:
            decoded = decode(data, encoder.image_spec, DecodeLimits(), THUMBNAIL_PX)
        except DecodeError as error:
            raise DecodeError(f"{str(file)!r}: {error.message}") from error
        sha256 = hashlib.sha256(data).hexdigest()
        facts: dict[str, Json] = {
            "width": decoded.width,
            "height": decoded.height,
            "format": decoded.format,
            "taken_at": decoded.taken_at,
            "colours": list(decoded.colours) or None,
            "sha256": sha256,
        }
        return Seen(
            uri=uri_of(file),
            now=Now(sha256=sha256, model=encoder.model_id, vector=encoder.encode_images(decoded.pixels_HWC[None])[0]),
            facts={name: value for name, value in facts.items() if value is not None},
            thumbnail=thumbnail_of(decoded.thumbnail),
        )

    def thumbnail(self, found: Inspected) -> Thumbnail | None:
        """Get the thumbnail of the document, or of the file.

        Raises:
            ClusterError: If the request failed.
        """
        if found.image is None:
            return found.seen.thumbnail if found.seen else None
        return thumbnail(self._client, self._connection, found.image.index, found.image.id)


def _bytes(file: Path) -> bytes:
    try:
        read = FileAt(uri_of(file)).read(Reading())
    except ReadError as error:
        raise DecodeError(f"{str(file)!r}: {error.message}") from error
    return read.data if read else b""
