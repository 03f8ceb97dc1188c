"""The shop as it was before: an index of products, and the search that its website has. Knows nothing of images.

python shop.py              makes the index `products`
python shop.py siesta       asks it as the website does
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


def client() -> OpenSearch:
    """The shop's own client."""
    return OpenSearch(os.environ["STAIR_ES_URL"])


def fill(shop: OpenSearch) -> int:
    """Makes the index from the shop's list of products; how many there are."""
    shop.indices.create(index=INDEX, body={"mappings": {"properties": FIELDS}})
    made, _ = helpers.bulk(shop, products(), refresh=True)
    return int(made)


def products() -> Iterator[dict[str, Any]]:
    """The products as documents; `image` is the path of the picture."""
    listed = Path(__file__).with_name("products.jsonl")
    for line in listed.read_text(encoding="utf-8").splitlines():
        product = json.loads(line)
        if "image" in product:
            product["image"] = str((listed.parent / product["image"]).resolve())
        yield {"_index": INDEX, "_id": product["sku"], "_source": product}


def find(shop: OpenSearch, text: str) -> list[dict[str, Any]]:
    """The website's search: BM25 over the titles."""
    answer = shop.search(index=INDEX, body={"query": {"match": {"title": text}}})
    return list(answer["hits"]["hits"])


if __name__ == "__main__":
    with client() as shop:
        if len(sys.argv) == 1:
            print(f"{fill(shop)} products in {INDEX}")
        for hit in find(shop, " ".join(sys.argv[1:])) if sys.argv[1:] else []:
            print(f"{hit['_score']:.4f}  {hit['_source']['sku']}  {hit['_source']['title']}")
