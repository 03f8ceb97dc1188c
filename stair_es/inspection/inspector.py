"""Look up an image: its stored document, the vector that a model gives its file now, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.errors import DecodeError, ReadError
from stair_es.inspection.diff import CurrentVector, PolicyEffect, VectorComparison, compare_vectors, find_policy_effect
from stair_es.inspection.stored_document import (
    StoredImage,
    Thumbnail,
    find_stored_by_content,
    find_stored_image,
    get_stored_thumbnail,
    parse_thumbnail,
)
from stair_es.sources.base import ReadLimits
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import find_file, to_file_uri
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy
    from stair_es.types import Json


@dataclass(frozen=True, kw_only=True)
class EncodedFile:
    """A file as a model encodes it now."""

    uri: str
    current: CurrentVector
    facts: dict[str, Json]
    thumbnail: Thumbnail | None


@dataclass(frozen=True, kw_only=True)
class InspectionResult:
    """The result for one image: at least one of `image` and `encoded_file` is set."""

    image: StoredImage | None
    encoded_file: EncodedFile | None
    """The encoded file, if requested or if there is no document."""
    comparison: VectorComparison | None
    policy_effect: PolicyEffect | None
    file_changed: bool
    """Whether the file is known to differ from the ingested one."""

    @property
    def uri(self) -> str:
        """URI of the document, or of the file."""
        return self.image.uri if self.image else self.encoded_file.uri if self.encoded_file else ""

    @property
    def vector(self) -> SparseVector:
        """The stored vector if there is one, else the current one."""
        return (
            self.image.vector if self.image else self.encoded_file.current.vector if self.encoded_file else SparseVector((), ())
        )


class Inspector:
    """Looks up images of one index. Read-only; connects lazily."""

    def __init__(self, cluster: Cluster, index: str, encoder: Callable[[], Encoder], policy: TokenPolicy | None = None) -> None:
        """Set the index and its policy. `encoder` is called when the first file has to be encoded."""
        self._cluster, self._index = cluster, index
        self._encoder, self._policy = encoder, policy

    def inspect(self, names: Iterable[str], file: Path | None, *, against_file: bool = False) -> InspectionResult | None:
        """Look up the image with one of `names` or in `file`; None if it is neither in the index nor a file.

        Args:
            names: Ids and URIs, tried in turn.
            file: File of the image. A document with the same bytes is found regardless of its URI.
            against_file: Encode the file, or the one at the document's URI, even if the image is in the index.

        Raises:
            DecodeError: If the file must be encoded and can't be decoded.
        """
        image = next(filter(None, (find_stored_image(self._cluster, self._index, name) for name in names)), None)
        try:
            data = _read_file(file) if file else None
        except DecodeError:
            if image is None or against_file:
                raise
            data = None  # the document exists, even if the file is unreadable
        sha256 = hashlib.sha256(data).hexdigest() if data is not None else None
        if image is None and sha256:
            image = find_stored_by_content(self._cluster, self._index, sha256)
        if image is None and file is None:
            return None
        if against_file and file is None and image and image.uri.startswith("file:"):
            file = find_file(image.uri)
            data = _read_file(file) if file else None
        encoded = self.encode_file(file, data) if file and data is not None and (image is None or against_file) else None
        return InspectionResult(
            image=image,
            encoded_file=encoded,
            comparison=compare_vectors(image, encoded.current, self._policy) if image and encoded else None,
            policy_effect=find_policy_effect(image, self._policy) if image else None,
            file_changed=bool(image and sha256 and image.source.get("sha256") not in (None, sha256)),
        )

    def encode_file(self, file: Path, data: bytes) -> EncodedFile:
        """Encode a file with the model."""
        encoder = self._encoder()
        try:
            decoded = decode_image(data, encoder.image_spec, DecodeLimits(), THUMBNAIL_PX)
        except DecodeError as error:
            raise type(error)(f"{str(file)!r}: {error.message}", code=error.code) from error
        sha256 = hashlib.sha256(data).hexdigest()
        facts: dict[str, Json] = {
            "width": decoded.width,
            "height": decoded.height,
            "format": decoded.format,
            "taken_at": decoded.taken_at,
            "colors": list(decoded.colors) or None,
            "sha256": sha256,
        }
        return EncodedFile(
            uri=to_file_uri(file),
            current=CurrentVector(
                sha256=sha256, model=encoder.model_id, vector=encoder.encode_images(decoded.pixels_HWC[None])[0]
            ),
            facts={name: value for name, value in facts.items() if value is not None},
            thumbnail=parse_thumbnail(decoded.thumbnail),
        )

    def get_thumbnail(self, result: InspectionResult) -> Thumbnail | None:
        """Get the thumbnail of the document, or of the file."""
        if result.image is None:
            return result.encoded_file.thumbnail if result.encoded_file else None
        return get_stored_thumbnail(self._cluster, result.image.index, result.image.id)


def _read_file(file: Path) -> bytes:
    try:
        read = FileLocator(to_file_uri(file)).read(ReadLimits())
    except ReadError as error:
        raise DecodeError(f"{str(file)!r}: {error.message}", code=error.code) from error
    return read.data if read else b""
