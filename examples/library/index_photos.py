"""Write photos into an index with the bulk helper of the client that your program already has.

python index_photos.py FOLDER INDEX
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch, helpers

from stair_es import Encoder, ImageMetadata, StairError, build_document, build_mapping, load_encoder, make_document_id

BATCH_IMAGES = 64
FIELDS = {"album": "keyword"}


def build_actions(encoder: Encoder, index: str, photos: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield an action for each photo; one that can't be read is reported, and the others go on."""
    for begin in range(0, len(photos), BATCH_IMAGES):
        batch = photos[begin : begin + BATCH_IMAGES]
        for path, vector in zip(batch, encoder.encode(images=batch), strict=True):
            if isinstance(vector, StairError):
                print(f"left out: {vector.message}", file=sys.stderr)
                continue
            uri = path.absolute().as_uri()
            metadata, fields = ImageMetadata(uri=uri, name=path.name), {"album": path.parent.name}
            source = build_document(vector, metadata, model_id=encoder.model_id, fields=fields)
            yield {"_index": index, "_id": make_document_id(uri), "_source": source}


def main(folder: str, index: str) -> None:
    """Create the index and write the photos."""
    encoder = load_encoder("stair-mini")
    with OpenSearch(os.environ["STAIR_ES_URL"]) as client:
        client.indices.create(index=index, body={"mappings": build_mapping(encoder, FIELDS)})
        actions = build_actions(encoder, index, sorted(Path(folder).glob("*.jpg")))
        written = sum(ok for ok, _ in helpers.streaming_bulk(client, actions))
        client.indices.refresh(index=index)
    print(f"{written} photos in {index}")


if __name__ == "__main__":
    main(*sys.argv[1:])
