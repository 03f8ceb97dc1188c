"""Add the tokens of their pictures to existing products. Ids, other fields and the shop's queries don't change.

python add_images.py        can be repeated: new and rewritten products get their tokens
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from opensearchpy import OpenSearch, helpers

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.errors import DecodeError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.query_encoder import is_http_url, read_query_image
from stair_es.sources.http.urls import normalize_url
from stair_es.types import Pixels

INDEX = os.environ.get("SHOP_INDEX", "products")
BATCH_IMAGES = 16
FIELDS = {
    "tokens": {"type": "rank_features"},
    "top_tokens": {"type": "keyword"},
    "uri": {"type": "keyword"},
    "model": {"type": "keyword"},
}
# A partial document would be merged into the old one and keep tokens of an earlier picture, so a script replaces fields.
REPLACE_FIELDS = "ctx._source.putAll(params)"


def prepare_index(shop: OpenSearch, encoder: Encoder, model_name: str) -> None:
    """Add the fields to the mapping, and record their model, so that queries of another model are rejected."""
    [described] = shop.indices.get_mapping(index=INDEX).values()
    meta = described["mappings"].get("_meta", {})
    about = {"format_version": INDEX_FORMAT, "model": encoder.model_id, "model_name": model_name}
    shop.indices.put_mapping(index=INDEX, body={"properties": FIELDS, "_meta": {**meta, "stair_es": about}})


def read_pictures(shop: OpenSearch, encoder: Encoder) -> Iterator[tuple[str, str, Pixels]]:
    """Yield id, path or URL, and pixels of each picture of a product without tokens of this model."""
    without_words = {
        "bool": {"filter": [{"exists": {"field": "image"}}], "must_not": [{"term": {"model": encoder.model_id}}]},
    }
    found = helpers.scan(shop, index=INDEX, query={"query": without_words, "_source": ["image"]}, size=100)
    for hit in found:
        image = hit["_source"]["image"]
        try:
            yield hit["_id"], image, read_query_image(encoder, image)
        except DecodeError as error:
            print(f"{hit['_id']} stays without words: {error.message}", file=sys.stderr)


def build_updates(shop: OpenSearch, encoder: Encoder) -> Iterator[dict[str, Any]]:
    """Yield one update for each of these products."""
    pictures = read_pictures(shop, encoder)
    while batch := list(islice(pictures, BATCH_IMAGES)):
        vectors = encoder.encode_images(np.stack([pixels for _, _, pixels in batch]))
        for (id_, image, _), vector in zip(batch, vectors, strict=True):
            uri = normalize_url(image) if is_http_url(image) else Path(image).as_uri()
            params = {**build_vector_fields(vector, DocumentSettings()), "uri": uri, "model": encoder.model_id}
            script = {"lang": "painless", "source": REPLACE_FIELDS, "params": params}
            yield {"_op_type": "update", "_index": INDEX, "_id": id_, "script": script, "retry_on_conflict": 3}


def main() -> None:
    """Prepare the index and write the tokens."""
    model_name = os.environ.get("STAIR_ES_MODEL", "stair-mini")
    encoder = registry.load_encoder(ModelSpec(name=model_name))
    with Connection.from_env().client() as shop:
        prepare_index(shop, encoder, model_name)
        done, _ = helpers.bulk(shop, build_updates(shop, encoder), chunk_size=100, refresh=True)
    print(f"{done} products of {INDEX} have new words")


if __name__ == "__main__":
    main()
