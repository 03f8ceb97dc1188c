"""The engine's score against the exact dot product, on a real node: vectors of real photos and captions, and drawn ones.

The engine keeps 9 significant bits of a weight, truncated: a score is never above the product, and less than 0.39 % below.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image, ImageOps

from stair_es.cluster.connect import Connection
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.search.queries import rank_features_query, search_body
from stair_es.search.searcher import Searcher
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import SparseVector
from stair_es.vocab import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opensearchpy import OpenSearch
    from PIL.Image import Image as PilImage

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TRUNCATION = 2**-8
"""0.39 %: what 9 significant bits, one of them implied, can lose."""
ROUNDING = 1e-6
"""float32 sums."""
MODEL_ID = "drawn@1"
STRANGE_WORDS = ("a.b", ".", "..", "3.14", "##ing", "100%", "%", "%2E", "", "café", "犬", "it's", 'say "x"', "a b", "*", "_id")


@dataclass(frozen=True)
class Corpus:
    """Vectors that are in an index, and vectors to ask for."""

    index: str
    images: Mapping[str, SparseVector]
    queries: tuple[SparseVector, ...]


def drawn(rng: np.random.Generator, words: np.ndarray[Any, Any], size: int) -> SparseVector:
    """A vector with few frequent and many rare words, and weights over three orders of magnitude."""
    frequency = 1.0 / np.arange(1, len(words) + 1)
    chosen = rng.choice(words, size, replace=False, p=frequency / frequency.sum())
    weights = np.exp(rng.normal(-2, 1.2, size)).astype(np.float32)
    return SparseVector.from_pairs((str(word), float(weight)) for word, weight in zip(chosen, weights, strict=True))


def index_vectors(client: OpenSearch, index: str, vectors: Mapping[str, SparseVector], model_id: str) -> None:
    """An index that looks like one of ours, with one document a vector."""
    mappings = {
        "_meta": {"stair_es": {"model": model_id, "model_name": "drawn"}},
        "properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}, "thumbnail": {"type": "keyword"}},
    }
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    client.indices.create(index=index, body={"settings": settings, "mappings": mappings})
    lines: list[dict[str, Any]] = []
    for name, vector in vectors.items():
        tokens = {escape(word): weight for word, weight in vector}
        lines += [{"index": {"_id": name}}, {"tokens": tokens, "uri": f"file:///{name}.jpg", "thumbnail": "data:,"}]
    answer = client.bulk(body=lines, index=index, params={"refresh": "true"})
    assert not answer["errors"], answer


def drawn_vectors() -> tuple[dict[str, SparseVector], tuple[SparseVector, ...]]:
    """Drawn with a fixed seed: strange words, queries from 1 to 79 words, weights far apart."""
    rng = np.random.default_rng(20261124)
    words = np.array([*(f"word{i}" for i in range(2000)), *STRANGE_WORDS])
    rng.shuffle(words)
    images = {f"{i:04}": drawn(rng, words, 64) for i in range(400)}
    return images, tuple(drawn(rng, words, int(size)) for size in rng.integers(1, 80, 40))


def starter_vectors() -> tuple[dict[str, SparseVector], tuple[SparseVector, ...]]:
    """What the starter model says of 6 views of each bundled photo, and of their captions; 2 photos are queries, too."""
    encoder = catalogue.load(ModelSpec(name="starter"))
    images = {}
    for path in sorted(PHOTOS.glob("*.jpg")):
        with Image.open(path) as photo:
            for name, view in views(photo.convert("RGB")).items():
                buffer = BytesIO()
                view.save(buffer, "PNG")
                pixels_HWC = decode(buffer.getvalue(), encoder.image_spec, DecodeLimits()).pixels_HWC
                images[f"{path.stem}-{name}"] = encoder.encode_images(pixels_HWC[None])[0]
    lines = (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    captions = encoder.encode_texts([json.loads(line)["caption"] for line in lines])
    return images, (*(caption for caption in captions if len(caption)), *list(images.values())[:2])


def views(photo: PilImage) -> dict[str, PilImage]:
    """The photo, mirrored, and its four overlapping quarters."""
    width, height = photo.size
    corners = [(x, y) for x in (0.0, 0.4) for y in (0.0, 0.4)]
    quarters = [(int(x * width), int(y * height), int((x + 0.6) * width), int((y + 0.6) * height)) for x, y in corners]
    parts = {f"part{i}": photo.crop(box) for i, box in enumerate(quarters)}
    return {"whole": photo, "mirrored": ImageOps.mirror(photo), **parts}


@pytest.fixture(scope="module", params=["drawn", "starter"])
def corpus(node_url: str, request: pytest.FixtureRequest) -> Iterator[Corpus]:
    images, queries = drawn_vectors() if request.param == "drawn" else starter_vectors()
    assert len(images) >= 200
    assert len(queries) >= 30
    yield from indexed(node_url, images, queries)


def indexed(node_url: str, images: Mapping[str, SparseVector], queries: tuple[SparseVector, ...]) -> Iterator[Corpus]:
    """The corpus in an index of its own, removed at the end."""
    client = Connection(url=node_url).client()
    index = f"test-search-{uuid4().hex[:12]}"
    try:
        index_vectors(client, index, images, MODEL_ID)
        yield Corpus(index, images, queries)
        client.indices.delete(index=index)
    finally:
        client.close()


@pytest.fixture
def searcher(node_url: str, corpus: Corpus) -> Iterator[Searcher]:
    with Searcher(Connection(url=node_url), corpus.index, MODEL_ID) as opened:
        yield opened


def test_every_score_is_the_exact_dot_product_less_the_truncation(searcher: Searcher, corpus: Corpus) -> None:
    compared = 0
    for query in corpus.queries:
        for hit in searcher.search(query, k=1000).hits:
            exact = query.dot(corpus.images[hit.id])
            assert exact * (1 - TRUNCATION) <= hit.score <= exact * (1 + ROUNDING)
            assert sum(reason.contribution for reason in hit.why) == pytest.approx(exact, rel=1e-6)
            compared += 1
    assert compared > 1000


def test_all_images_with_a_word_in_common_are_found_and_no_other(searcher: Searcher, corpus: Corpus) -> None:
    for query in corpus.queries:
        expected = {name for name, image in corpus.images.items() if set(query.features) & set(image.features)}
        assert {hit.id for hit in searcher.search(query, k=1000).hits} == expected


def test_the_ranking_is_the_exact_one_up_to_near_ties(searcher: Searcher, corpus: Corpus) -> None:
    for query in corpus.queries:
        exact = [query.dot(corpus.images[hit.id]) for hit in searcher.search(query, k=10).hits]
        ideal = sorted((query.dot(image) for image in corpus.images.values()), reverse=True)[: len(exact)]
        for got, best in zip(exact, ideal, strict=True):
            assert got >= best * (1 - TRUNCATION - ROUNDING)
        for earlier, later in itertools.pairwise(exact):
            assert earlier >= later * (1 - TRUNCATION - ROUNDING)


def test_each_contribution_is_the_engine_s_own_explanation(searcher: Searcher, corpus: Corpus, client: OpenSearch) -> None:
    explained = 0
    for query in corpus.queries:
        found = {hit.id: hit for hit in searcher.search(query, k=3).hits}
        body = {**search_body(rank_features_query(query).clause, k=3), "explain": True}
        for raw in client.search(index=corpus.index, body=body)["hits"]["hits"]:
            theirs = explanation(raw["_explanation"])
            ours = {reason.feature: reason.contribution for reason in found[raw["_id"]].why}
            assert theirs.keys() == ours.keys()
            for word, value in theirs.items():
                assert ours[word] * (1 - TRUNCATION) <= value <= ours[word] * (1 + ROUNDING)
                explained += 1
    assert explained > 200


def explanation(node: Mapping[str, Any]) -> dict[str, float]:
    """Word -> contribution, out of the engine's explanation tree."""
    match = re.match(r"Linear function on the tokens field for the (.*) feature, computed", node["description"], re.DOTALL)
    if match:
        return {unescape(match[1]): node["value"]}
    found: dict[str, float] = {}
    for detail in node["details"]:
        found |= explanation(detail)
    return found


@pytest.mark.parametrize("corpus", ["drawn"], indirect=True)
@pytest.mark.parametrize("word", STRANGE_WORDS)
def test_strange_words_are_found(searcher: Searcher, corpus: Corpus, word: str) -> None:
    query = SparseVector.from_mapping({word: 1.0})
    expected = {name for name, image in corpus.images.items() if word in image.features}
    hits = searcher.search(query, k=1000).hits
    assert expected
    assert {hit.id for hit in hits} == expected
    assert {reason.feature for hit in hits for reason in hit.why} == {word}


def test_a_hit_has_the_document_without_its_thumbnail(searcher: Searcher, corpus: Corpus) -> None:
    result = searcher.search(corpus.queries[0], k=2)
    assert [hit.uri for hit in result.hits] == [f"file:///{hit.id}.jpg" for hit in result.hits]
    assert all("thumbnail" not in hit.source for hit in result.hits)
    assert result.took_ms >= 0
    assert not len(result.cut)
