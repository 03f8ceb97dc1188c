"""SEISMIC on a real node with neural-search: ids beside tokens, their table in the index, and searches through them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.messages import forward_messages
from support.models import tiny_checkpoints
from typer.testing import CliRunner

from stair_es import resources
from stair_es.cli.main import app
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, parse_token_weights
from stair_es.cluster.index.mappings import merge_bodies
from stair_es.cluster.metadata.token_fields import TokenIds, read_token_ids
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import IndexMismatch, QueryError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import simulate_ingest
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.texts.pipeline import TextIngestOptions, run_text_ingest
from stair_es.ingest.texts.sources import open_text_source
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.options import SearchOptions
from stair_es.search.query_encoder import encode_query_image, encode_query_text
from stair_es.search.searcher import Searcher
from stair_es.sources.registry import open_source
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opensearchpy import OpenSearch

    from stair_es.model.base import Encoder


PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
SEISMIC = DocumentSettings(vector="seismic", thumbnail_px=0)
MINI = ModelSpec(name="stair-mini", text_tower="table")
CATS = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg")
POLICY = TokenPolicy(name="quiet", mute=("tabby",), cap={"cat": 0.25}, rename={"kitten": "young.cat"})
"""`young.cat` is no token of the model."""
APPROXIMATE = {"token_ids": {"method": {"parameters": {"approximate_threshold": 5, "quantization_ceiling_ingest": 1}}}}


@dataclass(frozen=True)
class PhotoIndex:
    """An alias on the node, and what the functions under test take."""

    cluster: Cluster
    alias: str
    dead_letters: Path

    def options(self, **more: Any) -> IngestOptions:  # noqa: ANN401
        given = {"document": SEISMIC, "model": MINI, **more}
        return IngestOptions(alias=self.alias, dead_letters=self.dead_letters, runner="local", **given)

    def ingest(self, *sources: str, **more: Any) -> IngestReport:  # noqa: ANN401
        opened = [open_source(str(PHOTOS / source)) for source in sources]
        return run_ingest(opened, self.cluster.connection, self.options(**more), progress=lambda _: None)

    def table(self) -> TokenIds:
        [name] = self.cluster.client.indices.get_alias(name=self.alias)
        return read_token_ids(self.cluster, name)

    def documents(self) -> list[dict[str, Any]]:
        self.cluster.client.indices.refresh(index=self.alias)
        hits = self.cluster.client.search(index=self.alias, body={"size": 1000})["hits"]["hits"]
        return [hit["_source"] for hit in hits]

    def set_policy(self, policy: TokenPolicy | None) -> None:
        manager = PolicyManager(self.cluster, self.alias)
        if policy:
            manager.apply_policy(policy, UpdateLimits(), lambda _: None)
        else:
            manager.rollback_policy(UpdateLimits(), lambda _: None)


@pytest.fixture(scope="module")
def client(plugin_url: str) -> Iterator[OpenSearch]:
    made = Connection(url=plugin_url).client()
    yield made
    made.close()


@pytest.fixture
def photo_index(client: OpenSearch, plugin_url: str, make_index_name: Callable[[str], str], tmp_path: Path) -> PhotoIndex:
    return PhotoIndex(Cluster(Connection(url=plugin_url), client), make_index_name(plugin_url), tmp_path / "failed.jsonl")


@pytest.fixture(scope="module")
def photos(client: OpenSearch, plugin_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhotoIndex]:
    """The bundled photos, in an index that is searched approximately: tests only read it."""
    folder = tmp_path_factory.mktemp("photos")
    made = PhotoIndex(Cluster(Connection(url=plugin_url), client), f"test-{uuid.uuid4().hex[:12]}", folder / "failed.jsonl")
    body = merge_bodies(resources.load_json_resource("mappings", "image"), resources.load_json_resource("mappings", "seismic"))
    (own := folder / "own.json").write_text(json.dumps(merge_bodies(body, {"mappings": {"properties": APPROXIMATE}})))
    report = made.ingest("*.jpg", sink_options={"mapping": str(own)})
    assert (report.failed, report.written) == (0, report.seen)
    client.indices.forcemerge(index=made.alias, params={"max_num_segments": "1"})
    yield made
    client.indices.delete(index=f"{made.alias}*")


@pytest.fixture(scope="module")
def mini() -> Encoder:
    return registry.load_encoder(MINI)


def check_ids(photo_index: PhotoIndex, policy: TokenPolicy | None = None) -> None:
    """Each document has the weights of its tokens once more, by the ids that they have under the policy."""
    ids = photo_index.table().extend_for_policy(policy)
    for source in photo_index.documents():
        assert source.get("token_ids", {}) == ids.convert_weights(parse_token_weights(source["tokens"]).items())
        assert len(source["tokens"]) == len(source.get("token_ids", {}))
        assert "token_ids" not in source or source["token_ids"]


def test_documents_have_the_ids_that_the_index_keeps(photos: PhotoIndex, mini: Encoder) -> None:
    [about] = photos.cluster.client.indices.get_mapping(index=photos.alias).values()
    told = about["mappings"]["_meta"]["stair_es"]
    assert tuple(told["token_ids"]) == tuple(mini.tokens)  # type: ignore[attr-defined]
    assert about["mappings"]["properties"]["token_ids"]["type"] == "sparse_vector"
    check_ids(photos)
    assert len(photos.documents()) == 40


def test_a_second_run_changes_nothing(photos: PhotoIndex) -> None:
    [own] = photos.dead_letters.parent.glob("own.json")
    again = photos.ingest("*.jpg", sink_options={"mapping": str(own)})
    assert (again.written, again.unchanged, again.swapped) == (0, 40, False)
    would = simulate_ingest(
        [open_source(str(PHOTOS))],
        photos.cluster.connection,
        photos.options(sink_options={"mapping": str(own)}),
    )
    assert (would.new, would.unchanged) == (0, 40)


@pytest.mark.parametrize("text", ["a kitten", "a red car on a street", "mountains"])
def test_text_search_equals_exact_search(photos: PhotoIndex, mini: Encoder, text: str) -> None:
    _check_found(photos, mini, encode_query_text(mini, text))


@pytest.mark.parametrize("name", ["tabby-cat.jpg", "bee-in-flight.jpg"])
def test_image_search_equals_exact_search(photos: PhotoIndex, mini: Encoder, name: str) -> None:
    _check_found(photos, mini, encode_query_image(mini, PHOTOS / name))


def _check_found(photo_index: PhotoIndex, encoder: Encoder, vector: SparseVector) -> None:
    with Searcher(photo_index.cluster.connection, photo_index.alias, encoder.model_id) as searcher:
        exact = searcher.search(vector, 5).hits
        found = searcher.search(vector, 5, options=SearchOptions(query_type="seismic")).hits
    assert found
    assert found[0].uri == exact[0].uri
    assert len({hit.uri for hit in found} & {hit.uri for hit in exact}) >= len(exact) - 1
    assert found[0].score == pytest.approx(exact[0].score, rel=2**-8)
    assert "token_ids" not in found[0].source


def test_command_queries_with_index_ids(photos: PhotoIndex, plugin_url: str) -> None:
    arguments = ["query", "a kitten", "--query-type", "seismic", "--json", "--url", plugin_url, "--index", photos.alias]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    tokens = json.loads(done.stdout)["query"]["neural_sparse"]["token_ids"]["query_tokens"]
    assert set(map(int, tokens)) <= set(photos.table().ids.values())
    found = photos.cluster.client.search(index=photos.alias, body=json.loads(done.stdout))["hits"]["hits"]
    assert found[0]["_source"]["uri"].endswith("tabby-cat.jpg")


def test_search_uses_seismic(photos: PhotoIndex, plugin_url: str) -> None:
    where = ["--image", str(PHOTOS / CATS[0]), "--json", "--url", plugin_url, "--index", photos.alias]
    for asked, shape in ((["--query-type", "seismic"], "seismic"), ([], "rank_features")):
        done = CliRunner().invoke(app, ["search", *asked, *where])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["query_type"] == shape
        assert found["hits"][0]["uri"].endswith("tabby-cat.jpg")


def test_policies_and_rollbacks_keep_token_ids(photo_index: PhotoIndex, mini: Encoder) -> None:
    photo_index.ingest(*CATS)
    before, table = photo_index.documents(), photo_index.table()
    photo_index.set_policy(POLICY)
    assert [source["tokens"] for source in photo_index.documents()] != [source["tokens"] for source in before]
    check_ids(photo_index, POLICY)
    assert photo_index.table() == table
    assert table.extend_for_policy(POLICY).ids["young.cat"] == table.ids["kitten"]
    with Searcher(photo_index.cluster.connection, photo_index.alias, mini.model_id) as searcher:
        for word in ("kitten", "cat"):
            vector = SparseVector.from_mapping({word: 1.0})
            exact = searcher.search(vector).hits
            assert exact
            assert [hit.uri for hit in searcher.search(vector, options=SearchOptions(query_type="seismic")).hits] == [
                hit.uri for hit in exact
            ]

    everything = TokenPolicy(mute=tuple(parse_token_weights(before[0]["tokens"])))
    photo_index.set_policy(everything)  # at least one document loses all: it must not have an empty field
    assert any("token_ids" not in source for source in photo_index.documents())
    check_ids(photo_index, everything)
    assert photo_index.ingest("astronaut.jpg").written == 1  # the node still takes documents

    photo_index.set_policy(None)
    after = {source["uri"]: source for source in photo_index.documents()}
    assert [after[source["uri"]] for source in before] == before


def test_ingest_under_a_policy_equals_applying_it(photo_index: PhotoIndex) -> None:
    both = replace(SEISMIC, impacts=True)
    photo_index.ingest(CATS[0], document=both)
    photo_index.set_policy(POLICY)
    [with_policy] = photo_index.documents()
    photo_index.cluster.client.delete_by_query(
        index=photo_index.alias, body={"query": {"match_all": {}}}, params={"refresh": "true"}
    )
    photo_index.ingest(CATS[0], document=both)
    [written] = photo_index.documents()
    assert written["impacts"]
    assert written | {"ingested_at": ""} == with_policy | {"ingested_at": ""}


def test_index_without_a_table_is_searched_exactly(photo_index: PhotoIndex, mini: Encoder) -> None:
    photo_index.ingest(CATS[0])
    [(name, index)] = photo_index.cluster.client.indices.get_mapping(index=photo_index.alias).items()
    about = {key: value for key, value in index["mappings"]["_meta"]["stair_es"].items() if key != "token_ids"}
    photo_index.cluster.client.indices.put_mapping(index=name, body={"_meta": {"stair_es": about}})
    [before] = photo_index.documents()
    for attempt in (lambda: photo_index.set_policy(POLICY), lambda: photo_index.ingest(CATS[0])):
        with pytest.raises(IndexMismatch, match="no table of token ids") as caught:
            attempt()
        assert "--vector seismic" in caught.value.remedy
    assert photo_index.documents() == [before]
    with Searcher(photo_index.cluster.connection, photo_index.alias, mini.model_id) as searcher:
        vector = SparseVector.from_mapping({"cat": 1.0})
        assert searcher.search(vector).hits
        with pytest.raises(QueryError, match="no field `token_ids` with the method seismic and a table of its ids"):
            searcher.search(vector, options=SearchOptions(query_type="seismic"))


def test_another_vector_and_another_model_are_built_beside_and_swapped_in(photo_index: PhotoIndex, tmp_path: Path) -> None:
    first = photo_index.ingest(*CATS, document=DocumentSettings(thumbnail_px=0))
    messages: list[str] = []
    with forward_messages(messages.append):
        second = photo_index.ingest(*CATS)
    assert second.swapped
    assert second.index != first.index
    assert any("was made with other settings" in line for line in messages)
    check_ids(photo_index)

    tiny = ModelSpec(
        name=str(
            tiny_checkpoints.write_checkpoint(
                tmp_path / "tiny", tiny_checkpoints.build_vdr_config(), tiny_checkpoints.draw_vdr_weights()
            )
        )
    )
    third = photo_index.ingest(*CATS, model=tiny)
    assert third.swapped
    assert tuple(photo_index.table().ids) == tuple(registry.load_encoder(tiny).tokens)  # type: ignore[attr-defined]
    check_ids(photo_index)
    [about] = photo_index.cluster.client.indices.get_mapping(index=photo_index.alias).values()
    parameters = about["mappings"]["properties"]["token_ids"]["method"]["parameters"]
    assert parameters["quantization_ceiling_ingest"] == 3  # its weights may be above 1


def test_the_token_index_has_no_ids_and_texts_have_them(photo_index: PhotoIndex, tmp_path: Path) -> None:
    (file := tmp_path / "captions.txt").write_text("a brown dog\na cat on a sofa\n")
    chosen = TextIngestOptions(
        alias=photo_index.alias,
        model=MINI,
        document=replace(SEISMIC, id="content-hash"),
        sink_options={"token_index": "yes"},
        dead_letters=photo_index.dead_letters,
    )
    for written in (2, 0):
        source = open_text_source(str(file))
        report = run_text_ingest([source], photo_index.cluster.connection, chosen, progress=lambda _: None)
        assert (report.written, report.failed) == (written, 0)
    check_ids(photo_index)
    hits = photo_index.cluster.client.search(index=f"{photo_index.alias}-tokens", body={"size": 100})["hits"]["hits"]
    assert hits
    assert not any("token_ids" in hit["_source"] for hit in hits)


def test_tokens_without_an_id_are_kept_and_reported(photo_index: PhotoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.load_encoder(MINI)), "tokens", ("cat", "sofa"))
    messages: list[str] = []
    with forward_messages(messages.append):
        photo_index.ingest(CATS[0])
    [source] = photo_index.documents()
    assert set(source["token_ids"]) <= {"0", "1"}
    assert len(source["tokens"]) > len(source["token_ids"])
    assert [line for line in messages if "no id for tokens of 1 image:" in line]
