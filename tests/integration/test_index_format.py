"""An index in the format of another version is rejected by everything that reads or writes an index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.errors import expect_error

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.dashboards.index_info import inspect_index
from stair_es.errors import IndexMismatch
from stair_es.model import registry
from stair_es.model.base import ModelSpec

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "tabby-cat.jpg"


@dataclass
class OldIndex:
    """An index behind an alias, written by hand as before format 2, with the index of its words."""

    client: OpenSearch
    alias: str
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.alias}-stair-mini-3-20260101-000000-000000"

    def create_index(self, **more: Any) -> None:  # noqa: ANN401  JSON
        mappings = resources.load_json_resource("mappings", "image")["mappings"]
        about = {
            "model_name": "stair-mini",
            "model": registry.resolve_model(ModelSpec(name="stair-mini")).card.model_id,
            "settings": {"top_words": 16, "id": "uri"},
            "digest": "01234567",
            "alias": self.alias,
            **more,
        }
        mappings["_meta"] = {"stair_es": about}
        self.client.indices.create(index=self.name, body={"mappings": mappings, "aliases": {self.alias: {}}})
        document = {"tokens": {"cat": 1.0}, "top_tokens": ["cat"], "uri": PHOTO.as_uri(), "sha256": "0" * 64}
        self.client.index(index=self.name, id="a", body=document, params={"refresh": "true"})

    def create_token_index(self) -> None:
        """Create its token index, with the names that it had in format 1."""
        meta = {"stair_es": {"words_of": self.name, "alias": self.alias}}
        body = {"mappings": {"_meta": meta}, "aliases": {f"{self.alias}-words": {}}}
        self.client.indices.create(index=f"{self.name}.words", body=body)

    def check_error(self, *arguments: str, index: str = "", version: int = 1) -> str:
        """Check that the command rejects the format of the index, and return the remedy."""
        error = CommandRunner(self.environment).read_error(*arguments)
        assert (type(error), error.code) == (IndexMismatch, "other-index-format")
        assert {index or self.name, str(version), str(INDEX_FORMAT)} <= set(re.findall(r"[\w.-]+", error.message))
        return error.remedy

    def read_state(self) -> Any:  # noqa: ANN401  JSON
        """Read all indices of the alias, with their mappings and documents."""
        self.client.indices.refresh(index=f"{self.alias}*")
        hits = self.client.search(index=f"{self.alias}*", body={"size": 100, "version": True})["hits"]["hits"]
        return self.client.indices.get(index=f"{self.alias}*"), hits


@pytest.fixture
def old_index(client: OpenSearch, index_name: str, node_url: str, tmp_path: Path) -> Iterator[OldIndex]:
    environment = {"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "STAIR_ES_HOME": str(tmp_path)}
    yield OldIndex(client, index_name, environment)
    client.indices.delete(index=f"{index_name}-*", ignore=[404])


COMMANDS = {
    "ingest": ("ingest", str(PHOTO), "--model", "stair-mini"),
    "ingest --dry-run": ("ingest", str(PHOTO), "--model", "stair-mini", "--dry-run"),
    "search": ("search", "cat"),
    "explain": ("explain", str(PHOTO), "cat"),
    "words": ("words",),
    "inspect": ("inspect", str(PHOTO)),
    "policy show": ("policy", "show"),
    "policy plan": ("policy", "plan", "POLICY"),
    "policy apply": ("policy", "apply", "POLICY"),
    "policy rollback": ("policy", "rollback"),
    "serve": ("serve", "--port", "0"),
}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_first_format_index_is_rejected_unchanged(old_index: OldIndex, tmp_path: Path, command: str) -> None:
    old_index.create_index()
    old_index.create_token_index()
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"stair_es_policy": 1, "mute": ["cat"]}))
    before = old_index.read_state()
    remedy = old_index.check_error(*(str(policy) if each == "POLICY" else each for each in COMMANDS[command]))
    assert f"DELETE /{old_index.name}" in remedy
    assert old_index.read_state() == before


def test_dashboards_and_doctor_report_the_format(old_index: OldIndex) -> None:
    old_index.create_index()
    with expect_error("other-index-format"):
        inspect_index(Cluster(Connection(url=old_index.environment["STAIR_ES_URL"]), old_index.client), old_index.alias)
    findings = json.loads(CommandRunner(old_index.environment).run("doctor", "--json").stdout)["findings"]
    assert [each["state"] for each in findings if f"DELETE /{old_index.name}" in (each["remedy"] or "")] == ["fail"]


def test_a_token_index_of_the_first_format_is_rejected(old_index: OldIndex) -> None:
    old_index.create_index()
    old_index.create_token_index()
    old_index.check_error("search", "cat", "--index", f"{old_index.alias}-words", index=f"{old_index.name}.words")


def test_the_remedy_helps(old_index: OldIndex) -> None:
    old_index.create_index()
    other = CommandRunner({**old_index.environment, "STAIR_ES_INDEX": f"{old_index.alias}-new"})
    assert other.read_json("ingest", str(PHOTO), "--model", "stair-mini")["written"] == 1
    assert other.read_json("search", "cat")["hits"][0]["uri"] == PHOTO.as_uri()
    old_index.client.indices.delete(index=old_index.name)
    report = CommandRunner(old_index.environment).read_json("ingest", str(PHOTO), "--model", "stair-mini")
    assert (report["written"], report["alias"]) == (1, old_index.alias)


def test_later_formats_need_a_newer_version(old_index: OldIndex) -> None:
    old_index.create_index(format_version=INDEX_FORMAT + 1)
    remedy = old_index.check_error("search", "cat", version=INDEX_FORMAT + 1)
    assert "DELETE" not in remedy
