"""The shop's new search: by what is in the picture, by the title as before, and by price, in one request.

python search.py "a black and white bear" --max-price 50
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from opensearchpy import OpenSearch

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search import SearchQuery, build_search_request
from stair_es.search.query_encoder import encode_query_text

INDEX = os.environ.get("SHOP_INDEX", "products")
TITLE_WEIGHT = 0.1
"""BM25 counts in larger numbers than the words of a picture: with this a title that says it weighs about as much."""


def body(encoder: Encoder, text: str, max_price: float | None = None) -> dict[str, Any]:
    """The request: any client in any language can send what comes out of here."""
    question = SearchQuery(
        vector=encode_query_text(encoder, text),
        caption=text,
        caption_field="title",
        caption_weight=TITLE_WEIGHT,
        filters=[{"range": {"price": {"lte": max_price}}}] if max_price is not None else [],
    )
    return build_search_request(question, "rank_features", max_clauses=1024).body


def find(shop: OpenSearch, encoder: Encoder, text: str, max_price: float | None = None) -> list[dict[str, Any]]:
    """The hits, best first."""
    return list(shop.search(index=INDEX, body=body(encoder, text, max_price))["hits"]["hits"])


def main() -> None:
    """Asks, and prints the best five."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--max-price", type=float)
    asked = parser.parse_args()
    encoder = registry.load_encoder(ModelSpec(name=os.environ.get("STAIR_ES_MODEL", "stair-mini")))
    with OpenSearch(os.environ["STAIR_ES_URL"]) as shop:
        for hit in find(shop, encoder, asked.text, asked.max_price)[:5]:
            product = hit["_source"]
            print(f"{hit['_score']:.4f}  {product['sku']}  {product['price']:5.2f}  {product['title']}")


if __name__ == "__main__":
    main()
