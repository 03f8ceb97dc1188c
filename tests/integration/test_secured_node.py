"""OpenSearch with the security plugin, and the roles that the documentation names: they suffice, and each right is needed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from support.messages import forward_messages
from support.nodes.documented_roles import PAGE, list_rights
from support.nodes.opensearch_nodes import SecuredNode, build_secured_node
from support.nodes.secured_users import PASSWORD, ROLES, SecuredCluster, get_restricted_name, put_users
from support.plugin_metadata import write_entry_points
from support.servers.hostile_http_server import serve_page

from stair_es import plugins
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.doctor.result import CheckResult
from stair_es.doctor.run import CheckContext, check_cluster
from stair_es.errors import AuthenticationFailed, IndexMismatch
from stair_es.token_policy import TokenPolicy

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
COLORS = ("--model", "colors")
"""The example's model: no network, so that a command takes a tenth of a second."""


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin, as if it were installed."""
    write_entry_points(site := tmp_path_factory.mktemp("site"), "example", "colors = stair_es_example.colors:KIND")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "plugin" / "src"))
        patch.syspath_prepend(str(site))
        plugins.list_plugins.cache_clear()
        yield
    plugins.list_plugins.cache_clear()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, colors: None) -> Iterator[SecuredCluster]:
    folder = tmp_path_factory.mktemp("secured")
    pictures(folder / "photos", "tabby-cat.jpg", "dairy-cow.jpg")
    (folder / "policy.json").write_text(json.dumps({"stair_es_policy": 1, "mute": ["black"], "cap": {"gray": 0.01}}))
    (folder / "other.json").write_text(json.dumps({"stair_es_policy": 1, "mute": ["gray"]}))
    with build_secured_node(folder / "node") as node:
        assert isinstance(node, SecuredNode)
        put_users(node)
        yield SecuredCluster(node=node, folder=folder)


@pytest.fixture(scope="module")
def ingested(secured: SecuredCluster) -> SecuredCluster:
    """With two photos in `photos`, and their token index."""
    secured.read_output("photos_writer", "ingest", secured.folder / "photos", *COLORS, "--token-index")
    return secured


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy(PHOTOS / name, folder)
    return folder


def test_the_life_of_an_index(secured: SecuredCluster, tmp_path: Path) -> None:
    """From the first ingest to the second model, without a request that leaves `photos*`."""
    table = tmp_path / "photos.jsonl"

    def ingest(names: Sequence[str], *options: object) -> dict[str, Any]:
        rows = [{"image": str(PHOTOS / f"{name}.jpg"), "caption": name, "price": 2.5} for name in names]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        how = ["--image-column", "image", "--field", "caption=caption,price=price", *options, "--json"]
        report: dict[str, Any] = json.loads(
            secured.read_output("photos_writer", "ingest", table, *how, index="photos-life").splitlines()[-1]
        )
        return report

    both = ["tabby-cat", "dairy-cow"]
    assert ingest(both, "--model", "stair-mini", "--token-index", "--policy", secured.policy)["written"] == 2
    assert ingest(both, "--model", "stair-mini")["unchanged"] == 2
    [hit] = json.loads(secured.read_output("photos_reader", "search", "a cat", "-k", "1", "--json", index="photos-life"))["hits"]
    assert hit["uri"].endswith("tabby-cat.jpg")
    assert ingest(both[:1], "--model", "stair-mini", "--resync")["removed"] == 1
    [before] = secured.node.request("GET", "/photos-life/_alias/photos-life")
    assert ingest(both, *COLORS, "--retain-indices", "0")["written"] == 2
    [after] = secured.node.request("GET", "/photos-life/_alias/photos-life")
    assert ("stair-mini" in before, "colors" in after) == (True, True)
    assert list(secured.node.request("GET", "/photos-life-tokens/_alias")) == [f"{after}.tokens"]
    assert before not in secured.node.request("GET", "/photos-life*")


def test_texts_are_written_by_the_same_role(ingested: SecuredCluster, tmp_path: Path) -> None:
    (texts := tmp_path / "texts.txt").write_text("a gray cat\na black and white cow\n")
    written = ingested.read_output("photos_writer", "ingest-texts", texts, *COLORS, "--index", "photos-texts", "--json")
    assert json.loads(written.splitlines()[-1])["written"] == 2


def test_a_reader_searches(ingested: SecuredCluster) -> None:
    def ask(*arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(ingested.read_output("photos_reader", *arguments, "--json"))
        return answer

    first = ask("search", "gray", "-k", "1")
    [hit] = first["hits"]
    [other] = ask("search", "gray", "-k", "1", "--after", json.dumps(first["after"]))["hits"]
    assert hit["uri"] != other["uri"]
    assert ask("search", "--image", str(PHOTOS / "tabby-cat.jpg"), "-k", "1")["hits"][0]["uri"].endswith("tabby-cat.jpg")
    assert ask("search", "gray", "--filter", "width:>100000")["hits"] == []
    for command in (["explain", hit["uri"], "gray"], ["inspect", hit["uri"]], ["words"], ["query", "gray"]):
        ask(*command)


def test_a_reader_serves_the_page(ingested: SecuredCluster) -> None:
    with serve_page(ingested.build_connection("photos_reader"), "photos") as page:
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
ASKED = [
    ("a cat",),
    ("a cat", "--min-score", "0.15"),
    ("a cat", "-k", "2", "--after", "start"),
    ("cow", "--duplicates"),
    ("a cat", "--explain-engine"),
    ("--image", str(PHOTOS / "tabby-cat.jpg")),
    ("a cat", "--hybrid", "sum", "--caption-weight", "0.1", "--min-score", "0.15"),
    ("a cat", "--hybrid", "rrf"),
    ("a cat +animal^2", "--min-weight", "0.1"),
    ("pizza",),
]


@pytest.fixture(scope="module")
def restricted(secured: SecuredCluster) -> str:
    """An index of stair-mini with captions, half of its images in the folder `open`, and users who see only these."""
    index, reader = "photos-restricted", ROLES["photos_reader_open"]
    [part] = reader["index_permissions"]
    cats = {"photos_cats": "*/open/*cat*", "photos_near_cats": "*/open/k*"}
    clauses = {name: json.dumps({"wildcard": {"uri": pattern}}) for name, pattern in cats.items()}
    fields: dict[str, dict[str, object]] = {
        "photos_blind": {"fls": ["~tokens"]},
        "photos_few_fields": {"fls": ["~caption", "~thumbnail"]},
    }
    parts: dict[str, dict[str, object]] = {**{name: {"dls": clause} for name, clause in clauses.items()}, **fields}
    secured.node.put_roles({name: {**reader, "index_permissions": [{**part, "dls": "", **more}]} for name, more in parts.items()})
    secured.node.put_users({**VISITORS, **{name: [name] for name in fields}}, PASSWORD)
    seen = ("tabby-cat", "kitten-with-yarn", "two-spaniels", "kingfisher", "dairy-cow")
    rows = []
    for name, folder in [*((name, "open") for name in seen), *((name, "closed") for name in ("dairy-cow", "koala", "hedgehog"))]:
        target = secured.folder / folder / f"{name}.jpg"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(PHOTOS / target.name, target)
        rows.append({"image": str(target), "caption": f"a {name} like a cat"})
    (table := secured.folder / "restricted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ["--model", "stair-mini", "--image-column", "image", "--field", "caption=caption"]
    secured.read_output("photos_writer", "ingest", table, *how, index=index)
    return index


@pytest.mark.parametrize("user", VISITORS)
def test_document_level_security_changes_no_score(secured: SecuredCluster, restricted: str, user: str) -> None:
    def ask(login: str, command: Sequence[str], *more: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(secured.read_output(login, *command, *more, "--json", index=restricted))
        return {name: value for name, value in answer.items() if name != "took_ms"}

    for arguments in ASKED:
        expected = ask("photos_reader", ["search", *arguments], "--filter", OPEN)
        found = ask(user, ["search", *arguments])
        assert found == expected, arguments
        if found.get("after"):
            rest = ["--after", json.dumps(found["after"])]
            further = ["search", *(part for part in arguments if part not in ("--after", "start"))]
            assert ask(user, further, *rest) == ask("photos_reader", further, *rest, "--filter", OPEN), arguments
    for name in ("dairy-cow", "kingfisher"):
        uri = (secured.folder / "open" / f"{name}.jpg").as_uri()
        explained = [ask(login, ["explain", uri, "a cat", "-k", "2"], "--min-score", "0.15") for login in (user, "photos_reader")]
        assert explained[0] | {"rank": 0} == explained[1] | {"rank": 0}
        assert explained[0]["score"] is None


@pytest.mark.parametrize("user", VISITORS)
def test_the_page_of_a_restricted_user_has_the_same_scores(secured: SecuredCluster, restricted: str, user: str) -> None:
    answers = []
    for login, condition in ((user, {}), ("photos_reader", {"filter": "uri:*/open/*"})):
        with serve_page(secured.build_connection(login), restricted) as page:
            searches = [
                page.post("/api/search", {"text": "a cat", "method": method, **condition}).json
                for method in ("stair", "bag", "bm25")
            ]
            facets = page.post("/api/facets", {"text": "a cat", **condition}).json
            answers.append(([{**each, "took_ms": 0} for each in searches], facets))
            assert page.messages == []
    assert answers[0] == answers[1]
    assert [hit["weak"] for hit in answers[0][0][0]["hits"]] == [False, False, True, True, True]


def test_field_level_security_on_tokens_is_named(secured: SecuredCluster, restricted: str) -> None:
    error = secured.read_error("photos_blind", "search", "a cat", index=restricted)
    assert isinstance(error, IndexMismatch)
    assert ("`tokens`" in error.message, PAGE in error.remedy) == (True, True)
    assert "tabby-cat" in secured.read_output("photos_few_fields", "search", "a cat", "-k", "1", index=restricted)


def test_policies_are_planned_applied_and_rolled_back(ingested: SecuredCluster) -> None:
    def policy(*arguments: object) -> Any:  # noqa: ANN401  JSON
        return json.loads(ingested.read_output("photos_policies", "policy", *arguments, "--json"))

    close_contexts(ingested.node)
    assert policy("plan", ingested.policy)["changed"] == 2
    [applied] = policy("apply", ingested.policy)
    assert (applied["changed"], applied["failed"], applied["token_index"]["failed"]) == (2, [], 0)
    assert policy("show")[0]["digest"]
    assert policy("rollback")[0]["changed"] == 2
    assert count_contexts(ingested.node) == 0


def test_templates_are_published_used_and_deleted(ingested: SecuredCluster) -> None:
    assert "created" in ingested.read_output("photos_templates", "template", "publish")
    assert "published" in ingested.read_output("photos_templates", "template", "list")
    asked = {"id": "stair-es-tokens", "params": {"tokens": [{"token": "gray", "weight": 1}]}}
    search = partial(ingested.node.request, "POST", "/photos/_search/template", asked)
    assert len(search(login=("photos_template_client", PASSWORD))["hits"]["hits"]) == 2
    with pytest.raises(HTTPError, match="403"):
        search(login=("photos_reader", PASSWORD))
    ingested.read_output("photos_templates", "template", "delete")


def test_doctor_role_checks_all_and_reader_role_warns(ingested: SecuredCluster) -> None:
    assert [each for each in ingested.run_doctor("photos_doctor") if each.check == "checks" or each.state == "fail"] == []
    found = ingested.run_doctor("photos_reader")
    assert [each for each in found if each.state == "fail"] == []
    [rights] = [each for each in found if each.check == "checks"]
    assert (rights.state, PAGE in rights.remedy) == ("warn", True)
    assert {"indices:admin/get", "indices:monitor/stats", "cluster:monitor/health"} <= set(_listed(rights))


@pytest.mark.parametrize("right", list_rights(ROLES["photos_doctor"]))
def test_the_doctor_names_each_right_that_it_lacks(ingested: SecuredCluster, right: str) -> None:
    unplaced = "/photos-unplaced"  # a shard for `allocation/explain`
    ingested.node.request("PUT", f"{unplaced}?wait_for_active_shards=0", {"settings": {"number_of_replicas": 1}})
    try:
        found = ingested.run_doctor(get_restricted_name("photos_doctor", right))
    finally:
        ingested.node.request("DELETE", unplaced)
    assert [each for each in found if each.state == "fail"] == []
    assert [_listed(each) for each in found if each.check == "checks"] == [[right]]


def _listed(rights: CheckResult) -> list[str]:
    return rights.message.partition("for some checks: ")[2].split(", ")


LATE = ("cluster:admin/tasks/cancel", "indices:data/read/scroll/clear")
"""No command fails without these."""
NEEDED = [
    (role, right)
    for role in ("photos_reader", "photos_writer", "photos_policies", "photos_templates")
    for right in list_rights(ROLES[role])
    if right not in LATE
]


@pytest.mark.parametrize(("role", "right"), NEEDED)
def test_without_a_right_the_command_fails_and_names_it(ingested: SecuredCluster, tmp_path: Path, role: str, right: str) -> None:
    index = f"photos-{NEEDED.index((role, right))}" if role == "photos_writer" else "photos"
    command = choose_command(ingested, role, right, index, tmp_path)
    error = ingested.read_error(get_restricted_name(role, right), *command, index=index)
    assert isinstance(error, AuthenticationFailed), error
    assert right.rstrip("*") in f"{error.message} {error.remedy}"
    assert PAGE in error.remedy
    assert "denies access" not in error.message


def choose_command(secured: SecuredCluster, role: str, right: str, index: str, tmp_path: Path) -> list[object]:
    """Return the quickest command that asks for a right."""
    again = {
        "indices:admin/delete": ["--retain-indices", "0", "--impact-field"],  # another build takes the place of this one
        "indices:data/write/delete": ["--resync"],
        "indices:data/write/update": [],  # the same image, but a newer file
    }
    if right in again:
        folder = pictures(tmp_path / "photos", "tabby-cat.jpg", "dairy-cow.jpg")
        secured.read_output("photos_writer", "ingest", folder, *COLORS, index=index)
        (folder / "dairy-cow.jpg").unlink()
        os.utime(folder / "tabby-cat.jpg", (1, 1))
        return ["ingest", folder, *COLORS, *again[right]]
    own: Mapping[str, list[object]] = {
        "indices:data/read/scroll": ["policy", "plan", secured.folder / "other.json"],
        "cluster:admin/script/delete": ["template", "delete"],
    }
    usual: Mapping[str, list[object]] = {
        "photos_reader": ["search", "gray"],
        "photos_writer": ["ingest", secured.folder / "photos", *COLORS, "--token-index"],
        "photos_policies": ["policy", "apply", secured.policy],
        "photos_templates": ["template", "publish", "--prefix", "other-"],
    }
    return own.get(right) or usual[role]


def test_plan_without_the_right_leaves_its_scroll_open(ingested: SecuredCluster) -> None:
    close_contexts(ingested.node)
    ingested.read_output(get_restricted_name("photos_policies", LATE[1]), "policy", "plan", ingested.folder / "other.json")
    assert count_contexts(ingested.node) == 1


def test_uncancelled_apply_is_reported_as_running(ingested: SecuredCluster) -> None:
    connection, output = ingested.build_connection(get_restricted_name("photos_policies", LATE[0])), list[str]()

    def interrupt(_now: UpdateProgress) -> None:
        raise KeyboardInterrupt

    slow = UpdateLimits(requests_per_second=0.1)
    with Cluster(connection) as cluster, pytest.raises(KeyboardInterrupt), forward_messages(output.append):
        PolicyManager(cluster, "photos").apply_policy(TokenPolicy(mute=("gray",)), slow, interrupt)
    assert "this update may still be running" in output[-1]
    assert LATE[0] in output[-1]
    ingested.read_output("photos_policies", "policy", "rollback")  # calls it off


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


def test_logins(ingested: SecuredCluster, tmp_path: Path) -> None:
    """A password of signs in the URL, a client's certificate, and neither."""
    node = ingested.node
    node.map_user("certified", "photos_reader")
    ca_file, certificate = str(node.ca_file), str(node.issue_certificate("certified", tmp_path / "client.pem"))
    in_url = node.url.replace("https://", f"https://photos_reader:{quote(PASSWORD, safe='')}@")
    for connection in (
        Connection(url=in_url, security=SecuritySettings(ca_file=ca_file)),
        Connection(url=node.url, security=SecuritySettings(ca_file=ca_file, client_cert=certificate)),
    ):
        with Cluster(connection) as cluster:
            assert cluster.client.count(index="photos")["count"] == 2
    with pytest.raises(AuthenticationFailed, match="refused the login"):
        list(
            check_cluster(
                CheckContext(
                    connect=lambda: Connection(url=node.url, security=SecuritySettings(ca_file=ca_file)),
                    index="photos",
                    model="colors",
                )
            )
        )
