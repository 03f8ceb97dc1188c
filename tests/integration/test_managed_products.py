"""Every command through a proxy that refuses what a managed product refuses by its documentation. Not run on the products."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from support.servers.encoder_command import run_encoder
from support.servers.hostile_http_server import serve_page
from support.servers.managed_gate import ManagedGate
from support.servers.recording_proxy import RecordingProxy
from support.servers.saved_objects_server import DashboardsServer
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2", "STAIR_ES_AWS_REGION": "eu-central-1"}


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product, the node behind its proxy, and what differs from an ordinary cluster."""

    name: str
    node: str
    environ: dict[str, str]
    ingest: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    """Command -> code of the error that names another way, before a request that is refused."""
    refused: str = ""
    """Part of the requests that are refused and replaced by others."""


_ELASTIC_KEY = {"STAIR_ES_API_KEY": "aWQ6a2V5"}
PRODUCTS = (
    Product(
        name="domain",
        node="node_url",
        environ={**AWS, "STAIR_ES_AWS_SERVICE": "es"},
        refused='"auto_expand_replicas":"0-1"',  # with standby: the answer says how many copies are required
    ),
    Product(
        name="opensearch-serverless",
        node="node_url",
        environ={**AWS, "STAIR_ES_AWS_SERVICE": "aoss"},
        failures={"template publish": "no-stored-scripts", "template list": "no-stored-scripts"},
    ),
    Product(
        name="elastic-hosted",
        node="elasticsearch9_url",
        environ=_ELASTIC_KEY,
        failures={
            # A hosted cluster has painless: the node of the tests lacks it.
            **dict.fromkeys(("policy apply", "policy rollback", "teach gefieder", "annotate"), "no-scripts"),
            "template publish": "no-mustache",
        },
    ),
    Product(
        name="elasticsearch-serverless",
        node="elasticsearch9_url",
        environ=_ELASTIC_KEY,
        ingest=("--vector", "sparse_vector"),
        failures={"template publish": "no-mustache", "annotate": "cluster-accepts-no-documents"},  # it has painless, too
    ),
)


@dataclass(frozen=True, kw_only=True)
class Managed:
    """A product behind its gate, and the command in this process."""

    product: Product
    node: Cluster
    """Behind the gate."""
    connection: Connection
    """Through the gate."""
    folder: Path
    alias: str

    def copy_photos(self, *names: str) -> list[Path]:
        """Copy example photos into a folder of the test."""
        (folder := self.folder / "photos").mkdir()
        return [Path(shutil.copy(PHOTOS / f"{name}.jpg", folder)) for name in names]

    def run(self, *arguments: object) -> Any:  # noqa: ANN401  JSON
        """Run a command; return its JSON, or the code of the error that the product's row expects."""
        result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")])
        name, failures = " ".join(map(str, arguments[:2])), self.product.failures
        expected = failures.get(name) or failures.get(str(arguments[0]))
        expected = None if "--labels" in arguments else expected  # labels are changed without scripts
        if expected:
            assert isinstance(result.exception, StairError), (name, result.output)
            assert result.exception.code == expected
            return None
        if result.exception and not (isinstance(result.exception, SystemExit) and arguments[0] == "doctor"):
            raise AssertionError(arguments, result.output) from result.exception
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return lines if arguments[0] == "doctor" else lines[-1]


def _build_parameter(product: Product) -> Any:  # noqa: ANN401  a private class of pytest
    """Run the strictest product with every change, the others in the night."""
    marks = [] if product.name == "opensearch-serverless" else [pytest.mark.nightly("another managed product")]
    return pytest.param(product, id=product.name, marks=marks)


@pytest.fixture(params=[_build_parameter(product) for product in PRODUCTS])
def managed(
    request: pytest.FixtureRequest, tmp_path: Path, make_index_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Managed]:
    product: Product = request.param
    node_url: str = request.getfixturevalue(product.node)
    gate = ManagedGate(product.name)
    alias = make_index_name(node_url)
    with RecordingProxy(node_url, gate=gate, rewrite=gate.hide_settings) as proxy, Cluster(Connection(url=node_url)) as node:
        for name, value in {"STAIR_ES_URL": proxy.url, "STAIR_ES_INDEX": alias, **product.environ}.items():
            monkeypatch.setenv(name, value)
        connection = Connection.from_env(proxy.url)
        yield Managed(product=product, node=node, connection=connection, folder=tmp_path, alias=alias)
    assert [line for line in gate.refused if not product.refused or product.refused not in line] == []
    assert bool(gate.refused) == bool(product.refused)


