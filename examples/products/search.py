"""The shop's new search: by the content of the picture, by title and by price, in one request.

python search.py "a black and white bear" --max-price 50
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from opensearchpy import OpenSearch

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search import QueryInputs, SearchFields, build_search_query, build_search_request

INDEX = os.environ.get("SHOP_INDEX", "products")
FIELDS = SearchFields(text="title", price="price")


def build_body(encoder: Encoder, text: str, max_price: float | None = None) -> dict[str, Any]:
    """Build the request, which any client in any language can send."""
    filters = [{"range": {"price": {"lte": max_price}}}] if max_price is not None else []
    query = build_search_query(encoder, QueryInputs(query_string=text, filters=filters), fields=FIELDS)
    return build_search_request(query, "rank_features", max_clauses=1024).body


def find_products(shop: OpenSearch, encoder: Encoder, text: str, max_price: float | None = None) -> list[dict[str, Any]]:
    """Return the hits, best first."""
    return list(shop.search(index=INDEX, body=build_body(encoder, text, max_price))["hits"]["hits"])


def main() -> None:
    """Search, and print the five best hits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--max-price", type=float)
    args = parser.parse_args()
    encoder = registry.load_encoder(ModelSpec(name=os.environ.get("STAIR_ES_MODEL", "stair-mini")))
    with OpenSearch(os.environ["STAIR_ES_URL"]) as shop:
        for hit in find_products(shop, encoder, args.text, args.max_price)[:5]:
            product = hit["_source"]
            print(f"{hit['_score']:.4f}  {product['sku']}  {product['price']:5.2f}  {product['title']}")


if __name__ == "__main__":
    main()
