"""The original shop: an index of products, and the search of its website, without images.

python shop.py              creates the index `products`
python shop.py siesta       searches it as the website does
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch, helpers

INDEX = os.environ.get("SHOP_INDEX", "products")
FIELDS = {
    "sku": {"type": "keyword"},
    "title": {"type": "text", "analyzer": "english"},
    "price": {"type": "double"},
    "category": {"type": "keyword"},
    "image": {"type": "keyword"},
}


def create_client() -> OpenSearch:
    """Return the client of the shop."""
    return OpenSearch(os.environ["STAIR_ES_URL"])


def create_index(shop: OpenSearch) -> int:
    """Create the index from the shop's list of products; return their number."""
    shop.indices.create(index=INDEX, body={"mappings": {"properties": FIELDS}})
    made, _ = helpers.bulk(shop, read_products(), refresh=True)
    return int(made)


def read_products() -> Iterator[dict[str, Any]]:
    """Yield the products as documents; `image` is the path of the picture."""
    listed = Path(__file__).with_name("products.jsonl")
    for line in listed.read_text(encoding="utf-8").splitlines():
        product = json.loads(line)
        if "image" in product:
            product["image"] = str((listed.parent / product["image"]).resolve())
        yield {"_index": INDEX, "_id": product["sku"], "_source": product}


def find_products(shop: OpenSearch, text: str) -> list[dict[str, Any]]:
    """Search like the website: BM25 over the titles."""
    response = shop.search(index=INDEX, body={"query": {"match": {"title": text}}})
    return list(response["hits"]["hits"])


if __name__ == "__main__":
    with create_client() as shop:
        if len(sys.argv) == 1:
            print(f"{create_index(shop)} products in {INDEX}")
        for hit in find_products(shop, " ".join(sys.argv[1:])) if sys.argv[1:] else []:
            print(f"{hit['_score']:.4f}  {hit['_source']['sku']}  {hit['_source']['title']}")