def test_every_command_passes(managed: Managed) -> None:
    """The whole life of an index. No request is refused but those that the row of the product names."""
    run, folder = managed.run, managed.folder / "photos"
    managed.copy_photos("tabby-cat", "dairy-cow")
    ingest = ("ingest", folder, "--token-index", *managed.product.ingest)
    assert run(*ingest, "--no-replicas-while-building")["written"] == 2
    assert run(*ingest)["unchanged"] == 2
    [first, _] = run("search", "a cat", "-k", "2")["hits"]
    assert first["uri"].endswith("tabby-cat.jpg")
    token = run("inspect", first["uri"])["tokens"][0]["token"]
    for command in (("explain", first["uri"], "a cat"), ("words",), ("query", "a cat")):
        run(*command)

    (policy := managed.folder / "policy.json").write_text(json.dumps({"stair_es_policy": 1, "mute": [token]}))
    assert run("policy", "plan", policy)["changed"] >= 1
    for change, is_muted in ((("apply", policy), True), (("rollback",), False)):
        if run("policy", *change) is not None:
            tokens = [each["token"] for each in run("inspect", first["uri"])["tokens"]]
            assert (token in tokens) != is_muted
    run("policy", "show")

    (labels := managed.folder / "labels.csv").write_text(f"image,label\n{first['uri']},feline\n")
    assert run("ingest-labels", labels)["written"] == 1
    (policy := managed.folder / "label-policy.json").write_text(json.dumps({"stair_es_policy": 1, "mute": ["feline"]}))
    run("policy", "apply", policy, "--labels")
    run("export-xmp", "--out", managed.folder / "sidecars")
    (texts := managed.folder / "texts.txt").write_text("a cat\na cow\n")
    assert run("ingest-texts", texts, "--index", f"{managed.alias}-texts", *managed.product.ingest)["written"] == 2
    run("coverage", texts)
    with serve_page(managed.connection, managed.alias) as page:
        assert page.post("/api/search", {"text": "a cat"}).json["hits"]
        assert page.post("/api/facets", {"text": "a cat"}).json["total"] >= 1
        assert page.get("/api/about").status == 200
    (folder / "dairy-cow.jpg").unlink()
    assert run(*ingest, "--resync")["removed"] == 1
    run("forget", folder / "tabby-cat.jpg")
    assert run(*ingest)["forgotten"] == 1
    run("template", "publish")
    run("template", "list")
    checks = run("doctor")
    assert not any("_cluster/settings" in json.dumps(check) or "_reroute" in json.dumps(check) for check in checks)


@pytest.mark.nightly("reading commands on managed products; test_every_command_passes has the life of an index")
def test_every_other_command_passes(managed: Managed) -> None:
    """Words of one's own, documents of another program, an evaluation, a dashboard, and an encoder that writes."""
    run, alias = managed.run, managed.alias
    *birds, cat = managed.copy_photos("kingfisher", "scarlet-macaw", "brown-hens", "tabby-cat")
    run("ingest", cat.parent, "--token-index", *managed.product.ingest)
    if run("teach", "gefieder", "--yes", *birds, "--apply") is not None:
        assert len(run("search", "gefieder")["hits"]) >= len(birds)
        run("teach", "gefieder", "--forget")
    assert run("teach") == []

    shop = f"{alias}-shop"
    for id_, photo in (("1", cat), ("2", birds[0])):
        managed.node.client.index(index=shop, id=id_, body={"image": photo.name}, refresh=True)
    annotate = ("annotate", "--index", shop, "--image-field", "image", "--image-base", cat.parent)
    if (report := run(*annotate)) is not None:
        assert report["written"] == run(*annotate)["unchanged"] == 2
        assert run("search", "a cat", "--index", shop, "-k", "1")["hits"][0]["id"] == "1"

    vector = managed.product.ingest
    assert run("evaluate", "retrieval", PHOTOS / "captions.jsonl", "--limit", 4, "--text-tower", "table", *vector)["images"] == 4
    (lists := managed.folder / "lists.jsonl").write_text(json.dumps({"image": cat.name, "accepted": ["cat"]}) + "\n")
    assert run("evaluate", "words", lists, "--index", alias)
    is_elastic = managed.product.name.startswith("elastic")
    with DashboardsServer("kibana", "9.1.2") if is_elastic else DashboardsServer("opensearch-dashboards") as dashboards:
        assert run("dashboards", "publish", "--dashboards-url", dashboards.url)["rejected"] == 0
    image = {"uri": "a cat", "data": base64.b64encode(cat.read_bytes()).decode()}
    with run_encoder("--index", alias, "--write-index", alias) as (_, url), requests.Session() as session:
        assert session.post(f"{url}/v1/documents", json={"index": alias, "images": [image]}).ok
        managed.node.refresh(alias)
        hits = managed.node.search(alias, session.post(f"{url}/v1/query", json={"text": "a cat"}).json())["hits"]["hits"]
        assert "a cat" in [hit["_source"]["uri"] for hit in hits]
        assert session.delete(f"{url}/v1/documents", params={"index": alias, "uri": "a cat"}).ok
