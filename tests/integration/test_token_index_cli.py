"""The token index by the console script: kills, `--no-token-index`, `--dry-run`, policies, and names that others have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.oracles.token_index_oracle import TokenIndexChecks, get_token_documents, is_token_write
from support.plugin_metadata import install_colors_plugin
from support.servers.fault_proxy import Fault, FaultProxy, MaybeResponse, Request, Response, Send

from stair_es import resources
from stair_es.errors import AuthenticationFailed, StairError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg")
ON_OPENSEARCH = pytest.mark.parametrize("rank_features_url", ["node_url"], indirect=True, ids=["opensearch"])
"""For what doesn't depend on the engine; policies need one that has scripts."""
POLICY = {"stair_es_policy": 1, "mute": ["pink"], "cap": {"gray": 0.25}, "rename": {"red": "dark.red"}}


@dataclass
class Shell(TokenIndexChecks):
    """Commands on one alias."""

    client: OpenSearch
    url: str
    alias: str
    tmp_path: Path
    model: str = "colors"
    photos: list[str] = field(default_factory=lambda: [str(PHOTOS / name) for name in NAMES])

    @property
    def environment(self) -> dict[str, str]:
        return {"STAIR_ES_URL": self.url, "STAIR_ES_INDEX": self.alias, "STAIR_ES_HOME": str(self.tmp_path)}

    @property
    def command(self) -> CommandRunner:
        return CommandRunner(self.environment)

    def ingest_photos(self, *options: str) -> Any:  # noqa: ANN401  JSON
        return self.read_json("ingest", *self.photos, "--model", self.model, *options)

    def read_json(self, *arguments: str) -> Any:  # noqa: ANN401  JSON
        return self.command.read_json(*arguments)

    def read_error(self, *arguments: str) -> StairError:
        return self.command.read_error(*arguments)

    def get_documents(self, index: str) -> dict[str, dict[str, Any]]:
        return get_token_documents(self.client, f"{index}.tokens")


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin, for the commands of this process."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture
def shell(engine: OpenSearch, rank_features_url: str, engine_index: str, tmp_path: Path) -> Shell:
    return Shell(engine, rank_features_url, engine_index, tmp_path)


