"""`/v1/documents`: the documents are those of an ingest, and only allowed indices are written, through the path of an ingest."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml  # type: ignore[import-untyped]
from openapi_schema_validator import OAS31Validator
from support.bulk_faults import reject_request
from support.commands import CommandRunner
from support.corpora.ingest_sources import PHOTOS
from support.errors import expect_error
from support.plugin_metadata import install_colors_plugin
from support.servers.fault_proxy import FaultProxy, Response, start_server
from support.servers.hostile_http_server import PageClient, serve_encoder

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_document_id
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import IndexMismatch
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks import live
from stair_es.ingest.sinks.forgotten import ForgetManager, ForgottenList
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source
from stair_es.token_policy import TokenPolicy
from stair_es.web.encoding.openapi import build_openapi_document
from stair_es.web.encoding.service import EncodingTarget

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTO = PHOTOS / "tabby-cat.jpg"
COLORS = ModelSpec(name="colors")
DOCUMENT = build_openapi_document()


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


@dataclass
class Caller:
    """An application that calls an encoder which may write one index."""

    page: PageClient
    url: str
    index: str
    client: OpenSearch

    def post(self, *images: dict[str, Any], status: int = 200, **more: object) -> Any:  # noqa: ANN401  JSON
        response = self.page.post("/v1/documents", {"index": self.index, "images": images, **more})
        assert response.status == status, response.body
        schema = DOCUMENT["paths"]["/v1/documents"]["post"]["responses"][str(status)]["content"]["application/json"]["schema"]
        OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(response.json)
        return response.json

    def post_one(self, uri: str, **fields: Any) -> Any:  # noqa: ANN401  JSON
        [outcome] = self.post({"uri": uri, "data": to_base64(PHOTO), **fields})["documents"]
        return outcome

    def delete(self, **parameters: str) -> Any:  # noqa: ANN401  JSON
        return self.page.request("DELETE", f"/v1/documents?{urlencode({'index': self.index, **parameters})}").json

    def list_stored(self) -> dict[str, Any]:
        """Return the stored documents by id."""
        self.client.indices.refresh(index=self.index)
        hits = self.client.search(index=self.index, body={"size": 100})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def ingest(self, *sources: Path, **options: Any) -> IngestReport:  # noqa: ANN401  fields of `IngestOptions`
        letters = sources[0] / "letters.jsonl"
        options = {"alias": self.index, "model": COLORS, "dead_letters": letters, **options}
        opened = [open_source(str(source)) for source in sources]
        return run_ingest(opened, Connection(url=self.url), IngestOptions(**options), progress=lambda _: None)


@contextmanager
def serve_caller(client: OpenSearch, url: str, index: str, through: str = "", **more: Any) -> Iterator[Caller]:  # noqa: ANN401
    """Serve an encoder that may write an index, through a proxy if its URL is given."""
    target = EncodingTarget(encoder=registry.load_encoder(COLORS))
    connection = Connection(url=through or url)
    with serve_encoder(target, connection=connection, write_indices=[index], **more) as page:
        yield Caller(page, url, index, client)


@pytest.fixture
def caller(client: OpenSearch, node_url: str, index_name: str) -> Iterator[Caller]:
    with serve_caller(client, node_url, index_name) as found:
        yield found


def to_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_document_is_that_of_an_ingest_which_then_finds_it_unchanged(caller: Caller, tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "cat.jpg")
    uri = (tmp_path / "cat.jpg").as_uri()
    [outcome] = caller.post({"uri": uri, "data": "data:image/jpeg;base64," + to_base64(tmp_path / "cat.jpg")})["documents"]
    stored = caller.list_stored()
    assert (outcome["outcome"], outcome["id"], stored) == ("written", make_document_id(uri), {outcome["id"]: outcome["document"]})
    again = caller.ingest(tmp_path)
    assert (again.written, again.unchanged) == (0, 1)
    caller.client.delete(index=caller.index, id=outcome["id"], params={"refresh": "true"})
    assert caller.ingest(tmp_path).written == 1
    own = caller.list_stored()[outcome["id"]]
    differing = {"ingested_at", "source", "version", "modified_at"}  # the file system's, which a request doesn't have
    assert {name: value for name, value in own.items() if name not in differing} == {
        name: value for name, value in outcome["document"].items() if name not in differing
    }
    assert caller.post_one(uri, data=to_base64(tmp_path / "cat.jpg"))["outcome"] == "unchanged"


def test_the_bytes_of_an_image_can_be_the_body(caller: Caller) -> None:
    parameters = urlencode({"uri": "nextcloud:42", "id": "42", "index": caller.index, "source": "nextcloud:"})
    headers = {"content-type": "image/jpeg"}
    response = caller.page.request("POST", f"/v1/documents?{parameters}", PHOTO.read_bytes(), headers).json
    [outcome] = response["documents"]
    assert (outcome["outcome"], outcome["id"], outcome["document"]["source"]) == ("written", "42", "nextcloud:")
    assert response["index"].startswith(caller.index)
    built = caller.page.request("POST", "/v1/documents?uri=x&thumbnail_px=64", PHOTO.read_bytes(), headers).json
    assert (built["index"], built["documents"][0]["outcome"]) == (None, "built")
    assert built["documents"][0]["document"]["thumbnail"]
    assert set(caller.list_stored()) == {"42"}


def test_one_bad_image_does_not_fail_the_others(caller: Caller) -> None:
    bad = {"uri": "app:2", "data": base64.b64encode(b"no image").decode()}
    good = {"uri": "app:1", "data": to_base64(PHOTO), "fields": {"caption": "a cat", "likes": 3}}
    outcomes = caller.post(bad, good)["documents"]
    assert [(each["outcome"], each.get("stage")) for each in outcomes] == [("failed", "decode"), ("written", None)]
    [stored] = caller.list_stored().values()
    assert (stored["caption"], stored["likes"]) == ("a cat", 3)
    assert caller.post_one("app:1", fields={"caption": "the cat"})["outcome"] == "written"
    assert [each["caption"] for each in caller.list_stored().values()] == ["the cat"]


def test_urls_are_fetched_under_the_policy_of_an_ingest(client: OpenSearch, node_url: str, index_name: str) -> None:
    answers = {"/cat.jpg": Response(kind="image/jpeg", body=PHOTO.read_bytes(), headers={"etag": '"1"'})}
    busy = Response(status=429, headers={"retry-after": "3600"})
    with start_server(lambda request: answers.get(request.path, busy)) as images:
        urls = [{"url": f"{images}/cat.jpg?x=1"}, {"url": f"{images}/cat.jpg"}, {"url": f"{images}/busy.jpg"}]
        with serve_caller(client, node_url, index_name) as caller:
            refused = caller.post(*urls)["documents"]
            assert {(each["outcome"], each["stage"]) for each in refused} == {("failed", "read")}
        with serve_caller(client, node_url, index_name, allow_private_urls=True) as caller:
            outcomes = caller.post(*urls[1:])["documents"]
            assert [(each["uri"], each["outcome"]) for each in outcomes] == [
                (f"{images}/cat.jpg", "written"),
                (f"{images}/busy.jpg", "failed"),
            ]
            assert caller.post(urls[1])["documents"][0]["outcome"] == "unchanged"


def test_a_deletion_names_an_image_or_an_id_and_missing_ones_count_as_deleted(caller: Caller, tmp_path: Path) -> None:
    caller.post_one("app:1")
    caller.post_one("app:2", id="own")
    caller.post_one("app:3", id="other")
    assert caller.delete(uri="app:1") == {"deleted": 1}
    assert caller.delete(uri="app:1") == {"deleted": 0}
    assert caller.delete(uri="app:2") == {"deleted": 1}
    assert caller.delete(id="other") == caller.delete(id="other") | {"deleted": 1}
    assert caller.list_stored() == {}
    assert caller.delete()["code"] == "uri-or-id"
    assert caller.page.request("DELETE", "/v1/documents?index=others&uri=x").json["code"] == "index-not-writable"
    assert caller.post_one("app:1")["outcome"] == "written"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"index": "others"}, 403, "index-not-writable"),
        ({"thumbnail_px": 64}, 422, "thumbnail-with-index"),
        ({"images": []}, 400, "no-input"),
    ],
)
def test_requests_that_are_refused_as_a_whole(caller: Caller, change: dict[str, Any], status: int, code: str) -> None:
    body = {"index": caller.index, "images": [{"uri": "app:1", "data": to_base64(PHOTO)}], **change}
    response = caller.page.post("/v1/documents", body)
    assert (response.status, response.json["code"]) == (status, code)
    assert caller.list_stored() == {}


def test_forgotten_images_are_left_out_also_while_they_are_written(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    caller.post_one("app:1")
    with Cluster(Connection(url=caller.url)) as cluster:
        ForgetManager(cluster, caller.index).forget(["app:1"])
        assert caller.post_one("app:1")["outcome"] == "forgotten"
        images, remove = ForgottenList(cluster, caller.index), live.remove_forgotten

        def forget_first(*arguments: Any) -> None:  # noqa: ANN401
            images.add({"app:2": []})
            remove(*arguments)

        monkeypatch.setattr("stair_es.web.encoding.documents.remove_forgotten", forget_first)
        assert caller.post_one("app:2")["outcome"] == "forgotten"
    assert caller.list_stored() == {}


def test_documents_follow_the_token_policy_of_the_index(caller: Caller) -> None:
    top = caller.post_one("app:1")["document"]["top_tokens"][0]
    with Cluster(Connection(url=caller.url)) as cluster:
        policy = TokenPolicy(mute=(top,))
        PolicyManager(cluster, caller.index).apply_policy(policy, UpdateLimits(), lambda _: None)
    document = caller.post_one("app:2")["document"]  # the cached state of the index is older than the policy
    assert (top in document["tokens"], document["policy"]) == (False, policy.digest)
    assert all(top not in each["tokens"] for each in caller.list_stored().values())


def test_documents_go_into_the_index_that_the_alias_points_to_now(caller: Caller, tmp_path: Path) -> None:
    first = caller.post({"uri": "app:1", "data": to_base64(PHOTO)})["index"]
    shutil.copy(PHOTO, tmp_path / "cat.jpg")
    report = caller.ingest(tmp_path, document=DocumentSettings(thumbnail_px=0))
    assert report.not_swapped_reason  # the new index lacks the image of the application
    report = caller.ingest(tmp_path, document=DocumentSettings(thumbnail_px=0), sink_options={"swap": "always"})
    second = caller.post({"uri": "app:2", "data": to_base64(PHOTO)})
    assert (second["index"], second["index"] != first) == (report.index, True)
    [document] = [each["document"] for each in second["documents"]]
    assert "thumbnail" not in document
    caller.client.indices.delete(index=report.index)
    response = caller.page.post("/v1/documents", {"index": caller.index, "images": [{"uri": "a", "data": to_base64(PHOTO)}]})
    assert (response.status, response.headers["retry-after"]) == (503, "2")


def test_a_busy_cluster_gives_503_after_a_few_retries(client: OpenSearch, node_url: str, index_name: str) -> None:
    faults = iter([reject_request(), *[None] * 2, *[reject_request()] * 100])

    def plan(request: Any) -> Any:  # noqa: ANN401
        return next(faults) if request.path.partition("?")[0].endswith("_bulk") else None

    with FaultProxy(node_url, plan) as proxy, serve_caller(client, node_url, index_name, proxy.url) as caller:
        assert caller.post_one("app:1")["outcome"] == "written"
        assert caller.post_one("app:2")["outcome"] == "written"
        images = [{"uri": "app:3", "data": to_base64(PHOTO)}]
        response = caller.page.post("/v1/documents", {"index": index_name, "images": images})
        assert (response.status, response.headers["retry-after"]) == (503, "2")
        assert len(caller.list_stored()) == 2


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda caller, folder: caller.ingest(folder, model=ModelSpec(name="stair-mini")), "index-of-other-model"),
        (lambda caller, folder: caller.client.indices.create(index=caller.index), "index-not-an-alias"),
    ],
)
def test_other_indices_are_refused_at_the_start(
    client: OpenSearch, node_url: str, index_name: str, tmp_path: Path, prepare: Callable[[Caller, Path], object], code: str
) -> None:
    shutil.copy(PHOTO, tmp_path / "cat.jpg")
    prepare(Caller(PageClient(port=0), node_url, index_name, client), tmp_path)
    with expect_error(code, IndexMismatch), serve_caller(client, node_url, index_name):
        pass


def test_ids_by_content_have_no_other_ids(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "cat.jpg")
    by_content = DocumentSettings(id="content-hash")
    Caller(PageClient(port=0), node_url, index_name, client).ingest(tmp_path, document=by_content)
    with serve_caller(client, node_url, index_name) as caller:
        image = {"uri": "app:1", "data": to_base64(tmp_path / "cat.jpg")}
        assert caller.post({**image, "id": "7"}, status=422)["code"] == "id-by-content"
        assert caller.post(image)["documents"][0]["outcome"] == "unchanged"
        assert len(caller.list_stored()) == 1


def test_the_command_refuses_to_expose_writing_without_a_token(node_url: str) -> None:
    error = CommandRunner({"STAIR_ES_URL": node_url}).read_error("encoder", "--host", "0.0.0.0", "--write-index", "photos")
    assert (error.code, "photos" in json.dumps(error.message)) == ("host-without-token", True)


def read_logstash_body(event: dict[str, str]) -> Any:  # noqa: ANN401  JSON
    """Read the template `body` of the example's filter, which is a hash of Logstash, and fill an event in as Logstash does."""
    text = (PHOTOS.parent / "pipelines" / "logstash" / "photos.conf").read_text()
    assert text.count("{") == text.count("}")
    found = re.search(r"\n      body => (\{.*?\n      \})", text, re.DOTALL)
    assert found is not None
    template = re.sub(r'("|\}|\])\s+(?=")', r"\1, ", found[1].replace("=>", ":"))
    return json.loads(re.sub(r"%\{(\w+)\}", lambda name: event[name[1]], template))


def test_the_template_for_logstash_is_a_request(client: OpenSearch, node_url: str, index_name: str) -> None:
    with start_server(lambda request: Response(kind="image/jpeg", body=PHOTO.read_bytes())) as images:
        body = read_logstash_body({"id": "42", "url": f"{images}/42.jpg", "caption": "a cat"})
        assert body["index"] == "photos"
        with serve_caller(client, node_url, index_name, allow_private_urls=True) as caller:
            [outcome] = caller.post(*body["images"])["documents"]
    assert (outcome["outcome"], outcome["uri"], outcome["document"]["caption"]) == ("written", "shop:42", "a cat")


def test_the_pipeline_for_data_prepper_is_yaml() -> None:
    text = (PHOTOS.parent / "pipelines" / "data-prepper" / "photos.yaml").read_text()
    [sink] = yaml.safe_load(text)["photos"]["sink"]
    assert sink["opensearch"]["index"] == "products"
