"""Images and words of an index, on each engine, compared with what was written."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error

from stair_es import SparseVector
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT, add_index_meta
from stair_es.errors import ClusterError, DecodeError
from stair_es.inspection import stored_document, vocabulary_stats
from stair_es.inspection.inspector import InspectionResult, Inspector
from stair_es.inspection.stored_document import find_stored_by_content, find_stored_image, get_stored_images, get_stored_thumbnail
from stair_es.inspection.vocabulary_stats import DocumentSample, VocabularyStats, collect_vocabulary_stats
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.index_info import fetch_index_info
from stair_es.search.query_encoder import encode_query_image
from stair_es.token_policy import TokenPolicy

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
STRANGE = ("a.b", ".", "##ing", "100%", "%2E", "", "café", "犬", "a b", "=1+1")
PNG = "data:image/png;base64,iVBORw0KGgo="
POLICY = TokenPolicy(mute=("muted",), cap={"capped": 0.5}, rename={"old": "new.er"})
ENGINES = {"opensearch": "node_url", "elasticsearch7": "elasticsearch7_url", "elasticsearch9": "elasticsearch9_url"}


class FilledCluster(Cluster):
    """One engine, and an alias of one index or two."""

    def __init__(self, url: str, alias: str) -> None:
        super().__init__(Connection(url=url))
        self.alias = alias
        # the tests' Elasticsearch 9 has `sparse_vector` in place of `rank_features`
        has_sparse_vector = get_cluster_info(self).supports_sparse_vector
        self.settings = DocumentSettings(vector="sparse_vector" if has_sparse_vector else "rank_features")

    def build_body(self) -> dict[str, Any]:
        meta = {"format_version": INDEX_FORMAT, "model": "m-1", "model_name": "m"}
        return add_index_meta(build_index_body(get_cluster_info(self), self.settings), meta)

    def create_index(self, name: str = "", shards: int = 2) -> str:
        """Create an index that the alias points to."""
        body = self.build_body()
        settings = body["settings"].setdefault("index", {})
        settings.pop("auto_expand_replicas", None)
        settings.update({"number_of_shards": shards, "number_of_replicas": 0})
        self.client.indices.create(index=f"{self.alias}-{name}", body={**body, "aliases": {self.alias: {}}})
        return f"{self.alias}-{name}"

    def put_images(self, index: str, images: Mapping[str, SparseVector], *, ids: Sequence[str] = (), **more: Any) -> None:  # noqa: ANN401
        lines: list[dict[str, Any]] = []
        for number, (uri, vector) in enumerate(images.items()):
            id_ = ids[number] if ids else make_document_id(uri)
            lines += [{"index": {"_id": id_}}, self.build_document(uri, vector, **more)]
        self.send_bulk(index, lines)

    def send_bulk(self, index: str, lines: list[dict[str, Any]]) -> None:
        response = self.client.bulk(body=lines, index=index, params={"refresh": "true"})
        assert not response["errors"], response

    def build_document(
        self,
        uri: str,
        vector: SparseVector,
        *,
        at: str = "2026-01-01T00:00:00Z",
        policy: TokenPolicy | None = None,
        model: str = "m-1",
        **facts: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        image: dict[str, Any] = {
            "source": "s",
            "version": "v",
            "sha256": f"{make_document_id(uri)}00",
            "width": 1,
            "height": 1,
            "format": "PNG",
        }
        file = {"uri": uri, "name": uri, "bytes": 1, "taken_at": None, "thumbnail": PNG}
        context: dict[str, Any] = {"model_id": model, "fingerprint": "f", "ingested_at": at}
        metadata, fields = ImageMetadata(**{**file, **image, **facts}), {"caption": "c"}
        return build_document(vector, metadata, fields=fields, settings=self.settings, policy=policy, **context)

    def collect_stats(self, sample: DocumentSample | None = None) -> VocabularyStats:
        return collect_vocabulary_stats(self, self.alias, sample=sample)


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
def engine_cluster(request: pytest.FixtureRequest, make_index_name: Callable[[str], str]) -> Iterator[FilledCluster]:
    url: str = request.getfixturevalue(request.param)
    with closing(FilledCluster(url, make_index_name(url))) as cluster:
        yield cluster


@pytest.fixture(params=["node_url", "elasticsearch9_url"], ids=["opensearch", "elasticsearch9"])
def vector_cluster(request: pytest.FixtureRequest, make_index_name: Callable[[str], str]) -> Iterator[FilledCluster]:
    """A cluster with `rank_features`, and one with `sparse_vector`."""
    url: str = request.getfixturevalue(request.param)
    with closing(FilledCluster(url, make_index_name(url))) as cluster:
        yield cluster


@pytest.fixture
def cluster(node_url: str, index_name: str) -> Iterator[FilledCluster]:
    with closing(FilledCluster(node_url, index_name)) as cluster:
        yield cluster


def build_vector(**words: float) -> SparseVector:
    return SparseVector.from_mapping(words)


def draw_images(count: int, seed: int, *, prefix: str = "u") -> dict[str, SparseVector]:
    rng = random.Random(seed)
    words = [*(f"word{i}" for i in range(80)), *STRANGE]
    return {
        f"{prefix}/{number:04}": SparseVector.from_pairs(
            (word, round(rng.lognormvariate(-2, 1.2), 5) + 1e-5) for word in rng.sample(words, rng.randint(1, 40))
        )
        for number in range(count)
    }


def check_stats(stats: VocabularyStats, images: Sequence[Mapping[str, float]]) -> None:
    """Check that the figures are those of the vectors, computed column by column."""
    total = sum(weight for image in images for weight in image.values())
    assert {row.token for row in stats.token_stats} == {token for image in images for token in image}
    for row in stats.token_stats:
        weights = [image[row.token] for image in images if row.token in image]
        count, weight_sum = len(weights), sum(weights)
        assert (row.images, row.image_share, row.max_weight) == (count, count / len(images), max(weights))
        assert row.mean_weight == pytest.approx(weight_sum / count, rel=1e-9)
        assert row.weight_share == pytest.approx(weight_sum / total, rel=1e-9)
        assert row.uniformity == pytest.approx(weight_sum**2 / (len(images) * sum(x * x for x in weights)), rel=1e-9)


@pytest.mark.parametrize("page", [1, 7, 1000])
def test_figures_cover_all_words_of_all_images(engine_cluster: FilledCluster, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(vocabulary_stats, "PAGE", page)
    first, second = draw_images(33, 1), draw_images(20, 2, prefix="v")
    second["u/0003"] = first["u/0003"]  # the same image in both indices
    engine_cluster.put_images(engine_cluster.create_index("1"), first)
    engine_cluster.put_images(engine_cluster.create_index("2", shards=1), second)
    engine_cluster.put_images(f"{engine_cluster.alias}-2", {"empty": SparseVector((), ())})
    seen: list[tuple[int, int]] = []
    found = collect_vocabulary_stats(engine_cluster, engine_cluster.alias, progress=lambda *so_far: seen.append(so_far))
    check_stats(found, [image.to_dict() for image in (*first.values(), *second.values(), SparseVector((), ()))])
    assert (found.documents, found.without_uri, found.images, found.missed_count, found.empty) == (55, 0, 55, 0, 1)
    assert found.mean_tokens == pytest.approx(sum(map(len, (*first.values(), *second.values()))) / 55)
    assert seen[-1] == (55, 55)
    for row in found.token_stats:
        assert {**first, **second}[row.example].to_dict()[row.token] == row.max_weight


def test_unreadable_documents_are_counted(vector_cluster: FilledCluster) -> None:
    index = vector_cluster.create_index("1")
    vector_cluster.put_images(index, {"u/1": build_vector(dog=1.0), "x" * 9000: build_vector(cat=1.0)})
    bare = {"tokens": {"bird": 1.0}}
    vector_cluster.send_bulk(index, [{"index": {}}, bare, {"index": {}}, {**bare, "uri": None}, {"index": {}}, {"uri": "u/2"}])
    found = vector_cluster.collect_stats()
    assert (found.documents, found.without_uri, found.images, found.empty, found.missed_count) == (5, 3, 2, 1, 0)
    assert [row.token for row in found.token_stats] == ["dog"]


def test_duplicate_sort_keys_are_reported(cluster: FilledCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_stats, "PAGE", 2)
    index = cluster.create_index("1")
    same = cluster.build_document("u", build_vector(dog=1.0))
    cluster.send_bulk(index, [line for number in range(5) for line in ({"index": {"_id": str(number)}}, same)])
    stats = cluster.collect_stats()
    assert stats.images < 5
    assert stats.images + stats.missed_count == 5


def test_an_empty_index_and_an_absent_one(cluster: FilledCluster) -> None:
    with pytest.raises(ClusterError, match=cluster.alias):
        cluster.collect_stats()
    cluster.create_index("1")
    found = cluster.collect_stats()
    assert (found.documents, found.images, found.missed_count, found.token_stats, found.mean_tokens) == (0, 0, 0, (), 0.0)


@pytest.mark.parametrize("page", [3, 1000])
def test_samples_are_reproducible_without_replacement(
    engine_cluster: FilledCluster, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(vocabulary_stats, "PAGE", page)
    images = {f"u/{number:03}": build_vector(**{f"w{number}": 1.0}) for number in range(60)}
    engine_cluster.put_images(engine_cluster.create_index("1"), images)
    samples = [engine_cluster.collect_stats(DocumentSample(size=10, seed=seed)).token_stats for seed in (1, 1, 2, 3)]
    tokens = [frozenset(row.token for row in sample) for sample in samples]
    assert [len(each) for each in tokens] == [10] * 4  # ten images, each with a token of its own
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 3
    whole = engine_cluster.collect_stats(DocumentSample(size=1000))
    assert (whole.images, whole.missed_count, len(whole.token_stats)) == (60, 0, 60)


def test_each_image_is_as_likely_in_a_sample(cluster: FilledCluster) -> None:
    images = {f"u/{number}": build_vector(**{f"w{number}": 1.0}) for number in range(8)}
    cluster.put_images(cluster.create_index("1"), images)
    counts = dict.fromkeys((f"w{number}" for number in range(8)), 0)
    for seed in range(60):
        for row in cluster.collect_stats(DocumentSample(size=4, seed=seed)).token_stats:
            counts[row.token] += 1
    assert all(15 <= count <= 45 for count in counts.values()), counts  # 30 each: four deviations


def test_documents_by_id_and_uri(engine_cluster: FilledCluster) -> None:
    weights = {word: 0.125 * (1 + number) for number, word in enumerate(STRANGE)}
    image = SparseVector.from_mapping({**weights, **{f"w{number}": 0.01 for number in range(60)}})
    uri = 'file:///a "b"/%C3%A9 #1.jpg?x=\\'
    index = engine_cluster.create_index("1")
    engine_cluster.put_images(index, {uri: image, "other": build_vector(dog=1.0)})
    found = find_stored_image(engine_cluster, engine_cluster.alias, uri)
    assert found is not None
    assert found == find_stored_image(engine_cluster, engine_cluster.alias, make_document_id(uri))
    assert (found.id, found.index, found.uri, found.vector) == (make_document_id(uri), index, uri, image)
    assert found.source["caption"] == "c"
    assert not {"tokens", "thumbnail"} & set(found.source)
    for absent in ("", "nope", "x" * 600, "x" * 40_000, "\ud800", "*", "file:///a*"):
        assert find_stored_image(engine_cluster, engine_cluster.alias, absent) is None


def test_documents_are_chosen_by_id_then_age(cluster: FilledCluster) -> None:
    old, new = cluster.create_index("1"), cluster.create_index("2")
    cluster.put_images(old, {"u": build_vector(old=1.0), "v": build_vector(v=1.0)}, at="2026-01-01T00:00:00Z")
    cluster.put_images(new, {"u": build_vector(new=1.0)}, at="2026-01-02T00:00:00Z")
    cluster.put_images(new, {"w": build_vector(named=1.0)}, ids=["v"], at="2026-01-01T00:00:00Z")
    words = {
        name: found.vector.tokens
        for name in ("u", "v", make_document_id("u"))
        if (found := find_stored_image(cluster, cluster.alias, name))
    }
    assert words == {"u": ("new",), "v": ("named",), make_document_id("u"): ("new",)}
    many = get_stored_images(cluster, cluster.alias, [make_document_id("u")])
    assert many[make_document_id("u")].vector.tokens == ("new",)
    assert find_stored_by_content(cluster, cluster.alias, f"{make_document_id('u')}00") == many[make_document_id("u")]
    assert find_stored_by_content(cluster, cluster.alias, "00") is None


@pytest.mark.parametrize("most", [2, 1000])
def test_many_documents_are_returned_in_the_requested_order(
    vector_cluster: FilledCluster, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(stored_document, "_MAX_HITS", most)
    monkeypatch.setattr(stored_document, "_BATCH_SIZE", 5)
    images = draw_images(12, 4)
    for name in ("1", "2"):
        vector_cluster.put_images(vector_cluster.create_index(name), images)
    ids = [make_document_id(uri) for uri in reversed(images)]
    found = get_stored_images(vector_cluster, vector_cluster.alias, [*ids, "nope", "", "\ud800", ids[0]])
    assert list(found) == ids
    assert {each.uri: each.vector for each in found.values()} == images
    assert get_stored_images(vector_cluster, vector_cluster.alias, []) == {}


def test_the_thumbnail_of_a_document(cluster: FilledCluster) -> None:
    index = cluster.create_index("1")
    cluster.put_images(index, {"u": build_vector(dog=1.0)})
    cluster.put_images(index, {"svg": build_vector(dog=1.0)}, thumbnail="data:image/svg+xml;base64,PHN2Zy8+")
    cluster.put_images(index, {"none": build_vector(dog=1.0)}, thumbnail=None)
    found = {uri: get_stored_thumbnail(cluster, cluster.alias, make_document_id(uri)) for uri in ("u", "svg", "none")}
    assert found["u"] is not None
    assert (found["u"].content_type, found["u"].data) == ("image/png", b"\x89PNG\r\n\x1a\n")
    assert (found["svg"], found["none"]) == (None, None)
    assert get_stored_thumbnail(cluster, cluster.alias, "nope") is None


def test_the_effect_of_a_policy_is_reported(vector_cluster: FilledCluster) -> None:
    original = SparseVector.from_mapping({"muted": 0.5, "capped": 1.0, "old": 0.25, "dog": 0.125})
    vector_cluster.put_images(vector_cluster.create_index("1"), {"u": original}, policy=POLICY)
    found = find_stored_image(vector_cluster, vector_cluster.alias, "u")
    assert found is not None
    assert found.vector.to_dict() == {"capped": 0.5, "new.er": 0.25, "dog": 0.125}
    assert found.undo.restore(found.vector) == original


def test_only_reading_requests_are_sent(cluster: FilledCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.put_images(cluster.create_index("1"), draw_images(5, 5))
    sent: set[str] = set()
    perform = cluster.client.transport.perform_request

    def record_request(method: str, url: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        sent.add(f"{method} {url.removeprefix(f'/{cluster.alias}')}")
        return perform(method, url, *arguments, **options)

    monkeypatch.setattr(cluster.client.transport, "perform_request", record_request)
    fetch_index_info(cluster, cluster.alias)
    cluster.collect_stats()
    cluster.collect_stats(DocumentSample(size=2))
    find_stored_image(cluster, cluster.alias, "u/0001")
    get_stored_images(cluster, cluster.alias, [make_document_id("u/0001")])
    get_stored_thumbnail(cluster, cluster.alias, make_document_id("u/0001"))
    assert sent == {"GET /_mapping", "POST /_count", "POST /_search"}


def test_hidden_elasticsearch_vectors_are_requested(elasticsearch9_url: str, make_index_name: Callable[[str], str]) -> None:
    with closing(FilledCluster(elasticsearch9_url, make_index_name(elasticsearch9_url))) as cluster:
        body = cluster.build_body()
        del body["settings"]["index"]["mapping"]
        cluster.client.indices.create(index=f"{cluster.alias}-1", body={**body, "aliases": {cluster.alias: {}}})
        cluster.put_images(f"{cluster.alias}-1", {"u": build_vector(dog=1.0)})
        assert "tokens" not in cluster.client.search(index=cluster.alias)["hits"]["hits"][0]["_source"]
        assert [row.token for row in cluster.collect_stats().token_stats] == ["dog"]
        image = find_stored_image(cluster, cluster.alias, "u")
    assert image
    assert image.vector == build_vector(dog=1.0)
    assert {"tokens", "thumbnail"} & set(image.source) == set()
    assert image.source["caption"] == "c"


@pytest.fixture(scope="module")
def mini_encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", threads=1))


class StoredImages:
    """An index with a photo, and with a document of it under the name of a file that has become another photo."""

    def __init__(self, cluster: FilledCluster, encoder: Encoder, folder: Path) -> None:
        self.photo, self.copied, self.changed = PHOTOS / "koala.jpg", folder / "copied.jpg", folder / "changed.jpg"
        self.copied.write_bytes(self.photo.read_bytes())
        self.changed.write_bytes((PHOTOS / "bison.jpg").read_bytes())
        self.vector = encode_query_image(encoder, self.photo)
        self.loads: list[str] = []
        sha256 = hashlib.sha256(self.photo.read_bytes()).hexdigest()
        images = {self.photo.as_uri(): self.vector, self.changed.as_uri(): self.vector}
        cluster.put_images(cluster.create_index("1"), images, sha256=sha256, model=encoder.model_id)

        def load_encoder() -> Encoder:
            self.loads.append(encoder.model_id)
            return encoder

        self.inspector = Inspector(cluster, cluster.alias, load_encoder)

    def inspect_image(self, image: Path | None, file: Path | None, *, against_file: bool = False) -> InspectionResult:
        """Inspect the document of an image, a file, or both."""
        result = self.inspector.inspect([image.as_uri()] if image else [], file, against_file=against_file)
        assert result is not None
        return result


@pytest.fixture
def stored_images(cluster: FilledCluster, mini_encoder: Encoder, tmp_path: Path) -> StoredImages:
    return StoredImages(cluster, mini_encoder, tmp_path)


def test_an_image_of_the_index_needs_no_model(stored_images: StoredImages) -> None:
    result = stored_images.inspect_image(stored_images.photo, stored_images.photo)
    assert result.image
    assert result.vector == stored_images.vector
    assert (result.encoded_file, result.comparison, result.file_changed, stored_images.loads) == (None, None, False, [])


@pytest.mark.parametrize("with_file", [True, False])
def test_stored_tokens_match_the_file(stored_images: StoredImages, with_file: bool) -> None:
    file = stored_images.photo if with_file else None
    result = stored_images.inspect_image(stored_images.photo, file, against_file=True)
    assert result.comparison
    assert (result.comparison.is_same, result.comparison.reasons) == (True, ())


def test_an_image_with_the_same_bytes_is_found(stored_images: StoredImages) -> None:
    result = stored_images.inspect_image(stored_images.copied, stored_images.copied)
    assert result.image
    assert result.image.uri in (stored_images.photo.as_uri(), stored_images.changed.as_uri())


def test_a_changed_file_is_reported(stored_images: StoredImages) -> None:
    assert stored_images.inspect_image(stored_images.changed, stored_images.changed).file_changed
    result = stored_images.inspect_image(stored_images.changed, stored_images.changed, against_file=True)
    assert result.comparison
    assert not result.comparison.is_same
    assert ["changed" in reason for reason in result.comparison.reasons] == [True]


def test_unreadable_files_hide_no_document(stored_images: StoredImages, tmp_path: Path) -> None:
    no_file = tmp_path / "folder.jpg"
    no_file.mkdir()
    assert stored_images.inspect_image(stored_images.photo, no_file).vector == stored_images.vector
    for image, against_file in ((stored_images.photo, True), (None, False)):
        with pytest.raises(DecodeError, match="folder"):
            stored_images.inspect_image(image, no_file, against_file=against_file)


def test_unindexed_file_is_encoded(stored_images: StoredImages, mini_encoder: Encoder, tmp_path: Path) -> None:
    result = stored_images.inspect_image(None, PHOTOS / "bison.jpg")
    assert result.image is None
    assert result.vector == encode_query_image(mini_encoder, PHOTOS / "bison.jpg")
    thumbnail = stored_images.inspector.get_thumbnail(result)
    assert thumbnail
    assert thumbnail.content_type == "image/webp"
    assert stored_images.inspector.inspect(["nope"], None) is None
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with expect_error("unknown-image-format", DecodeError):
        stored_images.inspector.inspect([], broken)