@ON_OPENSEARCH
@pytest.mark.parametrize("outcome", ["lost", "stored"])
def test_next_run_repairs_missing_token_documents(shell: Shell, outcome: str) -> None:
    shell.model = "stair-mini"
    is_reached, is_killed = threading.Event(), threading.Event()

    def hold_request(request: Request, send: Send) -> MaybeResponse:
        if outcome == "stored":
            half = request.body.splitlines(keepends=True)[:20]
            send(Request(method=request.method, path=request.path, headers=request.headers, body=b"".join(half)))
        is_reached.set()
        is_killed.wait(60)
        return None

    def plan_fault(request: Request) -> Fault | None:
        return Fault("held", hold_request) if is_token_write(request) else None

    with FaultProxy(shell.url, plan_fault) as proxy:
        command = [str(Path(sys.executable).with_name("stair-es")), "ingest", *shell.photos, "--model", "stair-mini"]
        environment = os.environ | shell.environment | {"STAIR_ES_URL": proxy.url}
        with subprocess.Popen(
            [*command, "--token-index"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            try:
                assert is_reached.wait(60)
                running.kill()
            finally:
                running.kill()
                is_killed.set()
    assert running.returncode == -9
    [index] = shell.list_targets(shell.alias)
    assert not shell.list_targets(f"{shell.alias}-tokens")
    shell.client.indices.refresh(index=f"{index}.tokens")
    assert len(shell.get_documents(index)) == (10 if outcome == "stored" else 0)
    report = shell.ingest_photos()  # that there is to be one, the index has
    assert (report["written"], report["token_index"]["images"]) == (0, 3)
    shell.check_tokens(len(NAMES))


@ON_OPENSEARCH
def test_no_token_index_deletes_only_our_indices(shell: Shell) -> None:
    shell.ingest_photos("--token-index", "--retain-indices", "1")
    shell.ingest_photos("--thumbnail-px", "0")
    shell.ingest_photos("--thumbnail-px", "32", "--no-swap")
    foreign = f"{shell.alias}-theirs.tokens"
    shell.client.indices.create(index=foreign)
    assert sum(name.endswith(".tokens") for name in shell.list_indices()) == 4
    report = shell.ingest_photos("--thumbnail-px", "0", "--no-token-index")
    assert report["token_index"] is None
    assert [name for name in shell.list_indices() if name.endswith(".tokens")] == [foreign]
    assert not shell.list_targets(f"{shell.alias}-tokens")
    assert shell.ingest_photos("--thumbnail-px", "0")["token_index"] is None
    assert shell.ingest_photos("--thumbnail-px", "0", "--no-token-index")["token_index"] is None
    shell.ingest_photos("--thumbnail-px", "0", "--token-index")
    shell.check_tokens(len(NAMES))


@ON_OPENSEARCH
def test_a_dry_run_plans_the_token_index_and_changes_nothing(shell: Shell) -> None:
    assert shell.ingest_photos("--dry-run", "--token-index")["token_index"] == {"index": None, "action": "create"}
    assert shell.ingest_photos("--dry-run")["token_index"] is None
    assert shell.ingest_photos("--dry-run", "--no-token-index")["token_index"] is None
    assert shell.list_indices() == []
    index = shell.ingest_photos()["index"]
    token_index = f"{index}.tokens"
    assert shell.ingest_photos("--dry-run", "--token-index")["token_index"] == {"index": token_index, "action": "create"}
    assert shell.list_indices() == [index]
    shell.ingest_photos("--token-index")
    before = shell.get_documents(index)
    shell.client.update(index=index, id=next(iter(before.values()))["image_id"], body={"doc": {"caption": "new"}})
    assert shell.ingest_photos("--dry-run")["token_index"] == {"index": token_index, "action": "update"}
    assert shell.ingest_photos("--dry-run", "--no-token-index")["token_index"] == {"index": token_index, "action": "delete"}
    assert shell.ingest_photos("--dry-run", "--thumbnail-px", "0")["token_index"] == {"index": None, "action": "create"}
    assert shell.list_indices() == [index, token_index]
    assert shell.get_documents(index) == before
    assert token_index in shell.command.run("ingest", *shell.photos, "--model", "colors", "--dry-run").output


@ON_OPENSEARCH
def test_a_name_in_use_by_others_is_reported_before_any_work(shell: Shell) -> None:
    taken = f"{shell.alias}-tokens"
    ingest = ("ingest", *shell.photos, "--model", "colors")
    shell.client.indices.create(index=taken)
    for more in ((), ("--dry-run",)):
        error = shell.read_error(*ingest, "--token-index", *more)
        assert (error.code, repr(taken) in error.message) == ("token-index-name-taken", True)
        assert "--no-token-index" in error.remedy
        assert shell.list_indices() == [taken]
    assert shell.ingest_photos()["token_index"] is None  # who doesn't ask for it isn't troubled
    shell.client.indices.delete(index=taken)

    photos, other = shell.photos, shell.read_json("ingest", *shell.photos, "--model", "colors", "--index", taken)["index"]
    error = shell.read_error("ingest", *photos, "--model", "colors", "--token-index")
    assert (error.code, other in error.message) == ("token-index-name-taken", True)
    shell.client.indices.delete(index=other)

    index = shell.ingest_photos("--token-index")["index"]
    name = f"{index}.tokens"
    for command, code in (
        (("ingest", *photos, "--model", "colors"), "alias-of-token-index"),
        (("policy", "show"), "foreign-index"),
        (("search", "gray", "--model", "colors"), "token-index-given"),
    ):
        assert shell.read_error(*command, "--index", taken).code == code
    assert shell.list_targets(taken) == [name]
    shell.check_tokens(len(NAMES))


@ON_OPENSEARCH
def test_index_with_a_token_index_name_is_unchanged(shell: Shell) -> None:
    index = shell.ingest_photos()["index"]
    shell.client.indices.create(index=f"{index}.tokens", body={"mappings": {"_meta": {"stair_es": {"alias": shell.alias}}}})
    error = shell.read_error("ingest", *shell.photos, "--model", "colors", "--token-index")
    assert error.code == "token-index-name-taken"
    assert shell.ingest_photos()["token_index"] is None
    shell.ingest_photos("--no-token-index")
    assert shell.list_indices() == [index, f"{index}.tokens"]


@ON_OPENSEARCH
def test_another_sink_has_none(shell: Shell) -> None:
    error = shell.read_error("ingest", *shell.photos, "--sink", "other:a=b", "--token-index")
    assert error.code == "sink-without-token-index"


def test_custom_mappings(shell: Shell) -> None:
    body = resources.load_json_resource("mappings", "image")
    fields = body["mappings"]["properties"]
    (file := shell.tmp_path / "mapping.json").write_text(
        json.dumps(
            {"mappings": {**body["mappings"], "properties": {**fields, "sha256": {"type": "keyword", "doc_values": False}}}}
        )
    )
    error = shell.read_error("ingest", *shell.photos, "--model", "colors", "--mapping", str(file), "--token-index")
    assert (error.code, "sha256" in error.message) == ("no-doc-values", True)
    assert shell.list_indices() == []
    bare = {name: fields[name] for name in ("tokens", "uri", "source", "sha256")}
    settings = {"index": {"number_of_shards": 3}}
    file.write_text(json.dumps({"settings": settings, "mappings": {"dynamic": False, "properties": bare}}))
    index = shell.ingest_photos("--mapping", str(file), "--token-index")["index"]
    shell.check_tokens(len(NAMES))
    assert shell.ingest_photos("--mapping", str(file))["token_index"]["written"] == 0
    answer = shell.client.indices.get_settings(index=f"{index}.tokens", params={"flat_settings": "true"})
    assert answer[f"{index}.tokens"]["settings"]["index.number_of_shards"] == "3"


@ON_OPENSEARCH
def test_ids_by_content_follow_an_image_that_has_moved(shell: Shell) -> None:
    folder = shell.tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes((PHOTOS / name).read_bytes())
    (folder / "again.jpg").write_bytes((PHOTOS / NAMES[0]).read_bytes())
    for file in folder.iterdir():
        os.utime(file, (946684800, 946684800))  # of files changed a moment ago no version is stored: they'd be written again
    shell.photos = [str(folder)]
    shell.ingest_photos("--token-index", "--document-id", "content-hash")
    shell.check_tokens(len(NAMES))
    kept = Counter(document["uri"] for document in shell.get_documents(shell.list_targets(shell.alias)[0]).values())
    [double] = [folder / name for name in ("again.jpg", NAMES[0]) if (folder / name).as_uri() in kept]
    double.unlink()
    assert shell.ingest_photos("--document-id", "content-hash", "--resync")["token_index"]["written"] == kept[double.as_uri()]
    shell.check_tokens(len(NAMES))


@ON_OPENSEARCH
def test_texts_have_tokens_too(shell: Shell) -> None:
    captions = ["a gray cat on a sofa", "a red bus"]
    (file := shell.tmp_path / "captions.txt").write_text("\n".join(captions))
    arguments = ("ingest-texts", str(file), "--model", "colors", "--index", shell.alias)
    index = shell.read_json(*arguments, "--token-index")["index"]
    shell.check_tokens(2)
    assert {document["caption"] for document in shell.get_documents(index).values()} == set(captions)
    file.write_text("\n".join([captions[0], "a blue bus"]))
    assert shell.read_json(*arguments)["token_index"]["images"] == 3
    shell.check_tokens(3)


@ON_OPENSEARCH
def test_tokens_follow_policies_and_rollbacks(shell: Shell) -> None:
    index = shell.ingest_photos("--token-index")["index"]
    build = shell.ingest_photos("--thumbnail-px", "0", "--no-swap")["index"]
    before = drop_versions(shell.get_documents(index))
    grays = [document["weight"] for document in shell.get_documents(index).values() if document["token"] == "gray"]
    assert max(grays) > 0.25
    (file := shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    results = shell.read_json("policy", "apply", str(file))
    assert [(one["index"], one["token_index"]["index"]) for one in results] == [
        (name, f"{name}.tokens") for name in (index, build)
    ]
    assert all(one["token_index"]["written"] > 0 and one["token_index"]["failed"] == 0 for one in results)
    after = shell.get_documents(index)
    assert not {"pink", "red"} & {document["token"] for document in after.values()}
    assert all(document["weight"] <= 0.25 for document in after.values() if document["token"] == "gray")
    shell.check_tokens(len(NAMES))
    shell.check_tokens_of(build, len(NAMES))
    assert shell.read_json("policy", "apply")[0]["token_index"]["written"] == 0
    assert shell.read_json("policy", "show")[0]["index"] == index
    results = shell.read_json("policy", "rollback")
    assert [one["token_index"]["images"] for one in results] == [3, 3]
    assert drop_versions(shell.get_documents(index)) == before
    shell.check_tokens(len(NAMES))
    shell.check_tokens_of(build, len(NAMES))


@ON_OPENSEARCH
def test_next_run_applies_a_missed_policy_to_tokens(shell: Shell) -> None:
    index = shell.ingest_photos("--token-index")["index"]
    before = shell.get_documents(index)
    (file := shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    forbidden = Fault("403", lambda request, send: Response.json({"error": "forbidden"}, 403))
    with FaultProxy(shell.url, lambda request: forbidden if is_token_write(request) else None) as proxy:
        result = shell.command.run("policy", "apply", file, STAIR_ES_URL=proxy.url)
    assert isinstance(result.exception, AuthenticationFailed)
    assert f"{index}.tokens" in result.stderr
    assert shell.get_documents(index) == before
    assert shell.read_json("policy", "show")[0]["digest"]
    assert shell.ingest_photos()["token_index"]["written"] > 0
    shell.check_tokens(len(NAMES))


@ON_OPENSEARCH
def test_emptied_images_get_their_tokens_back(shell: Shell) -> None:
    shell.photos = shell.photos[:1]
    index = shell.ingest_photos("--token-index")["index"]
    before = drop_versions(shell.get_documents(index))
    words = [key.replace("%2E", ".") for key in shell.client.search(index=index)["hits"]["hits"][0]["_source"]["tokens"]]
    (file := shell.tmp_path / "p.json").write_text(json.dumps({"stair_es_policy": 1, "mute": words}))
    [result] = shell.read_json("policy", "apply", str(file))
    assert (result["token_index"]["deleted"], result["token_index"]["images"]) == (len(before), 0)
    assert shell.get_documents(index) == {}
    assert shell.ingest_photos()["token_index"] == {
        "index": f"{index}.tokens",
        "written": 0,
        "deleted": 0,
        "failed": 0,
        "images": 0,
    }
    shell.read_json("policy", "rollback")
    assert drop_versions(shell.get_documents(index)) == before


@ON_OPENSEARCH
def test_policies_report_a_missing_token_index(shell: Shell) -> None:
    shell.ingest_photos()
    (file := shell.tmp_path / "p.json").write_text(json.dumps(POLICY))
    assert [each["token_index"] for each in shell.read_json("policy", "apply", str(file))] == [None]
    assert len(shell.list_indices()) == 1


def drop_versions(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the documents without what tells how often the image's document was written."""
    return {
        id_: {name: value for name, value in document.items() if name != "source_version"} for id_, document in documents.items()
    }
