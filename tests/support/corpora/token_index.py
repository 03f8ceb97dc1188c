"""A companion index by hand: a document for each image and each of its heaviest words, as `ingest --token-index` writes them.

Written after the contract alone, so that tests of what reads the companion depend on nobody's code but the node's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opensearchpy import OpenSearch, helpers

from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.feature_names import unescape_feature

TOP = 16
MAPPING: dict[str, Any] = {
    "properties": {
        **{
            key: {"type": "keyword"}
            for key in ("image_id", "token", "uri", "name", "source", "caption", "colors", "model", "source_version")
        },
        **{key: {"type": "float"} for key in ("weight", "weight_share")},
        **{key: {"type": "integer"} for key in ("rank", "token_count")},
        **{key: {"type": "date"} for key in ("taken_at", "ingested_at")},
    }
}
ALIAS = {"top_tokens": {"type": "alias", "path": "token"}}
"""By which a filter on the main index' words reaches the companion too."""


def read_documents(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    """Map the ids of an index to sources."""
    client.indices.refresh(index=index)
    return {hit["_id"]: hit["_source"] for hit in helpers.scan(client, index=index)}


def build_entries(id_: str, source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield documents of an image, heaviest first."""
    weights = {unescape_feature(word): weight for word, weight in source.get("tokens", {}).items()}
    heaviest = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP]
    carried = ("uri", "name", "source", "caption", "colors", "model", "taken_at", "ingested_at")
    copied = {name: source[name] for name in carried if name in source}
    for rank, (word, weight) in enumerate(heaviest, start=1):
        yield {
            **copied,
            "image_id": id_,
            "token": word,
            "weight": weight,
            "rank": rank,
            "weight_share": weight / sum(weights.values()),
            "token_count": len(weights),
            "source_version": source["fingerprint"],
        }


def build_token_index(client: OpenSearch, alias: str, *, with_alias: bool = True) -> str:
    """Write the companion of what `alias` stands for, behind `<alias>-tokens`; returns its name."""
    [index] = client.indices.get_alias(name=alias)
    name = f"{index}.tokens"
    properties = {**MAPPING["properties"], **(ALIAS if with_alias else {})}
    mappings = {"properties": properties, "_meta": {"stair_es": {"format_version": INDEX_FORMAT, "token_index_of": index}}}
    client.indices.create(index=name, body={"mappings": mappings, "aliases": {f"{alias}-tokens": {}}})
    actions = (
        {"_index": name, "_id": f"{id_}-{entry['rank']}", "_source": entry}
        for id_, source in read_documents(client, alias).items()
        for entry in build_entries(id_, source)
    )
    helpers.bulk(client, actions, refresh=True)
    return name
