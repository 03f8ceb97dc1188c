"""A LlamaIndex retriever: image nodes of an index, for a text, for an image, or for both.

python llamaindex_retriever.py "a kitten" --index photos
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from stair_es.search import Hit, ImageSearch, QueryInputs


class ImageRetriever(BaseRetriever):
    """Retriever of images over `ImageSearch`: `retrieve` and `aretrieve` take a text or a `QueryBundle` with an `image_path`."""

    def __init__(
        self,
        search: ImageSearch,
        *,
        k: int = 10,
        filters: Sequence[str | Mapping[str, Any]] = (),
        fields: Sequence[str] = (),
        min_score: float | None = None,
    ) -> None:
        """Configure the retriever.

        Args:
            search: The index.
            k: Number of images.
            filters: Query strings or clauses for every query.
            fields: Additional fields of the document for the metadata.
            min_score: Lowest score of an image.
        """
        super().__init__()
        self._search, self._k, self._filters, self._fields, self._min_score = search, k, filters, fields, min_score

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        inputs = QueryInputs(
            query_string=query_bundle.query_str,
            literal=True,
            images=[query_bundle.image_path] if query_bundle.image_path else [],
            filters=self._filters,
            min_score=self._min_score,
        )
        return [NodeWithScore(node=self._build_node(hit), score=hit.score) for hit in self._search.search(inputs, k=self._k).hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _build_node(self, hit: Hit) -> ImageNode:
        uri = urlsplit(hit.uri)
        return ImageNode(
            id_=hit.id,
            text=hit.source.get("caption") or ", ".join(hit.source.get("top_tokens", ())),
            image_path=url2pathname(uri.path) if uri.scheme == "file" else None,
            image_url=hit.uri if uri.scheme in ("http", "https") else None,
            metadata={
                "uri": hit.uri,
                "weak": hit.weak,
                "tokens": {match.token: match.contribution for match in hit.contributions},
                **{name: hit.source[name] for name in self._fields if name in hit.source},
            },
            excluded_llm_metadata_keys=["weak", "tokens"],
            excluded_embed_metadata_keys=["uri", "weak", "tokens"],
        )


def main() -> None:
    """Retrieve three images, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="")
    parser.add_argument("--image")
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--index", default="images")
    args = parser.parse_args()
    with ImageSearch(args.index) as search:
        retriever = ImageRetriever(search, k=3, filters=args.filter)
        for found in retriever.retrieve(QueryBundle(args.text, image_path=args.image)):
            matched = ", ".join(found.metadata["tokens"])
            print(f"{found.get_score():.4f}  {found.metadata['uri']}  {found.text}  ({matched})")


if __name__ == "__main__":
    main()
