"""A LangChain retriever: documents about the images of an index, for a text, for images, or for both.

python langchain_retriever.py "a kitten" --index photos
"""

from __future__ import annotations

import argparse
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from stair_es.search import Hit, ImageSearch, QueryInputs


class ImageRetriever(BaseRetriever):
    """Retriever of images over `ImageSearch`.

    `invoke` and `ainvoke` take the text of the query, and as keywords `k` and the fields of `QueryInputs` (`images`, `filters`,
    `excluded`, `min_score` and others).
    """

    search: ImageSearch
    k: int = 10
    """Number of images."""
    filters: list[str | dict[str, Any]] = Field(default_factory=list)
    """Query strings or clauses for every query; `filters` of a call are added."""
    fields: list[str] = Field(default_factory=list)
    """Additional fields of the document for the metadata."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **inputs: Any,  # noqa: ANN401  the fields of QueryInputs
    ) -> list[Document]:
        filters = [*self.filters, *inputs.pop("filters", ())]
        query_inputs = QueryInputs(query_string=query, literal=True, filters=filters, **inputs)
        return [self._build_document(hit) for hit in self.search.search(query_inputs, k=self.k if k is None else k).hits]

    def _build_document(self, hit: Hit) -> Document:
        text = hit.source.get("caption") or ", ".join(hit.source.get("top_tokens", ()))
        metadata = {
            "uri": hit.uri,
            "score": hit.score,
            "weak": hit.weak,
            "tokens": {match.token: match.contribution for match in hit.contributions},
            **{name: hit.source[name] for name in self.fields if name in hit.source},
        }
        return Document(id=hit.id, page_content=text, metadata=metadata)


def main() -> None:
    """Retrieve three images, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--index", default="images")
    args = parser.parse_args()
    with ImageSearch(args.index) as search:
        retriever = ImageRetriever(search=search, k=3, filters=args.filter)
        for document in retriever.invoke(args.text, images=args.image):
            matched = ", ".join(document.metadata["tokens"])
            print(f"{document.metadata['score']:.4f}  {document.metadata['uri']}  {document.page_content}  ({matched})")


if __name__ == "__main__":
    main()
