"""An index in the format of another version is rejected by everything that reads or writes an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner

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
        return f"{self.alias}-stair-mini-2-20260101-000000-000000"

    def create(self, **more: Any) -> None:  # noqa: ANN401  JSON
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

    def create_words(self) -> None:
        """Create the index of its words, with the names that it had in format 1."""
        meta = {"stair_es": {"words_of": self.name, "alias": self.alias}}
        body = {"mappings": {"_meta": meta}, "aliases": {f"{self.alias}-words": {}}}
        self.client.indices.create(index=f"{self.name}.words", body=body)

    def read_error(self, *arguments: str) -> IndexMismatch:
        error = CommandRunner(self.environment).read_error(*arguments)
        assert isinstance(error, IndexMismatch)
        return error

    def read_state(self) -> Any:  # noqa: ANN401  JSON
        """All indices of the alias, with their mappings and documents."""
        self.client.indices.refresh(index=f"{self.alias}*")
        hits = self.client.search(index=f"{self.alias}*", body={"size": 100, "version": True})["hits"]["hits"]
        return self.client.indices.get(index=f"{self.alias}*"), hits


@pytest.fixture
def old(client: OpenSearch, index_name: str, node_url: str, tmp_path: Path) -> Iterator[OldIndex]:
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
def test_first_format_index_is_rejected_unchanged(old: OldIndex, tmp_path: Path, command: str) -> None:
    old.create()
    old.create_words()
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"stair_es_policy": 1, "mute": ["cat"]}))
    before = old.read_state()
    error = old.read_error(*(str(policy) if each == "POLICY" else each for each in COMMANDS[command]))
    assert (
        error.message == f"index {old.name!r} has the format 1 of another version of stair-es; this version uses {INDEX_FORMAT}"
    )
    assert error.remedy == (
        f"Ingest again into a new index: stair-es ingest SOURCE --index NEW. Then delete the old one: DELETE /{old.name}"
    )
    assert old.read_state() == before


def test_no_dashboard_is_built_for_it(old: OldIndex) -> None:
    old.create()
    with pytest.raises(IndexMismatch, match=f"index '{old.name}' has the format 1"):
        inspect_index(Cluster(Connection(url=old.environment["STAIR_ES_URL"]), old.client), old.alias)


def test_the_doctor_names_it(old: OldIndex) -> None:
    old.create()
    done = CommandRunner(old.environment).run("doctor", "--json")
    [found] = [each for each in json.loads(done.stdout)["findings"] if "has the format 1" in each["message"]]
    assert (found["state"], "stair-es ingest SOURCE --index NEW" in found["remedy"]) == ("fail", True)


def test_a_token_index_of_the_first_format_is_rejected(old: OldIndex) -> None:
    old.create()
    old.create_words()
    error = old.read_error("search", "cat", "--index", f"{old.alias}-words")
    assert f"index '{old.name}.words' has the format 1" in error.message


def test_the_remedy_helps(old: OldIndex) -> None:
    old.create()
    new = f"{old.alias}-new"
    shell = CommandRunner({**old.environment, "STAIR_ES_INDEX": new})
    assert shell.read_json("ingest", str(PHOTO), "--model", "stair-mini")["written"] == 1
    assert shell.read_json("search", "cat")["hits"][0]["uri"] == PHOTO.as_uri()
    old.client.indices.delete(index=old.name)
    same = CommandRunner(old.environment).read_json("ingest", str(PHOTO), "--model", "stair-mini")
    assert (same["written"], same["alias"]) == (1, old.alias)


def test_later_formats_need_a_newer_version(old: OldIndex) -> None:
    old.create(format_version=INDEX_FORMAT + 1)
    error = old.read_error("search", "cat")
    assert f"has the format {INDEX_FORMAT + 1} of another version" in error.message
    assert "a newer one" in error.remedy


def test_current_format_is_valid(old: OldIndex) -> None:
    old.create(format_version=INDEX_FORMAT)
    assert [hit["id"] for hit in CommandRunner(old.environment).read_json("search", "cat")["hits"]] == ["a"]
