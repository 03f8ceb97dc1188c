"""Real photographs in the same node and the same kinds of index as the drawn corpora: who finds the right one?

The photographs and texts are those of `model_quality.py`. Words are stair-mini's, BM25 has the same words without weights,
dense vectors are ConSE of the same networks. A hit is right if it has the query's description; ties are in the engine's order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
from model_quality import Gallery
from query_arms import Arm
from query_load import Http, Kind, delete, uri, write

from stair_es.eval.dense import ConseEncoder
from stair_es.eval.metrics import RECALL_CUTS
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.types import Floats, SparseVector


def recalls(
    http: Http, prefix: str, kinds: Mapping[str, Kind], arms: Mapping[str, Arm], gallery: Gallery
) -> dict[str, list[float]]:
    """For each kind R@1/5/10 in percent of text -> image.

    Args:
        http: The node.
        prefix: Of the names of the indices.
        kinds: By name.
        arms: How each kind is asked.
        gallery: Photographs.
    """
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    dense = ConseEncoder(model)
    texts = list(gallery.queries)
    images, asked = model.encode_images(gallery.pixels_BHWC), model.encode_texts(texts)
    images_ND, asked_MD = dense.encode_images_dense(gallery.pixels_BHWC), dense.encode_texts_dense(texts)
    found: dict[str, list[float]] = {}
    for name, arm in arms.items():
        index = f"{prefix}-{name}-photos"
        try:
            write(http, index, kinds[name], [_body(kinds[name], images, images_ND)], len(images))
            ranked = [
                [int(hit["_id"]) for hit in http.ask("POST", f"/{index}/_search", arm.body(vector, row.tolist()))["hits"]["hits"]]
                for vector, row in zip(asked, asked_MD, strict=True)
            ]
        finally:
            delete(http, index)
        right = [
            [gallery.concepts[item] == concept for item in items]
            for items, concept in zip(ranked, gallery.queries.values(), strict=True)
        ]
        found[name] = [100 * float(np.mean([any(hits[:cut]) for hits in right])) for cut in RECALL_CUTS]
    return found


def _body(kind: Kind, vectors: list[SparseVector], dense_ND: Floats) -> bytes:
    lines = []
    for row, vector in enumerate(vectors):
        lines.append(b'{"index":{"_id":"%d"}}' % row)
        fields = {**kind.fields(vector, dense_ND[row]), "uri": uri(row)}
        lines.append(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
    return b"\n".join(lines) + b"\n"
