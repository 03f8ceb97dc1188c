"""Measure recall on real photographs, in the same node and with the same kinds of index as the generated corpora.

The photographs and texts are those of `model_quality.py`. Tokens are stair-mini's, BM25 has the same tokens without weights, and
dense vectors are ConSE of the same networks. A hit is right if it has the query's description. Ties are in the engine's order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
from harness.http import Http
from retrieval.galleries import Gallery

from search.arms import Arm
from search.indices import Kind, delete_index, make_uri, write_index
from stair_es.errors import QueryError
from stair_es.eval.metrics import RECALL_CUTS
from stair_es.eval.models import ConseEncoder
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.types import Floats, SparseVector


def measure_recalls(
    http: Http, prefix: str, kinds: Mapping[str, Kind], arms: Mapping[str, Arm], gallery: Gallery
) -> dict[str, list[float]]:
    """Return R@1/5/10 in percent of text -> image for each kind.

    Args:
        http: The node.
        prefix: Prefix of the names of the indices.
        kinds: Index kinds by name.
        arms: Search method of each kind.
        gallery: Photographs.
    """
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    dense = ConseEncoder(model)
    texts = list(gallery.queries)
    images, queries = model.encode_images(gallery.pixels_BHWC), model.encode_texts(texts)
    images_ND, queries_MD = dense.encode_images_dense(gallery.pixels_BHWC), dense.encode_texts_dense(texts)
    found: dict[str, list[float]] = {}
    for name, arm in arms.items():
        index = f"{prefix}-{name}-photos"
        try:
            write_index(http, index, kinds[name], [_build_bulk_body(kinds[name], images, images_ND)], len(images))
            ranked = [
                _search_photos(http, index, arm, vector, row.tolist()) for vector, row in zip(queries, queries_MD, strict=True)
            ]
        finally:
            delete_index(http, index)
        right = [
            [gallery.concepts[item] == concept for item in items]
            for items, concept in zip(ranked, gallery.queries.values(), strict=True)
        ]
        found[name] = [100 * float(np.mean([any(hits[:cut]) for hits in right])) for cut in RECALL_CUTS]
    return found


def _search_photos(http: Http, index: str, arm: Arm, vector: SparseVector, dense: list[float]) -> list[int]:
    """Return the rows found; none for a text in which the model knows no word."""
    try:
        body = arm.body(vector, dense)
    except QueryError as error:
        if error.code != "query-empty":
            raise
        return []
    return [int(hit["_id"]) for hit in http.request_json("POST", f"/{index}/_search", body)["hits"]["hits"]]


def _build_bulk_body(kind: Kind, vectors: list[SparseVector], dense_ND: Floats) -> bytes:
    lines = []
    for row, vector in enumerate(vectors):
        lines.append(b'{"index":{"_id":"%d"}}' % row)
        fields = {**kind.fields(vector, dense_ND[row]), "uri": make_uri(row)}
        lines.append(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
    return b"\n".join(lines) + b"\n"
