"""The token index by the console script: kills, `--no-token-index`, `--dry-run`, policies, and names that others have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.oracles.token_index_oracle import build_expected_documents, get_token_documents
from support.servers.fault_proxy import Fault, FaultProxy, MaybeResponse, Request, Response, Send
from typer.testing import CliRunner

from stair_es import resources
from stair_es.cli.main import app
from stair_es.errors import AuthenticationFailed, IndexMismatch, ResourceError, StairError, UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg")
POLICY = {"stair_es_policy": 1, "mute": ["tabby"], "cap": {"cat": 0.25}, "rename": {"kitten": "young.cat"}}


@dataclass
class Shell:
    """Commands on one alias."""

    client: OpenSearch
    url: str
    alias: str
    tmp_path: Path
    photos: list[str] = field(default_factory=lambda: [str(PHOTOS / name) for name in NAMES])

    @property
    def environment(self) -> dict[str, str]:
        return {"STAIR_ES_URL": self.url, "STAIR_ES_INDEX": self.alias, "STAIR_ES_HOME": str(self.tmp_path)}

    def ingest(self, *options: str) -> Any:  # noqa: ANN401  JSON
        return self.json("ingest", *self.photos, "--model", "stair-mini", *options)

    def json(self, *arguments: str) -> Any:  # noqa: ANN401  JSON
        return CommandRunner(self.environment).read_json(*arguments)

    def error(self, *arguments: str) -> StairError:
        return CommandRunner(self.environment).read_error(*arguments)

    def targets(self, alias: str) -> list[str]:
        return sorted(self.client.indices.get_alias(name=alias)) if self.client.indices.exists_alias(name=alias) else []

    def indices(self) -> list[str]:
        return sorted(self.client.indices.get(index=f"{self.alias}*", params={"expand_wildcards": "all"}))

    def check(self, images: int = len(NAMES)) -> None:
        [index] = self.targets(self.alias)
        assert self.targets(f"{self.alias}-tokens") == [f"{index}.tokens"]
        self.check_tokens_of(index, images)

    def check_tokens_of(self, index: str, images: int = len(NAMES)) -> None:
        found = get_token_documents(self.client, f"{index}.tokens")
        assert found == build_expected_documents(self.client, index)
        assert len({document["image_id"] for document in found.values()}) == images

    def get_documents(self, index: str) -> dict[str, dict[str, Any]]:
        return get_token_documents(self.client, f"{index}.tokens")


@pytest.fixture
def shell(engine: OpenSearch, rank_features_url: str, engine_index: str, tmp_path: Path) -> Shell:
    return Shell(engine, rank_features_url, engine_index, tmp_path)


@pytest.fixture
def policy_shell(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> Shell:
    """On the engine that has scripts."""
    return Shell(client, node_url, index_name, tmp_path)


def is_words(request: Request) -> bool:
    """Whether it writes words."""
    return request.is_bulk and ".tokens.write/" in request.path


@pytest.mark.parametrize("then", ["lost", "stored"])
def test_next_run_repairs_missing_token_documents(shell: Shell, then: str) -> None:
    reached, killed = threading.Event(), threading.Event()

    def hold(request: Request, send: Send) -> MaybeResponse:
        if then == "stored":
            half = request.body.splitlines(keepends=True)[:20]
            send(Request(method=request.method, path=request.path, headers=request.headers, body=b"".join(half)))
        reached.set()
        killed.wait(60)
        return None

    def plan(request: Request) -> Fault | None:
        return Fault("held", hold) if is_words(request) else None

    with FaultProxy(shell.url, plan) as proxy:
        command = [str(Path(sys.executable).with_name("stair-es")), "ingest", *shell.photos, "--model", "stair-mini"]
        environment = os.environ | shell.environment | {"STAIR_ES_URL": proxy.url}
        with subprocess.Popen(
            [*command, "--token-index"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            try:
                assert reached.wait(60)
                running.kill()
            finally:
                running.kill()
                killed.set()
    assert running.returncode == -9
    [index] = shell.targets(shell.alias)
    assert not shell.targets(f"{shell.alias}-tokens")
    shell.client.indices.refresh(index=f"{index}.tokens")
    assert len(shell.get_documents(index)) == (10 if then == "stored" else 0)
    report = shell.ingest()  # that there is to be one, the index has
    assert (report["written"], report["token_index"]["images"]) == (0, 3)
    shell.check()


def test_no_token_index_deletes_only_our_indices(shell: Shell) -> None:
    shell.ingest("--token-index", "--retain-indices", "1")
    shell.ingest("--thumbnail-px", "0")
    shell.ingest("--thumbnail-px", "32", "--no-swap")
    theirs = f"{shell.alias}-theirs.tokens"
    shell.client.indices.create(index=theirs)
    assert sum(name.endswith(".tokens") for name in shell.indices()) == 4
    report = shell.ingest("--thumbnail-px", "0", "--no-token-index")
    assert report["token_index"] is None
    assert [name for name in shell.indices() if name.endswith(".tokens")] == [theirs]
    assert not shell.targets(f"{shell.alias}-tokens")
    assert shell.ingest("--thumbnail-px", "0")["token_index"] is None
    assert shell.ingest("--thumbnail-px", "0", "--no-token-index")["token_index"] is None
    shell.ingest("--thumbnail-px", "0", "--token-index")
    shell.check()


def test_a_dry_run_reports_the_plan_for_the_token_index_and_changes_nothing(shell: Shell) -> None:
    assert shell.ingest("--dry-run", "--token-index")["token_index"] == {"index": None, "action": "create"}
    assert shell.ingest("--dry-run")["token_index"] is None
    assert shell.ingest("--dry-run", "--no-token-index")["token_index"] is None
    assert shell.indices() == []
    index = shell.ingest()["index"]
    token_index = f"{index}.tokens"
    assert shell.ingest("--dry-run", "--token-index")["token_index"] == {"index": token_index, "action": "create"}
    assert shell.indices() == [index]
    shell.ingest("--token-index")
    before = shell.get_documents(index)
    shell.client.update(index=index, id=next(iter(before.values()))["image_id"], body={"doc": {"caption": "new"}})
    assert shell.ingest("--dry-run")["token_index"] == {"index": token_index, "action": "update"}
    assert shell.ingest("--dry-run", "--no-token-index")["token_index"] == {"index": token_index, "action": "delete"}
    assert shell.ingest("--dry-run", "--thumbnail-px", "0")["token_index"] == {"index": None, "action": "create"}
    assert shell.indices() == [index, token_index]
    assert shell.get_documents(index) == before
    output = (
        CliRunner().invoke(app, ["ingest", *shell.photos, "--model", "stair-mini", "--dry-run"], env=shell.environment).output
    )
    assert f"token index {token_index}: would be updated" in output


def test_a_name_in_use_by_others_is_reported_before_any_work(shell: Shell) -> None:
    taken = f"{shell.alias}-tokens"
    ingest = ("ingest", *shell.photos, "--model", "stair-mini")
    shell.client.indices.create(index=taken)
    for more in ((), ("--dry-run",)):
        error = shell.error(*ingest, "--token-index", *more)
        assert isinstance(error, IndexMismatch)
        assert f"{taken!r}: another index has that name" in error.message
        assert "--no-token-index" in error.remedy
        assert shell.indices() == [taken]
    assert shell.ingest()["token_index"] is None  # who doesn't ask for it isn't troubled
    shell.client.indices.delete(index=taken)

    photos, other = shell.photos, shell.json("ingest", *shell.photos, "--model", "stair-mini", "--index", taken)["index"]
    error = shell.error("ingest", *photos, "--model", "stair-mini", "--token-index")
    assert f"that alias points to {other}" in error.message
    shell.client.indices.delete(index=other)

    index = shell.ingest("--token-index")["index"]
    name = f"{index}.tokens"
    for command in ("ingest", *photos, "--model", "stair-mini"), ("policy", "show"), ("search", "cat", "--model", "stair-mini"):
        assert isinstance(shell.error(*command, "--index", taken), IndexMismatch)
    assert shell.targets(taken) == [name]
    shell.check()


def test_index_with_a_token_index_name_is_unchanged(shell: Shell) -> None:
    index = shell.ingest()["index"]
    shell.client.indices.create(index=f"{index}.tokens", body={"mappings": {"_meta": {"stair_es": {"alias": shell.alias}}}})
    error = shell.error("ingest", *shell.photos, "--model", "stair-mini", "--token-index")
    assert isinstance(error, IndexMismatch)
    assert "another index has that name" in error.message
    assert shell.ingest()["token_index"] is None
    shell.ingest("--no-token-index")
    assert shell.indices() == [index, f"{index}.tokens"]


def test_another_sink_has_none(shell: Shell) -> None:
    error = shell.error("ingest", *shell.photos, "--sink", "other:a=b", "--token-index")
    assert isinstance(error, UsageError)
    assert "no token index" in error.message


def test_custom_mappings(shell: Shell) -> None:
    body = resources.load_json_resource("mappings", "image")
    fields = body["mappings"]["properties"]
    (file := shell.tmp_path / "mapping.json").write_text(
        json.dumps(
            {"mappings": {**body["mappings"], "properties": {**fields, "sha256": {"type": "keyword", "doc_values": False}}}}
        )
    )
    error = shell.error("ingest", *shell.photos, "--model", "stair-mini", "--mapping", str(file), "--token-index")
    assert isinstance(error, IndexMismatch | ResourceError)
    assert "no doc values for sha256" in error.message
    assert shell.indices() == []
    bare = {name: fields[name] for name in ("tokens", "uri", "source", "sha256")}
    settings = {"index": {"number_of_shards": 3}}
    file.write_text(json.dumps({"settings": settings, "mappings": {"dynamic": False, "properties": bare}}))
    index = shell.ingest("--mapping", str(file), "--token-index")["index"]
    shell.check()
    assert shell.ingest("--mapping", str(file))["token_index"]["written"] == 0
    found = shell.client.indices.get_settings(index=f"{index}.tokens", params={"flat_settings": "true"})
    assert found[f"{index}.tokens"]["settings"]["index.number_of_shards"] == "3"


def test_ids_by_content_follow_an_image_that_has_moved(shell: Shell) -> None:
    folder = shell.tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes((PHOTOS / name).read_bytes())
    (folder / "again.jpg").write_bytes((PHOTOS / NAMES[0]).read_bytes())
    for file in folder.iterdir():
        os.utime(file, (946684800, 946684800))  # of files changed a moment ago no version is stored: they'd be written again
    shell.photos = [str(folder)]
    shell.ingest("--token-index", "--document-id", "content-hash")
    shell.check()
    kept = Counter(document["uri"] for document in shell.get_documents(shell.targets(shell.alias)[0]).values())
    [double] = [folder / name for name in ("again.jpg", NAMES[0]) if (folder / name).as_uri() in kept]
    double.unlink()
    assert shell.ingest("--document-id", "content-hash", "--resync")["token_index"]["written"] == kept[double.as_uri()]
    shell.check()


def test_texts_have_tokens_too(shell: Shell) -> None:
    (file := shell.tmp_path / "captions.txt").write_text("a cat on a sofa\na red bus\n")
    arguments = ("ingest-texts", str(file), "--model", "stair-mini", "--index", shell.alias)
    index = shell.json(*arguments, "--token-index")["index"]
    shell.check(2)
    assert {document["caption"] for document in shell.get_documents(index).values()} == {"a cat on a sofa", "a red bus"}
    file.write_text("a cat on a sofa\na blue bus\n")
    assert shell.json(*arguments)["token_index"]["images"] == 3
    shell.check(3)


def test_tokens_follow_policies_and_rollbacks(policy_shell: Shell) -> None:
    shell = policy_shell
    index = shell.ingest("--token-index")["index"]
    build = shell.ingest("--thumbnail-px", "0", "--no-swap")["index"]
    before = _drop_versions(shell.get_documents(index))
    cats = [document["weight"] for document in shell.get_documents(index).values() if document["token"] == "cat"]
    assert max(cats) > 0.25
    (file := shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    done = shell.json("policy", "apply", str(file))
    assert [(one["index"], one["token_index"]["index"]) for one in done] == [(name, f"{name}.tokens") for name in (index, build)]
    assert all(one["token_index"]["written"] > 0 and one["token_index"]["failed"] == 0 for one in done)
    after = shell.get_documents(index)
    assert not {"tabby", "kitten"} & {document["token"] for document in after.values()}
    assert all(document["weight"] <= 0.25 for document in after.values() if document["token"] == "cat")
    shell.check()
    shell.check_tokens_of(build)
    assert shell.json("policy", "apply")[0]["token_index"]["written"] == 0
    assert shell.json("policy", "show")[0]["index"] == index
    done = shell.json("policy", "rollback")
    assert [one["token_index"]["images"] for one in done] == [3, 3]
    assert _drop_versions(shell.get_documents(index)) == before
    shell.check()
    shell.check_tokens_of(build)


def test_next_run_applies_a_missed_policy_to_tokens(policy_shell: Shell) -> None:
    shell = policy_shell
    index = shell.ingest("--token-index")["index"]
    before = shell.get_documents(index)
    (file := shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    forbidden = Fault("403", lambda request, send: Response.json({"error": "forbidden"}, 403))
    with FaultProxy(shell.url, lambda request: forbidden if is_words(request) else None) as proxy:
        done = CliRunner().invoke(app, ["policy", "apply", str(file)], env=shell.environment | {"STAIR_ES_URL": proxy.url})
    assert isinstance(done.exception, AuthenticationFailed)
    assert f"token index {index}.tokens: not complete, the next run resumes it" in done.stderr
    assert shell.get_documents(index) == before
    assert shell.json("policy", "show")[0]["digest"]
    assert shell.ingest()["token_index"]["written"] > 0
    shell.check()


def test_emptied_images_get_their_tokens_back(policy_shell: Shell) -> None:
    shell = policy_shell
    shell.photos = shell.photos[:1]
    index = shell.ingest("--token-index")["index"]
    before = _drop_versions(shell.get_documents(index))
    words = [key.replace("%2E", ".") for key in shell.client.search(index=index)["hits"]["hits"][0]["_source"]["tokens"]]
    (file := shell.tmp_path / "p.json").write_text(json.dumps({"stair_es_policy": 1, "mute": words}))
    [done] = shell.json("policy", "apply", str(file))
    assert (done["token_index"]["deleted"], done["token_index"]["images"]) == (len(before), 0)
    assert shell.get_documents(index) == {}
    assert shell.ingest()["token_index"] == {"index": f"{index}.tokens", "written": 0, "deleted": 0, "failed": 0, "images": 0}
    shell.json("policy", "rollback")
    assert _drop_versions(shell.get_documents(index)) == before


def test_policies_report_a_missing_token_index(policy_shell: Shell) -> None:
    policy_shell.ingest()
    (file := policy_shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    assert [one["token_index"] for one in policy_shell.json("policy", "apply", str(file))] == [None]
    assert len(policy_shell.indices()) == 1


def _drop_versions(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What does not tell how often the image's document was written."""
    return {
        id_: {name: value for name, value in document.items() if name != "source_version"} for id_, document in documents.items()
    }
