"""Every command through a proxy that refuses what a managed product refuses by its documentation. Not run on the products."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.servers.hostile_http_server import serve_page
from support.servers.managed_gate import ManagedGate
from support.servers.recording_proxy import RecordingProxy
from typer.testing import CliRunner

from stair_es.cli.main import app
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
            "policy apply": "no-scripts",  # a hosted cluster has painless: the node of the tests lacks it
            "policy rollback": "no-scripts",
            "template publish": "no-mustache",
        },
    ),
    Product(
        name="elasticsearch-serverless",
        node="elasticsearch9_url",
        environ=_ELASTIC_KEY,
        ingest=("--vector", "sparse_vector"),
        failures={"template publish": "no-mustache"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Managed:
    """A product, its gate, and the command in this process."""

    product: Product
    gate: ManagedGate
    url: str
    folder: Path
    alias: str

    def run(self, *arguments: object) -> Any:  # noqa: ANN401  JSON
        """Run a command; return its JSON, or the code of the error that the product's row expects."""
        environ = {"STAIR_ES_URL": self.url, "STAIR_ES_INDEX": self.alias, **self.product.environ}
        result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")], env=environ)
        name = " ".join(map(str, arguments[:2]))
        failures = self.product.failures
        expected = failures.get(name) if "--labels" not in arguments else None  # labels are changed without scripts
        if expected:
            assert isinstance(result.exception, StairError), (name, result.output)
            assert result.exception.code == expected
            return None
        if result.exception and not (isinstance(result.exception, SystemExit) and arguments[0] == "doctor"):
            raise AssertionError(arguments, result.output) from result.exception
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return lines if arguments[0] == "doctor" else lines[-1]


@pytest.fixture(params=PRODUCTS, ids=lambda product: product.name)
def managed(request: pytest.FixtureRequest, tmp_path: Path, make_index_name: Callable[[str], str]) -> Iterator[Managed]:
    product: Product = request.param
    node_url: str = request.getfixturevalue(product.node)
    gate = ManagedGate(product.name)
    with RecordingProxy(node_url, gate=gate, rewrite=gate.hide_settings) as proxy:
        yield Managed(product=product, gate=gate, url=proxy.url, folder=tmp_path, alias=make_index_name(node_url))


def test_every_command_passes(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole life of an index. No request is refused but those that the row of the product names."""
    run, folder = managed.run, managed.folder / "photos"
    folder.mkdir()
    for name in ("tabby-cat.jpg", "dairy-cow.jpg"):
        shutil.copy(PHOTOS / name, folder)
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
    check_page(managed, monkeypatch)
    (folder / "dairy-cow.jpg").unlink()
    assert run(*ingest, "--resync")["removed"] == 1
    run("forget", folder / "tabby-cat.jpg")
    assert run(*ingest)["forgotten"] == 1
    run("template", "publish")
    run("template", "list")
    checks = run("doctor")
    assert not any("_cluster/settings" in json.dumps(check) or "_reroute" in json.dumps(check) for check in checks)
    expected = managed.product.refused
    assert [line for line in managed.gate.refused if not expected or expected not in line] == []
    assert bool(managed.gate.refused) == bool(expected)


def check_page(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the routes of the page for the index."""
    for name, value in managed.product.environ.items():  # the AWS SDK reads its own
        monkeypatch.setenv(name, value)
    connection = Connection.from_env(managed.url)
    with serve_page(connection, managed.alias) as page:
        assert page.post("/api/search", {"text": "a cat"}).json["hits"]
        assert page.post("/api/facets", {"text": "a cat"}).json["total"] >= 1
        assert page.get("/api/about").status == 200
