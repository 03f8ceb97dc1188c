"""OpenSearch with the security plugin, Elasticsearch with its security, and the documented roles: each right is needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
import trustme
from support.errors import expect_error
from support.messages import forward_messages
from support.nodes.documented_roles import PAGE, list_rights
from support.nodes.elasticsearch_nodes import SecuredElasticsearch, build_secured_elasticsearch
from support.nodes.opensearch_nodes import SecuredOpenSearch, build_secured_node
from support.nodes.secured_node import SecuredNode
from support.nodes.secured_users import PASSWORD, ROLES, SecuredCluster
from support.plugin_metadata import install_colors_plugin
from support.polling import poll_until
from support.servers.hostile_http_server import serve_encoder, serve_page
from typer.testing import Result

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.doctor.result import CheckResult
from stair_es.doctor.run import CheckContext, check_cluster
from stair_es.errors import AuthenticationFailed, ClusterError, IndexMismatch
from stair_es.search.index_cache import create_state_cache
from stair_es.search.index_encoder import load_query_encoder
from stair_es.search.searcher import create_query_runner
from stair_es.token_policy import TokenPolicy
from stair_es.web.encoding.service import follow_index

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
COLORS = ("--model", "colors")


@pytest.fixture(scope="module")
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


on_opensearch = pytest.mark.parametrize("secured_cluster", ["opensearch"], indirect=True)


def build_row(engine: str, *values: object) -> Any:  # noqa: ANN401  a private class of pytest
    """Build the parameters of a test; its cluster is the first."""
    marks = [pytest.mark.nightly("the security of Elasticsearch")] if engine == "elasticsearch" else []
    return pytest.param(engine, *values, marks=marks)


on_elasticsearch = pytest.mark.parametrize("secured_cluster", [build_row("elasticsearch")], indirect=True)


@pytest.fixture(scope="module")
def start_cluster(tmp_path_factory: pytest.TempPathFactory, colors_model: None) -> Iterator[Callable[[str], SecuredCluster]]:
    """Returns the cluster of an engine; the first call starts it, and it stays until the last test of this file."""
    with ExitStack() as running:

        @cache
        def start(engine: Literal["opensearch", "elasticsearch"]) -> SecuredCluster:
            folder = tmp_path_factory.mktemp(engine)
            copy_photos(folder / "photos", "tabby-cat.jpg", "dairy-cow.jpg")
            (folder / "policy.json").write_text(json.dumps({"stair_es_policy": 1, "mute": ["black"], "cap": {"gray": 0.01}}))
            (folder / "other.json").write_text(json.dumps({"stair_es_policy": 1, "mute": ["gray"]}))
            node = _NODES[engine](folder / "node")
            running.enter_context(node)
            cluster = SecuredCluster(node=node, engine=engine, folder=folder)
            cluster.put_users()
            return cluster

        yield start


_NODES: Mapping[str, Callable[[Path], SecuredNode]] = {
    "opensearch": build_secured_node,
    "elasticsearch": build_secured_elasticsearch,
}


@pytest.fixture(params=[build_row(engine) for engine in _NODES])
def secured_cluster(request: pytest.FixtureRequest, start_cluster: Callable[[str], SecuredCluster]) -> SecuredCluster:
    return start_cluster(request.param)


@pytest.fixture(scope="module")
def fill_cluster() -> Callable[[SecuredCluster], None]:
    """Writes two photos into `photos`, and their token index, once."""

    @cache
    def fill(cluster: SecuredCluster) -> None:
        cluster.read_output("photos_writer", "ingest", cluster.folder / "photos", *COLORS, "--token-index")

    return fill


@pytest.fixture
def photo_cluster(secured_cluster: SecuredCluster, fill_cluster: Callable[[SecuredCluster], None]) -> SecuredCluster:
    """With two photos in `photos`, and their token index."""
    fill_cluster(secured_cluster)
    return secured_cluster


def read_json(secured_cluster: SecuredCluster, user: str | Mapping[str, str], *arguments: object, index: str = "photos") -> Any:  # noqa: ANN401  JSON
    """Run a command with `--json` as a user, and return what its last line holds."""
    return json.loads(secured_cluster.read_output(user, *arguments, "--json", index=index).splitlines()[-1])


def copy_photos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy(PHOTOS / name, folder)
    return folder


def test_the_life_of_an_index(secured_cluster: SecuredCluster, tmp_path: Path) -> None:
    """From the first ingest to the second model, without a request that leaves `photos*`."""
    table = tmp_path / "photos.jsonl"

    def ingest_photos(names: Sequence[str], *options: object) -> dict[str, Any]:
        rows = [{"image": str(PHOTOS / f"{name}.jpg"), "caption": name, "price": 2.5} for name in names]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        mapping = ("--image-column", "image", "--field", "caption=caption,price=price")
        report: dict[str, Any] = read_json(
            secured_cluster, "photos_writer", "ingest", table, *mapping, *options, index="photos-life"
        )
        return report

    both = ["tabby-cat", "dairy-cow"]
    assert ingest_photos(both, "--model", "stair-mini", "--token-index", "--policy", secured_cluster.policy)["written"] == 2
    assert ingest_photos(both, "--model", "stair-mini")["unchanged"] == 2
    [hit] = read_json(secured_cluster, "photos_reader", "search", "a cat", "-k", "1", index="photos-life")["hits"]
    assert hit["uri"].endswith("tabby-cat.jpg")
    assert ingest_photos(both[:1], "--model", "stair-mini", "--resync")["removed"] == 1
    [before] = secured_cluster.node.request("GET", "/photos-life/_alias/photos-life")
    assert ingest_photos(both, *COLORS, "--retain-indices", "0")["written"] == 2
    [after] = secured_cluster.node.request("GET", "/photos-life/_alias/photos-life")
    assert ("stair-mini" in before, "colors" in after) == (True, True)
    assert list(secured_cluster.node.request("GET", "/photos-life-tokens/_alias")) == [f"{after}.tokens"]
    assert before not in secured_cluster.node.request("GET", "/photos-life*")


def test_texts_are_written_by_the_same_role(photo_cluster: SecuredCluster, tmp_path: Path) -> None:
    (texts := tmp_path / "texts.txt").write_text("a gray cat\na black and white cow\n")
    report = read_json(photo_cluster, "photos_writer", "ingest-texts", texts, *COLORS, "--index", "photos-texts")
    assert report["written"] == 2


def test_the_writer_forgets_an_image(secured_cluster: SecuredCluster, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", "tabby-cat.jpg", "dairy-cow.jpg")
    write = partial(read_json, secured_cluster, "photos_writer", index="photos-forget")
    write("ingest", folder, *COLORS, "--token-index")
    receipt = write("forget", folder / "tabby-cat.jpg")
    assert (len(receipt["images"][0]["documents"]), "may not read" in receipt["not_reached"][0]["detail"]) == (2, True)
    assert write("ingest", folder, *COLORS)["forgotten"] == 1
    write("forget", "--again")
    write("forget", folder / "tabby-cat.jpg", "--undo")
    assert write("ingest", folder, *COLORS)["written"] == 1


def test_a_reader_searches(photo_cluster: SecuredCluster) -> None:
    read = partial(read_json, photo_cluster, "photos_reader")
    first = read("search", "gray", "-k", "1")
    [hit] = first["hits"]
    [other] = read("search", "gray", "-k", "1", "--after", json.dumps(first["after"]))["hits"]
    assert hit["uri"] != other["uri"]
    assert read("search", "--image", str(PHOTOS / "tabby-cat.jpg"), "-k", "1")["hits"][0]["uri"].endswith("tabby-cat.jpg")
    assert read("search", "gray", "--filter", "width:>100000")["hits"] == []
    for command in (["explain", hit["uri"], "gray"], ["inspect", hit["uri"]], ["words"], ["query", "gray"]):
        read(*command)


EXPORT = ["dashboards", "export", "--output", "board.ndjson"]
READING = [
    ["search", "gray", "--exclude", "black", "--explain-engine"],
    ["coverage", "log.txt"],
    ["export-xmp", "--out", "sidecars"],
]
WRITING = [
    ["evaluate", "labels"],
    ["words", "--labels"],
    ["policy", "show"],
]
ANNOTATE = ["annotate", "--index", "photos-own", "--image-field", "picture", "--image-base", "photos", *COLORS]
SUFFICIENT = [
    *((engine, "photos_reader", command) for engine in ROLES for command in READING),
    *((engine, "photos_writer", command) for engine in ROLES for command in WRITING),
    ("opensearch", "photos_writer", ANNOTATE),  # the distribution of Elasticsearch lacks painless
    ("opensearch", "photos_dashboards", EXPORT),
    ("elasticsearch", "photos_reader", EXPORT),
]


@pytest.mark.parametrize(
    ("secured_cluster", "role", "command"),
    [build_row(*row) for row in SUFFICIENT],
    indirect=["secured_cluster"],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_the_role_suffices(photo_cluster: SecuredCluster, monkeypatch: pytest.MonkeyPatch, role: str, command: list[str]) -> None:
    monkeypatch.chdir(photo_cluster.folder)
    Path("log.txt").write_text("gray\n")
    Path("labels.csv").write_text("file,label,confidence\ntabby-cat.jpg,pet,0.9\n")
    photo_cluster.node.request("PUT", "/photos-own/_doc/1?refresh=true", {"picture": "tabby-cat.jpg"})
    if command in WRITING:
        photo_cluster.read_output(role, "ingest-labels", "labels.csv", "--keep")
    photo_cluster.read_output(role, *command)


def test_the_encoder_of_the_index_builds_a_query_for_a_reader(photo_cluster: SecuredCluster) -> None:
    with Cluster(photo_cluster.build_connection("photos_reader")) as cluster:
        states = create_state_cache(cluster, "photos", partial(load_query_encoder, index="photos"))
        with serve_encoder(follow_index(states, create_query_runner(cluster, "photos"))) as encoder:
            body = encoder.post("/v1/query", {"text": "gray"}).json
        assert len(cluster.search("photos", body)["hits"]["hits"]) == 2


def test_a_reader_serves_the_page(photo_cluster: SecuredCluster) -> None:
    with serve_page(photo_cluster.build_connection("photos_reader"), "photos") as page:
        [hit, _] = page.post("/api/search", {"text": "gray"}).json["hits"]
        assert page.post("/api/facets", {"text": "gray"}).json["total"] == 2
        assert page.post_image((PHOTOS / "tabby-cat.jpg").read_bytes()).json["tokens"]
        assert len(page.get(f"/api/image/{hit['id']}/neighbors").json["hits"]) == 1
        for target in ("/api/about", f"/api/image/{hit['id']}", f"/{hit['thumbnail']}"):
            assert page.get(target).status == 200, target
        assert page.messages == []


OPEN = '{"wildcard": {"uri": "*/open/*"}}'
"""What the documented role with document-level security permits."""
VISITORS = {"visitor": ["photos_reader_open"], "twofold": ["photos_reader_open", "photos_cats", "photos_near_cats"]}
"""Users with one such role, and with several: the cluster then adds more to the scores of some images than of others."""
SEARCHES = [
    ("a cat",),
    ("a cat", "--min-score", "0.15"),
    ("a cat", "-k", "2", "--after", "start"),
    ("animal", "--sort", "bytes:asc", "-k", "2", "--after", "start"),
    ("cow", "--duplicates"),
    ("a cat", "--explain-engine"),
    ("--image", str(PHOTOS / "tabby-cat.jpg")),
    ("a cat", "--hybrid", "sum", "--caption-weight", "0.1", "--min-score", "0.15"),
    ("a cat", "--hybrid", "rrf"),
    ("a cat +animal^2", "--min-weight", "0.1"),
    ("pizza",),
    ("zebra",),  # that no image carries, whatever the cluster adds
]


@pytest.fixture(scope="module")
def restricted_index(start_cluster: Callable[[str], SecuredCluster]) -> str:
    """An index of stair-mini with captions, half of its images in the folder `open`, and users who see only these."""
    secured_cluster = start_cluster("opensearch")
    index, reader = "photos-restricted", ROLES["opensearch"]["photos_reader_open"]
    [part] = reader["index_permissions"]
    cats = {"photos_cats": "*/open/*cat*", "photos_near_cats": "*/open/k*"}
    clauses = {name: json.dumps({"wildcard": {"uri": pattern}}) for name, pattern in cats.items()}
    fields: dict[str, dict[str, object]] = {
        "photos_blind": {"fls": ["~tokens"]},
        "photos_few_fields": {"fls": ["~caption", "~thumbnail"]},
        "photos_masked": {"masked_fields": ["caption"]},
    }
    parts: dict[str, dict[str, object]] = {**{name: {"dls": clause} for name, clause in clauses.items()}, **fields}
    secured_cluster.node.put_roles(
        {name: {**reader, "index_permissions": [{**part, "dls": "", **more}]} for name, more in parts.items()}
    )
    secured_cluster.node.put_users({**VISITORS, **{name: [name] for name in fields}}, PASSWORD)
    visible_names = ("tabby-cat", "kitten-with-yarn", "two-spaniels", "kingfisher", "dairy-cow")
    rows = []
    for name, folder in [
        *((name, "open") for name in visible_names),
        *((name, "closed") for name in ("dairy-cow", "koala", "hedgehog")),
    ]:
        target = secured_cluster.folder / folder / f"{name}.jpg"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(PHOTOS / target.name, target)
        rows.append({"image": str(target), "caption": f"a {name} like a cat"})
    (table := secured_cluster.folder / "restricted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model", "stair-mini", "--image-column", "image", "--field", "caption=caption"]
    secured_cluster.read_output("photos_writer", "ingest", table, *options, index=index)
    return index


@on_opensearch
@pytest.mark.parametrize("user", VISITORS)
def test_document_level_security_changes_no_score(secured_cluster: SecuredCluster, restricted_index: str, user: str) -> None:
    def read_result(login: str, command: Sequence[str], *options: str) -> dict[str, Any]:
        result: dict[str, Any] = read_json(secured_cluster, login, *command, *options, index=restricted_index)
        return {name: value for name, value in result.items() if name != "took_ms"}

    for arguments in SEARCHES:
        expected = read_result("photos_reader", ["search", *arguments], "--filter", OPEN)
        found = read_result(user, ["search", *arguments])
        assert found == expected, arguments
        if found.get("after"):
            rest = ["--after", json.dumps(found["after"])]
            further = ["search", *(part for part in arguments if part not in ("--after", "start"))]
            assert read_result(user, further, *rest) == read_result("photos_reader", further, *rest, "--filter", OPEN), arguments
    for name in ("dairy-cow", "kingfisher"):
        uri = (secured_cluster.folder / "open" / f"{name}.jpg").as_uri()
        explained = [
            read_result(login, ["explain", uri, "a cat", "-k", "2"], "--min-score", "0.95") for login in (user, "photos_reader")
        ]
        assert explained[0] | {"rank": 0} == explained[1] | {"rank": 0}
        assert explained[0]["score"] is None


@on_opensearch
@pytest.mark.parametrize("user", VISITORS)
def test_the_page_of_a_restricted_user_has_the_same_scores(
    secured_cluster: SecuredCluster, restricted_index: str, user: str
) -> None:
    results = []
    for login, condition in ((user, {}), ("photos_reader", {"filter": "uri:*/open/*"})):
        with serve_page(secured_cluster.build_connection(login), restricted_index) as page:
            searches = [
                page.post("/api/search", {"text": "a cat", "method": method, **condition}).json
                for method in ("words-and-text", "words", "bag", "text")
            ]
            facets = page.post("/api/facets", {"text": "a cat", **condition}).json
            results.append(([{**each, "took_ms": 0} for each in searches], facets))
            assert page.messages == []
    assert results[0] == results[1]
    weak = [[hit["weak"] for hit in search["hits"]] for search in results[0][0][:2]]
    assert weak == [[False] * 5, [False, False, True, True, True]]


@on_opensearch
def test_field_level_security_on_tokens_is_named(secured_cluster: SecuredCluster, restricted_index: str) -> None:
    error = secured_cluster.read_error("photos_blind", "search", "a cat", index=restricted_index)
    assert isinstance(error, IndexMismatch)
    assert ("`tokens`" in error.message, PAGE in error.remedy) == (True, True)
    assert "tabby-cat" in secured_cluster.read_output("photos_few_fields", "search", "a cat", "-k", "1", index=restricted_index)


@on_opensearch
def test_a_masked_field_is_shown_as_its_hash_and_not_searched(secured_cluster: SecuredCluster, restricted_index: str) -> None:
    hits = [
        read_json(secured_cluster, user, "search", "a cat", "--hybrid", form, "-k", "1", index=restricted_index)["hits"][0]
        for user, form in (("photos_reader", "none"), ("photos_masked", "sum"))
    ]
    captions = [hit.pop("caption") for hit in hits]
    assert hits[0] == hits[1]
    assert "cat" in captions[0]
    assert captions[1] not in ("", captions[0])


@on_opensearch
def test_policies_are_planned_applied_and_rolled_back(photo_cluster: SecuredCluster) -> None:
    run_policy = partial(read_json, photo_cluster, "photos_policies", "policy")
    close_contexts(photo_cluster.node)
    assert run_policy("plan", photo_cluster.policy)["changed"] == 2
    [applied] = run_policy("apply", photo_cluster.policy)
    assert (applied["changed"], applied["failed"], applied["token_index"]["failed"]) == (2, [], 0)
    assert run_policy("show")[0]["digest"]
    assert run_policy("rollback")[0]["changed"] == 2
    assert count_contexts(photo_cluster.node) == 0


@on_opensearch
def test_templates_are_published_used_and_deleted(photo_cluster: SecuredCluster) -> None:
    assert "created" in photo_cluster.read_output("photos_templates", "template", "publish")
    assert "published" in photo_cluster.read_output("photos_templates", "template", "list")
    template_search = {"id": "stair-es-tokens", "params": {"tokens": [{"token": "gray", "weight": 1}]}}
    search = partial(photo_cluster.node.request, "POST", "/photos/_search/template", template_search)
    assert len(search(login=("photos_template_client", PASSWORD))["hits"]["hits"]) == 2
    with pytest.raises(HTTPError, match="403"):
        search(login=("photos_reader", PASSWORD))
    photo_cluster.read_output("photos_templates", "template", "delete")


def test_doctor_role_checks_all_and_reader_role_warns(photo_cluster: SecuredCluster) -> None:
    assert [each for each in photo_cluster.run_doctor("photos_doctor") if each.check == "checks" or each.state == "fail"] == []
    found = photo_cluster.run_doctor("photos_reader")
    assert [each for each in found if each.state == "fail"] == []
    [checks_result] = [each for each in found if each.check == "checks"]
    assert (checks_result.state, PAGE in checks_result.remedy) == ("warn", True)
    lacking = {
        "opensearch": {"indices:admin/get", "indices:monitor/stats", "cluster:monitor/health"},
        "elasticsearch": {"monitor on photos*"},
    }
    assert lacking[photo_cluster.engine] <= set(_list_rights(checks_result))


@pytest.mark.parametrize(
    ("secured_cluster", "right"),
    [build_row(engine, right) for engine, roles in ROLES.items() for right in list_rights(roles["photos_doctor"])],
    indirect=["secured_cluster"],
)
def test_the_doctor_names_each_right_that_it_lacks(photo_cluster: SecuredCluster, right: str) -> None:
    unplaced = "/photos-unplaced"  # a shard for `allocation/explain`
    photo_cluster.node.request("PUT", f"{unplaced}?wait_for_active_shards=0", {"settings": {"number_of_replicas": 1}})
    try:
        found = photo_cluster.run_doctor(photo_cluster.get_restricted_name("photos_doctor", right))
    finally:
        photo_cluster.node.request("DELETE", unplaced)
    assert [each for each in found if each.state == "fail"] == []
    shown = right if photo_cluster.engine == "opensearch" else f"{right} on photos*"
    assert [_list_rights(each) for each in found if each.check == "checks"] == [[shown]]


def _list_rights(checks_result: CheckResult) -> list[str]:
    return checks_result.message.partition("for some checks: ")[2].split(", ")


LATE = ("cluster:admin/tasks/cancel", "indices:data/read/scroll/clear")
"""No command fails without these."""
NEEDED = [
    (engine, role, right)
    for engine, roles in ROLES.items()
    for role in ("photos_reader", "photos_writer", "photos_policies", "photos_templates", "photos_dashboards")
    for right in list_rights(roles.get(role, {}))
    if right not in LATE
]


@pytest.mark.parametrize(("secured_cluster", "role", "right"), [build_row(*row) for row in NEEDED], indirect=["secured_cluster"])
def test_without_a_right_the_command_fails_and_names_it(
    photo_cluster: SecuredCluster, tmp_path: Path, role: str, right: str
) -> None:
    index = f"photos-{NEEDED.index((photo_cluster.engine, role, right))}" if role == "photos_writer" else "photos"
    command = choose_command(photo_cluster, role, right, index, tmp_path)
    error = photo_cluster.read_error(photo_cluster.get_restricted_name(role, right), *command, index=index)
    assert isinstance(error, AuthenticationFailed), error
    assert right.rstrip("*") in f"{error.message} {error.remedy}"
    assert PAGE in error.remedy
    assert "denies access" not in error.message


def choose_command(secured_cluster: SecuredCluster, role: str, right: str, index: str, tmp_path: Path) -> list[object]:
    """Return the quickest command that needs a right."""
    again = {
        "indices:admin/delete": ["--retain-indices", "0", "--impact-field"],  # another build takes the place of this one
        "indices:data/write/delete": ["--resync"],
        "indices:data/write/update": [],  # the same image, but a newer file
    }
    if right in again:
        folder = copy_photos(tmp_path / "photos", "tabby-cat.jpg", "dairy-cow.jpg")
        secured_cluster.read_output("photos_writer", "ingest", folder, *COLORS, index=index)
        (folder / "dairy-cow.jpg").unlink()
        os.utime(folder / "tabby-cat.jpg", (1, 1))
        return ["ingest", folder, *COLORS, *again[right]]
    own: Mapping[str, list[object]] = {
        "indices:data/read/scroll": ["policy", "apply", secured_cluster.folder / "other.json"],
        "cluster:admin/script/delete": ["template", "delete"],
    }
    usual: Mapping[str, list[object]] = {
        "photos_reader": ["search", "gray"],
        "photos_writer": ["ingest", secured_cluster.folder / "photos", *COLORS, "--token-index"],
        "photos_policies": ["policy", "apply", secured_cluster.policy],
        "photos_templates": ["template", "publish", "--prefix", "other-"],
        "photos_dashboards": [*EXPORT[:-1], tmp_path / "board.ndjson"],
    }
    return own.get(right) or usual[role]


@on_opensearch
def test_apply_without_the_right_leaves_its_scroll_open(photo_cluster: SecuredCluster) -> None:
    close_contexts(photo_cluster.node)
    user = photo_cluster.get_restricted_name("photos_policies", LATE[1])
    photo_cluster.read_output(user, "policy", "apply", photo_cluster.folder / "other.json")
    assert count_contexts(photo_cluster.node) >= 1
    photo_cluster.read_output("photos_policies", "policy", "rollback")


@on_opensearch
def test_uncancelled_apply_is_reported_as_running(photo_cluster: SecuredCluster) -> None:
    connection, output = (
        photo_cluster.build_connection(photo_cluster.get_restricted_name("photos_policies", LATE[0])),
        list[str](),
    )

    def interrupt_update(_now: UpdateProgress) -> None:
        raise KeyboardInterrupt

    slow = UpdateLimits(requests_per_second=0.1)
    with Cluster(connection) as cluster, pytest.raises(KeyboardInterrupt), forward_messages(output.append):
        PolicyManager(cluster, "photos").apply_policy(TokenPolicy(mute=("gray",)), slow, interrupt_update)
    assert LATE[0] in output[-1]
    photo_cluster.read_output("photos_policies", "policy", "rollback")  # cancels the update


def close_contexts(node: SecuredNode) -> None:
    """Close all scrolls, so that none expires while others are counted."""
    try:
        node.request("DELETE", "/_search/scroll/_all")
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:  # there are none
            raise


def count_contexts(node: SecuredNode) -> int:
    """Return how many scrolls are open."""
    nodes = node.request("GET", "/_nodes/stats/indices/search")["nodes"].values()
    return sum(int(each["indices"]["search"]["scroll_current"]) for each in nodes)


@on_opensearch
def test_logins(photo_cluster: SecuredCluster, tmp_path: Path) -> None:
    """A password of signs in the URL, a client's certificate, a signed token, one that has expired, and nothing."""
    node = photo_cluster.node
    assert isinstance(node, SecuredOpenSearch)
    node.map_user("certified", "photos_reader")
    tokens = [
        SecuritySettings(ca_file=str(node.ca_file), bearer_token=node.issue_token("certified", life)) for life in (600, -60)
    ]
    ca_file, certificate = str(node.ca_file), str(node.issue_certificate("certified", tmp_path / "client.pem"))
    in_url = node.url.replace("https://", f"https://photos_reader:{quote(PASSWORD, safe='')}@")
    for connection in (
        Connection(url=in_url, security=SecuritySettings(ca_file=ca_file)),
        Connection(url=node.url, security=SecuritySettings(ca_file=ca_file, client_cert=certificate)),
        Connection(url=node.url, security=tokens[0]),
    ):
        with Cluster(connection) as cluster:
            assert cluster.client.count(index="photos")["count"] == 2
    for refused in (SecuritySettings(ca_file=ca_file), tokens[1]):
        connect = partial(Connection, url=node.url, security=refused)
        with expect_error("login-refused", AuthenticationFailed):
            list(check_cluster(CheckContext(connect=connect, index="photos", model="colors")))


