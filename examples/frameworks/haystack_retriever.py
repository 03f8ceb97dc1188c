"""A Haystack retriever: documents about the images of an index, for a text, for images, or for both.

python haystack_retriever.py "a kitten" --index photos
"""

from __future__ import annotations

import argparse
from typing import Any

from haystack import Document, component

from stair_es.search import Hit, ImageSearch, QueryInputs

_NOT_META = ("tokens", "top_tokens", "caption")


@component
class ImageRetriever:
    """Retriever of images over `ImageSearch`, on every cluster that stair-es supports."""

    def __init__(
        self, index: str = "images", *, url: str | None = None, top_k: int = 10, filters: list[str | dict[str, Any]] | None = None
    ) -> None:
        """Configure the retriever. It connects at its first run.

        Args:
            index: An alias or index.
            url: The URL of the cluster; by default `STAIR_ES_URL`, or the embedded node if it runs.
            top_k: Number of images.
            filters: Query strings or clauses for every query.
        """
        self.index, self.url, self.top_k, self.filters = index, url, top_k, filters
        self._search = ImageSearch(index, url=url)

    @component.output_types(documents=list[Document])
    def run(
        self,
        text: str = "",
        images: list[str] | None = None,
        filters: list[str | dict[str, Any]] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the best images.

        Args:
            text: The text of the query.
            images: Paths or URLs of images that are part of the query.
            filters: Query strings or clauses, in addition to those of the retriever.
            top_k: Number of images; by default that of the retriever.
        """
        inputs = QueryInputs(
            query_string=text, literal=True, images=images or [], filters=[*(self.filters or []), *(filters or [])]
        )
        hits = self._search.search(inputs, k=self.top_k if top_k is None else top_k).hits
        return {"documents": [_build_document(hit) for hit in hits]}

    def close(self) -> None:
        """Close the connections."""
        self._search.close()


def _build_document(hit: Hit) -> Document:
    meta = {name: value for name, value in hit.source.items() if name not in _NOT_META}
    matches = {match.token: match.contribution for match in hit.contributions}
    return Document(
        id=hit.id,
        content=hit.source.get("caption") or ", ".join(hit.source.get("top_tokens", ())),
        score=hit.score,
        meta={**meta, "weak": hit.weak, "tokens": matches},
    )


def main() -> None:
    """Retrieve three images, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--index", default="images")
    args = parser.parse_args()
    retriever = ImageRetriever(args.index, top_k=3, filters=args.filter)
    for document in retriever.run(args.text, images=args.image)["documents"]:
        print(f"{document.score:.4f}  {document.meta['uri']}  {document.content}  ({', '.join(document.meta['tokens'])})")
    retriever.close()


if __name__ == "__main__":
    main()
