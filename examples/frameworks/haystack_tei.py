"""Haystack's own components on an index of stair-es: its TEI embedder, its Elasticsearch store and retriever.

A small component connects them: TEI returns token ids, and the index contains token names.

stair-es ingest captions.jsonl --image-column file --field content=caption --index photos --vector sparse_vector
stair-es encoder --index photos
python haystack_tei.py "a kitten" --index photos
"""

from __future__ import annotations

import argparse
import os
from typing import cast

import httpx
from haystack import Document, Pipeline, component
from haystack.dataclasses import SparseEmbedding
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import HuggingFaceTEISparseTextEmbedder
from haystack_integrations.components.retrievers.elasticsearch import ElasticsearchSparseEmbeddingRetriever
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore

from stair_es.feature_names import escape_feature

TOKEN = Secret.from_env_var("STAIR_ES_ENCODER_TOKEN", strict=False)


@component
class TokenNamer:
    """Replaces token ids with token names."""

    def __init__(self, api_base_url: str, token: Secret | None = TOKEN) -> None:
        """Configure the component; `api_base_url` and `token` are those of the embedder."""
        self.api_base_url, self.token = api_base_url, token
        self._names: list[str] = []

    def warm_up(self) -> None:
        """Fetch the vocabulary once."""
        if not self._names:
            secret = self.token.resolve_value() if self.token else None
            response = httpx.get(
                f"{self.api_base_url}/v1/vocabulary", headers={"Authorization": f"Bearer {secret}"} if secret else {}
            )
            self._names = [escape_feature(token) for token in response.raise_for_status().json()["tokens"]]

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, sparse_embedding: SparseEmbedding) -> dict[str, SparseEmbedding]:
        """Return the embedding with names instead of ids."""
        self.warm_up()
        names = [self._names[index] for index in sparse_embedding.indices]
        # The store converts the indices to strings, so names work; only the type annotation expects numbers.
        return {"sparse_embedding": SparseEmbedding(indices=cast("list[int]", names), values=sparse_embedding.values)}


def build_pipeline(encoder_url: str, index: str, cluster_url: str) -> Pipeline:
    """Build the pipeline from a text to documents. The index has a field `tokens` of the type `sparse_vector`."""
    store = ElasticsearchDocumentStore(hosts=cluster_url, index=index, sparse_vector_field="tokens")
    pipeline = Pipeline()
    pipeline.add_component("embedder", HuggingFaceTEISparseTextEmbedder(api_base_url=encoder_url, token=TOKEN))
    pipeline.add_component("namer", TokenNamer(encoder_url))
    pipeline.add_component("retriever", ElasticsearchSparseEmbeddingRetriever(document_store=store))
    pipeline.connect("embedder.sparse_embedding", "namer.sparse_embedding")
    pipeline.connect("namer.sparse_embedding", "retriever.query_sparse_embedding")
    return pipeline


def main() -> None:
    """Retrieve three images, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--index", default="images")
    parser.add_argument("--encoder", default=os.environ.get("STAIR_ES_ENCODER_URL", "http://127.0.0.1:8078"))
    args = parser.parse_args()
    pipeline = build_pipeline(args.encoder, args.index, os.environ["STAIR_ES_URL"])
    found = pipeline.run({"embedder": {"text": args.text}, "retriever": {"top_k": 3}})
    pipeline.close()
    documents: list[Document] = found["retriever"]["documents"]
    for document in documents:
        print(f"{document.score:.4f}  {document.meta['uri']}  {document.content}")


if __name__ == "__main__":
    main()