@on_elasticsearch
@pytest.mark.parametrize("vector", ["rank_features", "sparse_vector"])
def test_api_keys(photo_cluster: SecuredCluster, vector: str) -> None:
    """A key that writes, one that only reads, and one that has expired; with `rank_features` of the stand-in, and without."""
    node, index = photo_cluster.node, f"photos-keys-{vector}"
    assert isinstance(node, SecuredElasticsearch)
    writer, reader = (
        {"STAIR_ES_API_KEY": node.create_key(f"{name}-{vector}", photo_cluster.roles[name])}
        for name in ("photos_writer", "photos_reader")
    )
    ingest = ["ingest", photo_cluster.folder / "photos", *COLORS, "--vector", vector, "--token-index"]
    assert read_json(photo_cluster, writer, *ingest, index=index)["written"] == 2
    assert read_json(photo_cluster, writer, *ingest, "--resync", index=index)["unchanged"] == 2
    assert read_json(photo_cluster, writer, "policy", "plan", photo_cluster.policy, index=index)["changed"] == 2
    assert read_json(photo_cluster, reader, "search", "gray", index=index)["query_type"] == vector
    assert photo_cluster.read_error(reader, *ingest, index=index).code == "request-forbidden"
    expired = {"STAIR_ES_API_KEY": node.create_key("expired", photo_cluster.roles["photos_reader"], lifetime="1ms")}
    poll_until(lambda: photo_cluster.run(expired, "search", "gray").exit_code != 0)
    assert photo_cluster.read_error(expired, "search", "gray").code == "login-refused"


@on_elasticsearch
def test_fingerprints(photo_cluster: SecuredCluster, tmp_path: Path) -> None:
    """That of the certificate that the node shows, that of its authority, which it doesn't send, and another one."""
    node = photo_cluster.node
    served = ssl.get_server_certificate(("127.0.0.1", int(node.url.rpartition(":")[2])))
    login = {"STAIR_ES_USER": "photos_reader", "STAIR_ES_PASSWORD": PASSWORD}

    def search_with(certificate: str) -> Result:
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()
        return photo_cluster.run({**login, "STAIR_ES_CA_FINGERPRINT": digest}, "search", "gray")

    assert search_with(served).exit_code == 0
    for other in (node.ca_file.read_text(), trustme.CA().cert_pem.bytes().decode()):
        refused = search_with(other).exception
        assert isinstance(refused, ClusterError)
        assert "--ca-file" in f"{refused.message} {refused.remedy}"
