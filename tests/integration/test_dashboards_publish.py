"""Publishing over real HTTP, to a server that answers as the products do, failures and all."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from support.commands import CommandRunner
from support.dashboards.checks import find_errors
from support.errors import expect_error
from support.servers.fault_proxy import Response, start_server
from support.servers.recording_proxy import RecordingProxy
from support.servers.saved_objects_server import DashboardsServer

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.dashboards.bundle import SavedObject, build_bundle, get_dashboard_id, to_ndjson
from stair_es.dashboards.connection import DashboardsConnection
from stair_es.dashboards.index_info import DashboardSpec, Product
from stair_es.dashboards.publish import DetectedProduct, ImportResult, check_space, detect_product, import_objects
from stair_es.dashboards.session import DashboardsSession
from stair_es.errors import AuthenticationFailed, ClusterUnreachable, UnsupportedTarget, UsageError

PHOTOS = DashboardSpec(name="photos")
PRODUCTS: tuple[Product, ...] = ("opensearch-dashboards", "kibana")
VERSIONS = {"opensearch-dashboards": "3.6.0", "kibana": "9.1.2"}
LOGIN = SecuritySettings(user="me", password="secret-word")
COMMAND = CommandRunner({"STAIR_ES_URL": "", "STAIR_ES_DASHBOARDS_URL": "", "COLUMNS": "200"}, "dashboards")
NOT_READY = Response(status=503, kind="text/plain", body=b"server is not ready yet")
ON_ONE_PRODUCT = pytest.mark.parametrize("product", ["kibana"])
"""For what the session does before it matters which product answers."""


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Product:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(product: Product) -> Iterator[DashboardsServer]:
    with DashboardsServer(product, VERSIONS[product]) as server:
        yield server


def publish_bundle(
    connection: DashboardsConnection,
    product: Product | None = None,
    sleep: Callable[[float], None] = lambda _: None,
    spec: DashboardSpec = PHOTOS,
) -> list[ImportResult]:
    with closing(DashboardsSession(connection, sleep=sleep)) as session:
        detected = detect_product(session, product)
        objects = build_bundle(spec, detected.product)
        assert find_errors(objects, detected.product) == []
        check_space(session)
        return import_objects(session, objects)


def detect_server(connection: DashboardsConnection, product: Product | None = None) -> DetectedProduct:
    with closing(DashboardsSession(connection, sleep=lambda _: None)) as session:
        return detect_product(session, product)


def get_errors(results: list[ImportResult]) -> dict[str, str]:
    return {result.id: result.error for result in results if result.error}


def build_status(server: DashboardsServer) -> Response:
    return Response.json({"version": {"number": server.version}})


# --- it works, and works again ---


def test_bundle_import(server: DashboardsServer, product: Product) -> None:
    results = publish_bundle(DashboardsConnection(url=server.url))
    objects = build_bundle(PHOTOS, product)
    assert get_errors(results) == {}
    assert [result.id for result in results] == [each["id"] for each in objects]
    stored = server.get_objects()
    assert set(stored) == {(each["type"], each["id"]) for each in objects}
    for each in objects:
        assert stored[each["type"], each["id"]]["attributes"] == each["attributes"]


def test_second_run_adds_nothing(server: DashboardsServer) -> None:
    first = publish_bundle(DashboardsConnection(url=server.url))
    before = json.dumps(sorted(server.get_objects().items(), key=str), sort_keys=True)
    second = publish_bundle(DashboardsConnection(url=server.url))
    assert json.dumps(sorted(server.get_objects().items(), key=str), sort_keys=True) == before
    assert {result.overwritten for result in first} == {False}
    assert {result.overwritten for result in second} == {True}


def test_two_indices_live_side_by_side(server: DashboardsServer, product: Product) -> None:
    publish_bundle(DashboardsConnection(url=server.url))
    publish_bundle(DashboardsConnection(url=server.url), spec=DashboardSpec(name="photos-2"))
    assert len(server.get_objects()) == 2 * len(build_bundle(PHOTOS, product))


def test_the_base_path_belongs_to_the_url(product: Product) -> None:
    with DashboardsServer(product, VERSIONS[product], base_path="/_dashboards") as server:
        assert get_errors(publish_bundle(DashboardsConnection(url=f"{server.url}/"))) == {}
        with expect_error("no-import-api") as caught:
            publish_bundle(DashboardsConnection(url=server.url.removesuffix("/_dashboards")))
        assert "base path" in caught.value.remedy


# --- which product ---


@pytest.mark.parametrize("sends_name", [True, False], ids=["header", "no header"])
def test_product_is_detected(server: DashboardsServer, product: Product, sends_name: bool) -> None:
    server.sends_name = sends_name
    assert detect_server(DashboardsConnection(url=server.url)) == DetectedProduct(product=product, version=VERSIONS[product])


def test_another_product_than_requested_is_rejected(server: DashboardsServer, product: Product) -> None:
    [other] = set(PRODUCTS) - {product}
    with expect_error("other-product", UsageError):
        detect_server(DashboardsConnection(url=server.url), other)
    part = {"space": "team"} if product == "opensearch-dashboards" else {"tenant": "team"}
    server.spaces = server.workspaces = frozenset({"team"})
    with expect_error("other-product", UsageError):
        detect_server(DashboardsConnection(url=server.url, **part))  # type: ignore[arg-type]
    assert server.get_objects() == {}


@pytest.mark.parametrize(("product", "version"), [("opensearch-dashboards", "1.3.2"), ("kibana", "7.17.0")])
def test_too_old_a_product_is_rejected(product: Product, version: str) -> None:
    with DashboardsServer(product, version) as server, expect_error("product-too-old", UnsupportedTarget) as caught:
        publish_bundle(DashboardsConnection(url=server.url))
    assert version in caught.value.message


def test_product_without_version_is_accepted() -> None:
    status = Response.json({"status": {"overall": {"level": "available"}}})
    with start_server(lambda _: status) as url:
        with expect_error("product-not-reported", UsageError):
            detect_server(DashboardsConnection(url=url))
        assert detect_server(DashboardsConnection(url=url), "kibana") == DetectedProduct(product="kibana", version="")


def test_the_url_of_the_cluster_is_rejected(node_url: str) -> None:
    with expect_error("not-dashboards"):
        detect_server(DashboardsConnection(url=node_url))


# --- spaces, workspaces, tenants ---


def test_spaces_get_separate_objects_and_links() -> None:
    with DashboardsServer("kibana", "8.15.0", spaces=frozenset({"team"})) as server:
        publish_bundle(DashboardsConnection(url=server.url))
        connection = DashboardsConnection(url=server.url, space="team")
        results = publish_bundle(connection)
        [dashboard] = [result for result in results if result.id == get_dashboard_id(PHOTOS)]
        assert dashboard.stored_as != dashboard.id  # that id is taken in the default space
        assert ("dashboard", dashboard.stored_as) in server.get_objects("team")
        assert connection.build_link(dashboard.stored_as).endswith(f"/s/team/app/dashboards#/view/{dashboard.stored_as}")
        results_again = publish_bundle(connection)
        assert [result.stored_as for result in results_again] == [result.stored_as for result in results]
        assert len(server.get_objects("team")) == len(server.get_objects()) == len(results)


def test_workspaces_are_separate() -> None:
    with DashboardsServer("opensearch-dashboards", workspaces=frozenset({"w1"})) as server:
        results = publish_bundle(DashboardsConnection(url=server.url, workspace="w1"))
        assert len(server.get_objects("w1")) == len(results)
        assert server.get_objects() == {}


def test_a_tenant_is_named_in_the_header() -> None:
    with DashboardsServer("opensearch-dashboards", tenants=frozenset({"team"})) as server:
        for tenant, scope in (("team", "team"), ("private", "__user__"), ("global", "global")):
            publish_bundle(DashboardsConnection(url=server.url, tenant=tenant))
            assert server.get_objects(scope)
        with expect_error("dashboards-forbidden", AuthenticationFailed) as caught:
            publish_bundle(DashboardsConnection(url=server.url, tenant="strangers"))
        assert "strangers" in caught.value.message


@ON_ONE_PRODUCT
def test_a_space_must_exist(server: DashboardsServer) -> None:
    server.spaces = frozenset({"team"})
    for space in ("team", "default", None):
        publish_bundle(DashboardsConnection(url=server.url, space=space))
    server.stored.clear()
    for space in ("nowhere", "../team", "team "):
        with expect_error("space-not-found") as caught:
            publish_bundle(DashboardsConnection(url=server.url, space=space))
        assert repr(space) in caught.value.message
    server.planned_responses = [build_status(server), Response.json({"message": "a plugin is off"}, 400)]
    with expect_error("space-unknown"):
        publish_bundle(DashboardsConnection(url=server.url, space="team"))
    assert not any(server.stored.values())
    server.may_read_spaces = False
    with closing(DashboardsSession(DashboardsConnection(url=server.url, space="team"), sleep=lambda _: None)) as session:
        assert "'team'" in (check_space(session) or "")
    assert get_errors(publish_bundle(DashboardsConnection(url=server.url, space="team"))) == {}


# --- logins ---


@pytest.mark.parametrize(
    ("security", "header"),
    [
        (LOGIN, "Basic bWU6c2VjcmV0LXdvcmQ="),
        (SecuritySettings(api_key="id:key"), "ApiKey aWQ6a2V5"),
        (SecuritySettings(bearer_token="a.b.c"), "Bearer a.b.c"),
    ],
    ids=["basic", "api key", "bearer"],
)
def test_logins_have_their_headers(server: DashboardsServer, security: SecuritySettings, header: str) -> None:
    server.authorization = header
    assert get_errors(publish_bundle(DashboardsConnection(url=server.url, security=security))) == {}


@pytest.mark.parametrize(
    "security",
    [SecuritySettings(), SecuritySettings(user="me", password="wrong-word"), SecuritySettings(api_key="wrong-key")],
    ids=["none", "password", "api key"],
)
def test_a_wrong_login_is_rejected_without_being_shown(server: DashboardsServer, security: SecuritySettings) -> None:
    server.authorization = "Basic bWU6c2VjcmV0LXdvcmQ="
    with expect_error("login-refused", AuthenticationFailed) as caught:
        publish_bundle(DashboardsConnection(url=server.url, security=security))
    assert "STAIR_ES_DASHBOARDS_" in caught.value.remedy
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("page", ["/login?next=%2F", "https://sso.example.org/oauth2/authorize?state=secret-state"])
def test_a_login_page_is_recognized_and_not_followed(server: DashboardsServer, page: str) -> None:
    server.authorization, server.login_page = "Basic x", page
    with expect_error("login-page", AuthenticationFailed) as caught:
        publish_bundle(DashboardsConnection(url=server.url))
    assert "secret-state" not in str(caught.value)
    assert len(server.requests) == 1


# --- what fails ---


LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Please log in</title><style>p { top: 0 }</style></head></html>"


@ON_ONE_PRODUCT
@pytest.mark.parametrize(
    ("response", "code", "fact"),
    [
        (Response(status=302, headers={"location": "/base/api/status"}), "dashboards-redirect", "/base/api/status"),
        (Response(kind="text/html", body=LOGIN_PAGE), "response-not-json", "(text/html)"),
        (Response(kind="text/html", body=LOGIN_PAGE), "response-not-json", "Please log in"),
        (Response.json({"message": "no rights for secret-word"}, status=403), "dashboards-forbidden", "no rights for"),
        (Response.json({"message": "secret-word: more recent version"}, status=422), "import-rejected", "docs/dashboards.md"),
    ],
    ids=["redirect", "content type of a page", "title of a page", "forbidden", "too new"],
)
def test_a_failed_request_is_reported(server: DashboardsServer, response: Response, code: str, fact: str) -> None:
    server.planned_responses = [build_status(server), response]
    with expect_error(code) as caught:
        publish_bundle(DashboardsConnection(url=server.url, security=LOGIN))
    assert fact in str(caught.value)
    assert [part for part in ("secret-word", "<", "top: 0") if part in str(caught.value)] == []


def test_rejected_objects_are_named_one_by_one(server: DashboardsServer) -> None:
    server.refuse = lambda saved: "read-only" if saved["id"].endswith("-bars") else None
    results = publish_bundle(DashboardsConnection(url=server.url))
    assert get_errors(results) == {PHOTOS.build_id("bars"): "read-only"}
    assert len(server.get_objects()) == len(results) - 1


def test_a_file_that_is_too_large_is_rejected(server: DashboardsServer) -> None:
    server.max_bytes = 1000
    with expect_error("import-too-large"):
        publish_bundle(DashboardsConnection(url=server.url))


def test_reasons_of_rejected_objects_are_told_apart(server: DashboardsServer, product: Product) -> None:
    faults: dict[str, dict[str, Any]] = {
        "missing_references": {"references": [{"type": "index-pattern", "id": "x"}]},
        "conflict": {},
        "ambiguous_conflict": {"destinations": []},
        "unsupported_type": {},
        "unknown": {"message": "strict_dynamic_mapping_exception"},
    }
    objects = build_bundle(PHOTOS, product)
    rejected, reasons = objects[0], dict[str, str]()
    for kind, details in faults.items():
        error = {"id": rejected["id"], "type": rejected["type"], "error": {"type": kind, **details}}
        answer = Response.json({"success": False, "successCount": 0, "errors": [error]})
        server.planned_responses = [build_status(server), answer]
        errors = get_errors(publish_bundle(DashboardsConnection(url=server.url), product))
        assert set(errors) == {each["id"] for each in objects}  # none of a file is imported if one is rejected
        reasons[kind] = errors.pop(rejected["id"])
        assert reasons[kind] not in errors.values()
    assert "index-pattern x" in reasons["missing_references"]
    assert reasons["unknown"] == "strict_dynamic_mapping_exception"
    assert reasons["conflict"] == reasons["ambiguous_conflict"]
    assert len(set(reasons.values())) == 4


# --- what passes ---


def test_a_product_that_starts_is_waited_for(server: DashboardsServer) -> None:
    busy = Response(status=429, headers={"retry-after": "7"})
    invalid_header = Response(status=429, headers={"retry-after": "\u00b2"})
    server.planned_responses = [NOT_READY, busy, invalid_header]
    pauses = list[float]()
    assert get_errors(publish_bundle(DashboardsConnection(url=server.url), sleep=pauses.append)) == {}
    first, requested, third = pauses
    assert first <= 2.0
    assert 7.0 <= requested <= 9.0
    assert 4.0 <= third <= 8.0


def test_permanent_outage_is_an_error(server: DashboardsServer) -> None:
    server.planned_responses = [NOT_READY] * 9
    pauses = list[float]()
    with expect_error("dashboards-not-ready") as caught:
        publish_bundle(DashboardsConnection(url=server.url), sleep=pauses.append)
    assert "(HTTP 503)" in caught.value.message
    assert NOT_READY.body.decode() in caught.value.message
    assert len(pauses) == 4
    assert 14.5 <= sum(pauses) <= 29.0  # a product needs about 15 s to start


def test_lost_responses_are_retried(server: DashboardsServer) -> None:
    pauses = list[float]()
    server.planned_responses = [build_status(server), None]  # the import's answer never comes
    assert get_errors(publish_bundle(DashboardsConnection(url=server.url), sleep=pauses.append)) == {}
    assert len(pauses) == 1


def test_an_unreachable_server_is_reported() -> None:
    with expect_error("dashboards-unreachable", ClusterUnreachable):
        publish_bundle(DashboardsConnection(url="http://127.0.0.1:9", timeout_s=2))


# --- TLS ---


@ON_ONE_PRODUCT
def test_tls_is_verified(server: DashboardsServer, tmp_path: Path) -> None:
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with RecordingProxy(server.url, tls=context) as proxy:
        trusted = SecuritySettings(ca_file=str(ca_file))
        assert get_errors(publish_bundle(DashboardsConnection(url=proxy.url, security=trusted))) == {}
        with expect_error("no-tls-connection", ClusterUnreachable) as caught:
            publish_bundle(DashboardsConnection(url=proxy.url))
        assert "--dashboards-ca-file / STAIR_ES_DASHBOARDS_CA_FILE" in caught.value.remedy
        with expect_error("no-tls-connection", ClusterUnreachable) as caught:
            publish_bundle(DashboardsConnection(url=proxy.url, security=SecuritySettings(ca_fingerprint="0" * 64)))
        assert "matches" in caught.value.message


# --- the server is as strict as it says ---


def post_import(
    server: DashboardsServer, body: str, *, name: str = "a.ndjson", query: str = "", headers: Sequence[str] = ()
) -> tuple[int, Any]:
    with urllib3.PoolManager() as pool:
        response = pool.request(
            "POST",
            f"{server.url}/api/saved_objects/_import{query}",
            fields={"file": (name, body.encode(), "application/ndjson")},
            headers=dict.fromkeys(headers or ("osd-xsrf", "kbn-xsrf"), "true"),
        )
        return response.status, response.json()


def list_error_types(answer: Any) -> set[str]:  # noqa: ANN401  JSON
    return {each["error"]["type"] for each in answer["errors"]}


def test_server_rejects_what_products_reject(server: DashboardsServer, product: Product) -> None:
    bundle = to_ndjson(build_bundle(PHOTOS, product))
    other_header = {"opensearch-dashboards": "kbn-xsrf", "kibana": "osd-xsrf"}[product]
    assert post_import(server, bundle, headers=[other_header])[0] == 400
    assert "extension" in post_import(server, bundle, name="a.json")[1]["message"]
    assert post_import(server, bundle, query="?overwrite=true&createNewCopies=true")[0] == 400
    assert post_import(server, bundle, query="?strange=1")[0] == 400
    assert "Non-unique" in post_import(server, bundle + bundle)[1]["message"]
    assert server.get_objects() == {}

    without_patterns = [saved for saved in build_bundle(PHOTOS, product) if saved["type"] != "index-pattern"]
    status, answer = post_import(server, to_ndjson(without_patterns))
    assert (status, answer["success"], answer["successCount"]) == (200, False, 0)
    assert list_error_types(answer) == {"missing_references"}

    assert post_import(server, bundle)[1]["success"]
    assert list_error_types(post_import(server, bundle)[1]) == {"conflict"}
    assert post_import(server, bundle, query="?overwrite=true")[1]["success"]


def test_the_server_knows_versions_types_and_attributes(server: DashboardsServer, product: Product) -> None:
    def import_changed(change: Callable[[SavedObject], None], query: str = "") -> tuple[int, Any]:
        objects = build_bundle(PHOTOS, product)
        change(objects[-1])
        return post_import(server, to_ndjson(objects), query=query)

    status, answer = import_changed(lambda saved: saved.update(migrationVersion={"dashboard": "9.9.9"}))
    assert (status, "version" in answer["message"]) == (422, True)
    assert list_error_types(import_changed(lambda saved: saved.update(type="canvas"))[1]) == {"unsupported_type"}
    _, answer = import_changed(lambda saved: saved["attributes"].update(sections=[]), query="?overwrite=true")
    assert "sections" in answer["errors"][0]["error"]["message"]


def test_each_products_dashboard_is_rejected_by_the_other() -> None:
    with DashboardsServer("opensearch-dashboards") as server:
        _, answer = post_import(server, to_ndjson(build_bundle(PHOTOS, "kibana")))
        assert "controlGroupInput" in json.dumps(answer["errors"])


# --- the command ---


@pytest.fixture
def publish_options(server: DashboardsServer) -> tuple[str, ...]:
    return ("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url)


def test_the_command_prints_the_link(server: DashboardsServer, product: Product, publish_options: tuple[str, ...]) -> None:
    result = COMMAND.run(*publish_options)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{server.url}/app/dashboards#/view/{get_dashboard_id(PHOTOS)}\n"
    assert str(len(build_bundle(PHOTOS, product))) in result.stderr.replace(server.url, "").split()


def test_command_reports_each_object_as_json(
    server: DashboardsServer, product: Product, publish_options: tuple[str, ...]
) -> None:
    server.refuse = lambda saved: "no" if saved["id"].endswith("-bars") else None
    result = COMMAND.run(*publish_options, "--json")
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert set(answer) == {"product", "version", "url", "imported", "rejected", "objects"}
    assert (answer["product"], answer["rejected"]) == (product, 1)
    assert [each["error"] for each in answer["objects"] if "error" in each] == ["no"]
    result = COMMAND.run(*publish_options)
    assert result.exit_code == 3
    assert f"({PHOTOS.build_id('bars')}): no" in result.stderr


@pytest.mark.parametrize("product", ["opensearch-dashboards"])
def test_a_tenant_without_the_security_plugin_is_remarked(server: DashboardsServer, publish_options: tuple[str, ...]) -> None:
    def count_notices(*more: str) -> int:
        result = COMMAND.run(*publish_options, *more)
        assert result.exit_code == 0, result.output
        return len(result.stderr.splitlines())

    count = count_notices()
    assert count_notices("--tenant", "global") == count  # it lists no plugins
    server.plugins = ("dashboard", "securityDashboards")
    assert count_notices("--tenant", "global") == count
    server.plugins = ("dashboard",)
    assert count_notices("--tenant", "global") == count + 1
    assert count_notices() == count


def test_links_lead_to_the_page(server: DashboardsServer, publish_options: tuple[str, ...]) -> None:
    COMMAND.read_output(*publish_options, "--page-url", "https://photos.example.org/a/")
    formats = server.get_objects()["index-pattern", PHOTOS.build_id("images")]["attributes"]["fieldFormatMap"]
    assert json.loads(formats)["_id"]["params"]["urlTemplate"] == "https://photos.example.org/a/image/{{value}}"
    assert COMMAND.read_error(*publish_options, "--page-url", "photos.example.org").code == "invalid-page-url"


def test_the_command_fails_if_no_object_was_imported(server: DashboardsServer, publish_options: tuple[str, ...]) -> None:
    server.refuse = lambda saved: "no"
    result = COMMAND.run(*publish_options, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["url"] is None


def test_a_password_on_the_command_line_is_rejected(server: DashboardsServer) -> None:
    url = server.url.replace("//", "//me:secret-word@")
    assert COMMAND.read_error("publish", "--token-index", "--dashboards-url", url).code == "password-in-arguments"
    assert server.requests == []
    result = COMMAND.run("publish", "--index", "photos", "--token-index", STAIR_ES_DASHBOARDS_URL=url)
    assert result.exit_code == 0, result.output
    assert "secret-word" not in result.output


def test_export_needs_no_cluster_with_explicit_options(tmp_path: Path) -> None:
    options = ("export", "--index", "photos", "--token-index", "--product", "kibana")
    file = tmp_path / "photos.ndjson"
    COMMAND.read_output(*options, "-o", file)
    assert file.read_text() == to_ndjson(build_bundle(PHOTOS, "kibana"))
    assert COMMAND.read_output(*options) == COMMAND.read_output(*options, "-o", "-") == file.read_text()
    with DashboardsServer("kibana", "8.15.0") as server:
        assert post_import(server, file.read_text())[1]["success"]


def test_export_names_the_options_that_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "photos.ndjson"
    offline = ("export", "-o", file, "--url", "http://127.0.0.1:9")
    assert COMMAND.read_error("export", "--token-index", "-o", file).code == "product-unknown"
    other_extension = COMMAND.read_error("export", "--token-index", "-o", "photos.json")
    assert (other_extension.code, "photos.ndjson" in other_extension.remedy) == ("output-not-ndjson", True)
    unreachable = COMMAND.read_error(*offline)
    assert (unreachable.code, "--no-token-index" in unreachable.remedy) == ("cluster-unreachable", True)
    result = COMMAND.run(*offline, "--no-token-index", "--product", "kibana")
    assert result.exit_code == 0, result.output
    assert "queried" in result.stderr


def test_export_looks_at_the_index(node_url: str, index_name: str, tmp_path: Path) -> None:
    from support.corpora.dashboard_corpus import ingest_corpus

    export = ("export", "--index", index_name, "--url", node_url)
    assert COMMAND.read_error(*export).code == "index-not-found"
    ingest_corpus(node_url, index_name, tmp_path, token_index=False)
    result = COMMAND.run(*export)
    assert result.exit_code == 0, result.output
    assert f"--index {index_name} --token-index" in result.stderr
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert find_errors(objects, "opensearch-dashboards") == []
    by_kind = {saved["id"].removeprefix(DashboardSpec(name=index_name).build_id("")).lstrip("-"): saved for saved in objects}
    assert "controls" in by_kind  # OpenSearch has OpenSearch Dashboards
    assert "average-weight" not in by_kind
    over_time = by_kind["over-time"]["attributes"]
    assert "(taken)" in over_time["title"]
    assert '"interval":"M"' in over_time["visState"]
    result = COMMAND.run(*export, "--time-field", "ingested_at")
    assert all(fact in result.stderr for fact in ("'Words over time'", "ingested_at"))  # all images have the same day there
    assert "-over-time" not in result.stdout

    with DashboardsServer("opensearch-dashboards") as server:
        COMMAND.read_output("publish", "--index", index_name, "--url", node_url, "--dashboards-url", server.url)
        assert [saved["id"] for saved in objects] == [id_ for _, id_ in server.get_objects()]
