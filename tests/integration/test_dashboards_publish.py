"""Publishing over real HTTP, to a server that answers as the products do, failures and all."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from support.dashboards.checks import find_errors
from support.servers.fault_proxy import Response, start_server
from support.servers.recording_proxy import RecordingProxy
from support.servers.saved_objects_server import DashboardsServer
from typer.testing import CliRunner, Result

from stair_es.cli.main import app
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.dashboards.bundle import build_bundle, get_dashboard_id, to_ndjson
from stair_es.dashboards.connection import DashboardsConnection
from stair_es.dashboards.index_info import DashboardSpec, Product
from stair_es.dashboards.publish import DetectedProduct, ImportResult, detect_product, import_objects
from stair_es.dashboards.session import DashboardsSession
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable, StairError, UnsupportedTarget, UsageError

PHOTOS = DashboardSpec(name="photos")
PRODUCTS: tuple[Product, ...] = ("opensearch-dashboards", "kibana")
VERSIONS = {"opensearch-dashboards": "3.6.0", "kibana": "9.1.2"}
Pauses = list[float]


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Product:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(product: Product) -> Iterator[DashboardsServer]:
    with DashboardsServer(product, VERSIONS[product]) as made:
        yield made


def sent(
    place: DashboardsConnection, product: Product | None = None, pauses: Pauses | None = None, corpus: DashboardSpec = PHOTOS
) -> list[ImportResult]:
    waited: Pauses = pauses if pauses is not None else []
    with closing(DashboardsSession(place, sleep=waited.append)) as session:
        found = detect_product(session, product)
        objects = build_bundle(corpus, found.product)
        assert find_errors(objects, found.product) == []
        return import_objects(session, objects)


def found(place: DashboardsConnection, product: Product | None = None) -> DetectedProduct:
    with closing(DashboardsSession(place, sleep=lambda _: None)) as session:
        return detect_product(session, product)


def failed(imported: list[ImportResult]) -> dict[str, str]:
    return {each.id: each.error for each in imported if each.error}


# --- it works, and works again ---


def test_bundle_import(server: DashboardsServer, product: Product) -> None:
    imported = sent(DashboardsConnection(url=server.url))
    objects = build_bundle(PHOTOS, product)
    assert failed(imported) == {}
    assert [each.id for each in imported] == [made["id"] for made in objects]
    held = server.get_objects()
    assert {(type_, id_) for type_, id_ in held} == {(made["type"], made["id"]) for made in objects}
    for made in objects:
        assert held[made["type"], made["id"]]["attributes"] == made["attributes"]


def test_second_run_adds_nothing(server: DashboardsServer) -> None:
    first = sent(DashboardsConnection(url=server.url))
    before = json.dumps(sorted(server.get_objects().items(), key=str), sort_keys=True)
    second = sent(DashboardsConnection(url=server.url))
    assert json.dumps(sorted(server.get_objects().items(), key=str), sort_keys=True) == before
    assert {each.overwritten for each in first} == {False}
    assert {each.overwritten for each in second} == {True}


def test_two_indices_live_side_by_side(server: DashboardsServer, product: Product) -> None:
    sent(DashboardsConnection(url=server.url))
    sent(DashboardsConnection(url=server.url), corpus=DashboardSpec(name="photos-2"))
    assert len(server.get_objects()) == 2 * len(build_bundle(PHOTOS, product))


def test_the_base_path_belongs_to_the_url(product: Product) -> None:
    with DashboardsServer(product, VERSIONS[product], base_path="/_dashboards") as server:
        assert failed(sent(DashboardsConnection(url=f"{server.url}/"))) == {}
        with pytest.raises(ClusterError, match=r"HTTP 404") as caught:
            sent(DashboardsConnection(url=server.url.removesuffix("/_dashboards")))
        assert "base path" in caught.value.remedy


# --- which product ---


def test_product_is_detected(server: DashboardsServer, product: Product) -> None:
    assert found(DashboardsConnection(url=server.url)) == DetectedProduct(product=product, version=VERSIONS[product])


def test_product_without_a_header(server: DashboardsServer, product: Product) -> None:
    server.sends_name = False
    assert found(DashboardsConnection(url=server.url)).product == product


def test_another_product_than_asked_for_is_rejected(server: DashboardsServer, product: Product) -> None:
    other: Product = "kibana" if product == "opensearch-dashboards" else "opensearch-dashboards"
    with pytest.raises(UsageError, match=r"is (Kibana|OpenSearch Dashboards), not"):
        found(DashboardsConnection(url=server.url), other)
    part = {"space": "team"} if product == "opensearch-dashboards" else {"tenant": "team"}
    server.spaces = server.workspaces = frozenset({"team"})
    with pytest.raises(UsageError, match=r"is (Kibana|OpenSearch Dashboards), not") as caught:
        found(DashboardsConnection(url=server.url, **part))  # type: ignore[arg-type]
    assert server.get_objects() == {}
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("product", "version"), [("opensearch-dashboards", "1.3.2"), ("kibana", "7.17.0")])
def test_too_old_a_product_is_rejected(product: Product, version: str) -> None:
    with DashboardsServer(product, version) as server, pytest.raises(UnsupportedTarget, match=version):
        sent(DashboardsConnection(url=server.url))


def test_product_without_version_is_accepted() -> None:
    status = Response.json({"status": {"overall": {"level": "available"}}})
    with start_server(lambda _: status) as url:
        with pytest.raises(UsageError, match="doesn't report which product"):
            found(DashboardsConnection(url=url))
        assert found(DashboardsConnection(url=url), "kibana") == DetectedProduct(product="kibana", version="")


def test_the_url_of_the_cluster_is_rejected(node_url: str) -> None:
    with pytest.raises(ClusterError, match="not as OpenSearch Dashboards or Kibana"):
        found(DashboardsConnection(url=node_url))


# --- spaces, workspaces, tenants ---


def test_spaces_get_separate_objects_and_links() -> None:
    with DashboardsServer("kibana", "8.15.0", spaces=frozenset({"team"})) as server:
        sent(DashboardsConnection(url=server.url))
        place = DashboardsConnection(url=server.url, space="team")
        imported = sent(place)
        [dashboard] = [each for each in imported if each.id == get_dashboard_id(PHOTOS)]
        assert dashboard.stored_as != dashboard.id  # that id is taken in the default space
        assert ("dashboard", dashboard.stored_as) in server.get_objects("team")
        assert place.build_link(dashboard.stored_as).endswith(f"/s/team/app/dashboards#/view/{dashboard.stored_as}")
        again = sent(place)
        assert [each.stored_as for each in again] == [each.stored_as for each in imported]
        assert len(server.get_objects("team")) == len(server.get_objects()) == len(imported)


def test_workspaces_are_separate() -> None:
    with DashboardsServer("opensearch-dashboards", workspaces=frozenset({"w1"})) as server:
        imported = sent(DashboardsConnection(url=server.url, workspace="w1"))
        assert len(server.get_objects("w1")) == len(imported)
        assert server.get_objects() == {}


def test_a_tenant_is_named_in_the_header() -> None:
    with DashboardsServer("opensearch-dashboards", tenants=frozenset({"team"})) as server:
        for tenant, held in (("team", "team"), ("private", "__user__"), ("global", "global")):
            sent(DashboardsConnection(url=server.url, tenant=tenant))
            assert server.get_objects(held)
        with pytest.raises(AuthenticationFailed, match="No tenant strangers"):
            sent(DashboardsConnection(url=server.url, tenant="strangers"))


@pytest.mark.parametrize("product", ["kibana"])
def test_a_missing_space_is_reported(server: DashboardsServer) -> None:
    with pytest.raises(ClusterError, match=r"/s/nowhere has no import API \(HTTP 404\)"):
        sent(DashboardsConnection(url=server.url, space="nowhere"))


# --- logins ---


def test_a_login_is_sent_and_a_wrong_one_rejected_without_being_shown(server: DashboardsServer) -> None:
    server.authorization = "Basic bWU6c2VjcmV0LXdvcmQ="
    good = SecuritySettings(user="me", password="secret-word")
    assert failed(sent(DashboardsConnection(url=server.url, security=good))) == {}
    for security in (
        SecuritySettings(),
        SecuritySettings(user="me", password="wrong-word"),
        SecuritySettings(api_key="wrong-key"),
    ):
        with pytest.raises(AuthenticationFailed, match="401") as caught:
            sent(DashboardsConnection(url=server.url, security=security))
        assert "STAIR_ES_DASHBOARDS_" in caught.value.remedy
        assert "wrong" not in str(caught.value)


def test_other_logins_have_their_headers(server: DashboardsServer) -> None:
    for security, header in (
        (SecuritySettings(api_key="id:key"), "ApiKey aWQ6a2V5"),
        (SecuritySettings(bearer_token="a.b.c"), "Bearer a.b.c"),
    ):
        server.authorization = header
        assert failed(sent(DashboardsConnection(url=server.url, security=security))) == {}


@pytest.mark.parametrize("page", ["/login?next=%2F", "https://sso.example.org/oauth2/authorize?state=secret-state"])
def test_a_login_page_is_recognised_and_not_followed(server: DashboardsServer, page: str) -> None:
    server.authorization, server.login_page = "Basic x", page
    with pytest.raises(AuthenticationFailed, match="redirects to a login page") as caught:
        sent(DashboardsConnection(url=server.url))
    assert "secret-state" not in str(caught.value)
    assert len(server.requests) == 1


def test_redirects_report_their_location(server: DashboardsServer) -> None:
    server.planned_responses = [Response(status=302, headers={"location": "/base/api/status"})]
    with pytest.raises(ClusterError, match=r"redirects \(HTTP 302\), to /base/api/status") as caught:
        sent(DashboardsConnection(url=server.url))
    assert "base path" in caught.value.remedy


def test_a_page_instead_of_an_answer_is_recognised(server: DashboardsServer) -> None:
    page = b"<!DOCTYPE html><html><head><title>Please log in</title><style>p { top: 0 }</style></head></html>"
    server.planned_responses = [Response(kind="text/html", body=page)]
    with pytest.raises(ClusterError, match=r"a page \(text/html\) instead of JSON") as caught:
        sent(DashboardsConnection(url=server.url))
    assert "Please log in" in caught.value.message
    assert "<" not in caught.value.message
    assert "top: 0" not in caught.value.message


def test_secrets_in_responses_are_redacted(server: DashboardsServer) -> None:
    server.planned_responses = [Response.json({"message": "no rights for secret-word"}, status=403)]
    with pytest.raises(AuthenticationFailed, match="no rights for") as caught:
        sent(DashboardsConnection(url=server.url, security=SecuritySettings(user="me", password="secret-word")))
    assert "secret-word" not in str(caught.value)


# --- what fails ---


def test_rejected_objects_are_named_one_by_one(server: DashboardsServer) -> None:
    server.refuse = lambda made: "the index is read-only" if made["id"].endswith("-bars") else None
    imported = sent(DashboardsConnection(url=server.url))
    assert failed(imported) == {PHOTOS.build_id("bars"): "the index is read-only"}
    assert len(server.get_objects()) == len(imported) - 1


def test_a_file_that_is_too_large_is_rejected_with_the_setting_to_raise(server: DashboardsServer) -> None:
    server.max_bytes = 1000
    with pytest.raises(ClusterError, match=r"rejects a file of this size \(HTTP 413\)") as caught:
        sent(DashboardsConnection(url=server.url))
    assert "savedObjects.maxImportPayloadBytes" in caught.value.remedy


def test_missing_references_and_conflicting_ids_are_named(server: DashboardsServer, product: Product) -> None:
    answers: list[tuple[Mapping[str, Any], str]] = [
        (
            {"type": "missing_references", "references": [{"type": "index-pattern", "id": "x"}]},
            "missing objects: index-pattern x",
        ),
        ({"type": "conflict"}, "another object has its id"),
        ({"type": "ambiguous_conflict", "destinations": []}, "another object has its id"),
        ({"type": "unsupported_type"}, "doesn't know objects of this type"),
        ({"type": "unknown", "message": "strict_dynamic_mapping_exception"}, "strict_dynamic_mapping_exception"),
    ]
    first = build_bundle(PHOTOS, product)[0]
    for error, said in answers:
        told = {"id": first["id"], "type": first["type"], "error": error}
        status = Response.json({"version": {"number": server.version}})
        server.planned_responses = [status, Response.json({"success": False, "successCount": 0, "errors": [told]})]
        errors = failed(sent(DashboardsConnection(url=server.url), product))
        assert said in errors[first["id"]]
        assert errors[get_dashboard_id(PHOTOS)] == "not imported, since others failed"


def test_a_version_that_is_too_new_is_reported(server: DashboardsServer) -> None:
    status = Response.json({"version": {"number": server.version}})
    message = (
        'Document "x" has property "dashboard" which belongs to a more recent version of it [9]. The last known version is [8]'
    )
    server.planned_responses = [status, Response.json({"statusCode": 422, "message": message}, status=422)]
    with pytest.raises(ClusterError, match="more recent version") as caught:
        sent(DashboardsConnection(url=server.url))
    assert "docs/dashboards.md" in caught.value.remedy


# --- what passes ---


def test_a_product_that_starts_is_waited_for(server: DashboardsServer) -> None:
    not_ready = Response(status=503, kind="text/plain", body=b"server is not ready yet")
    busy = Response(status=429, headers={"retry-after": "7"})
    makes_no_sense = Response(status=429, headers={"retry-after": "\u00b2"})
    server.planned_responses = [not_ready, busy, makes_no_sense]
    pauses: Pauses = []
    assert failed(sent(DashboardsConnection(url=server.url), pauses=pauses)) == {}
    first, requested, third = pauses
    assert first <= 2.0
    assert 7.0 <= requested <= 9.0
    assert 4.0 <= third <= 8.0


def test_permanent_outage_is_an_error(server: DashboardsServer) -> None:
    server.planned_responses = [Response(status=503, kind="text/plain", body=b"server is not ready yet")] * 9
    pauses: Pauses = []
    with pytest.raises(ClusterError, match=r"busy or not ready \(HTTP 503\): server is not ready yet"):
        sent(DashboardsConnection(url=server.url), pauses=pauses)
    assert len(pauses) == 4
    assert 14.5 <= sum(pauses) <= 29.0  # a product needs about 15 s to start


def test_lost_responses_are_retried(server: DashboardsServer) -> None:
    pauses: Pauses = []
    status = Response.json({"version": {"number": server.version}})
    server.planned_responses = [status, None]  # the import's answer never comes
    assert failed(sent(DashboardsConnection(url=server.url), pauses=pauses)) == {}
    assert len(pauses) == 1


def test_an_unreachable_server_is_reported(server: DashboardsServer) -> None:
    with pytest.raises(ClusterUnreachable, match="neither OpenSearch Dashboards nor Kibana answers") as caught:
        sent(DashboardsConnection(url="http://127.0.0.1:9", timeout_s=2))
    assert "5601" in caught.value.remedy


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _tls(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(made)
    return made


@pytest.mark.parametrize("product", ["kibana"])
def test_tls_is_verified(server: DashboardsServer, authority: trustme.CA, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    proxy = RecordingProxy(server.url, tls=_tls(authority))
    try:
        assert failed(sent(DashboardsConnection(url=proxy.url, security=SecuritySettings(ca_file=str(ca_file))))) == {}
        with pytest.raises(ClusterUnreachable, match="no TLS connection") as caught:
            sent(DashboardsConnection(url=proxy.url))
        assert "--dashboards-ca-file / STAIR_ES_DASHBOARDS_CA_FILE" in caught.value.remedy
        with pytest.raises(ClusterUnreachable, match="no certificate of the server matches"):
            sent(DashboardsConnection(url=proxy.url, security=SecuritySettings(ca_fingerprint="0" * 64)))
    finally:
        proxy.kill()


# --- the server is as strict as it says ---


def raw(
    server: DashboardsServer, body: str, *, name: str = "a.ndjson", query: str = "", headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    xsrf = {"osd-xsrf": "true", "kbn-xsrf": "true"} if headers is None else dict(headers)
    with urllib3.PoolManager() as pool:
        came = pool.request(
            "POST",
            f"{server.url}/api/saved_objects/_import{query}",
            fields={"file": (name, body.encode(), "application/ndjson")},
            headers=xsrf,
        )
        return came.status, came.json()


def test_server_rejects_what_products_reject(server: DashboardsServer, product: Product) -> None:
    good = to_ndjson(build_bundle(PHOTOS, product))
    other = {"opensearch-dashboards": "kbn-xsrf", "kibana": "osd-xsrf"}[product]
    assert raw(server, good, headers={other: "true"})[0] == 400
    assert "Invalid file extension" in raw(server, good, name="a.json")[1]["message"]
    assert raw(server, good, query="?overwrite=true&createNewCopies=true")[0] == 400
    assert raw(server, good, query="?strange=1")[0] == 400
    assert "Non-unique" in raw(server, good + good)[1]["message"]
    assert server.get_objects() == {}

    alone = [made for made in build_bundle(PHOTOS, product) if made["type"] != "index-pattern"]
    status, answer = raw(server, to_ndjson(alone))
    assert (status, answer["success"], answer["successCount"]) == (200, False, 0)
    assert {each["error"]["type"] for each in answer["errors"]} == {"missing_references"}

    assert raw(server, good)[1]["success"]
    status, answer = raw(server, good)
    assert {each["error"]["type"] for each in answer["errors"]} == {"conflict"}
    assert raw(server, good, query="?overwrite=true")[1]["success"]


def change(objects: list[dict[str, Any]], by: Callable[[dict[str, Any]], None]) -> str:
    by(objects[-1])
    return to_ndjson(objects)


def test_the_server_knows_versions_types_and_attributes(server: DashboardsServer, product: Product) -> None:
    newer = change(build_bundle(PHOTOS, product), lambda made: made.update(migrationVersion={"dashboard": "9.9.9"}))
    status, answer = raw(server, newer)
    assert status == 422
    assert "more recent version" in answer["message"]
    lens = raw(server, change(build_bundle(PHOTOS, product), lambda made: made.update(type="canvas")))[1]
    assert lens["errors"][0]["error"]["type"] == "unsupported_type"
    strange = raw(
        server,
        change(build_bundle(PHOTOS, product), lambda made: made["attributes"].update(sections=[])),
        query="?overwrite=true",
    )[1]
    assert "sections" in strange["errors"][0]["error"]["message"]


def test_each_products_dashboard_is_rejected_by_the_other() -> None:
    with DashboardsServer("opensearch-dashboards") as server:
        answer = raw(server, to_ndjson(build_bundle(PHOTOS, "kibana")))[1]
        assert "controlGroupInput" in answer["errors"][0]["error"]["message"]


# --- the command ---


def command(*arguments: str, **environ: str) -> Result:
    whole = {"STAIR_ES_URL": "", "STAIR_ES_DASHBOARDS_URL": "", "COLUMNS": "200", **environ}
    return CliRunner().invoke(app, ["dashboards", *arguments], env=whole)


def told(result: Result) -> StairError:
    assert isinstance(result.exception, StairError), result.output
    return result.exception


def test_the_command_prints_the_link(server: DashboardsServer) -> None:
    done = command("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{server.url}/app/dashboards#/view/{get_dashboard_id(PHOTOS)}\n"
    assert "objects imported" in done.stderr


def test_command_reports_each_object_as_json(server: DashboardsServer, product: Product) -> None:
    server.refuse = lambda made: "no" if made["id"].endswith("-bars") else None
    done = command("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url, "--json")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert set(answer) == {"product", "version", "url", "imported", "rejected", "objects"}
    assert (answer["product"], answer["rejected"]) == (product, 1)
    assert [each["error"] for each in answer["objects"] if "error" in each] == ["no"]
    plain = command("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url)
    assert plain.exit_code == 3
    assert f"({PHOTOS.build_id('bars')}): no" in plain.stderr


@pytest.mark.parametrize("product", ["opensearch-dashboards"])
def test_a_tenant_without_the_security_plugin_is_remarked(server: DashboardsServer) -> None:
    options = ("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url, "--tenant", "global")
    remark = "has no security plugin, so there are no tenants"
    assert remark not in command(*options).stderr  # it lists no plugins
    server.plugins = ("dashboard", "securityDashboards")
    assert remark not in command(*options).stderr
    server.plugins = ("dashboard",)
    done = command(*options)
    assert done.exit_code == 0, done.output
    assert remark in done.stderr
    assert remark not in command(*options[:-2]).stderr


def test_links_lead_to_the_page(server: DashboardsServer) -> None:
    options = ("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url, "--page-url")
    assert command(*options, "https://photos.example.org/a/").exit_code == 0
    formats = server.get_objects()["index-pattern", PHOTOS.build_id("images")]["attributes"]["fieldFormatMap"]
    assert json.loads(formats)["_id"]["params"]["urlTemplate"] == "https://photos.example.org/a/image/{{value}}"
    assert "--page-url" in told(command(*options, "photos.example.org")).message


def test_the_command_fails_if_no_object_was_imported(server: DashboardsServer) -> None:
    server.refuse = lambda made: "no"
    done = command("publish", "--index", "photos", "--token-index", "--dashboards-url", server.url, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["url"] is None


def test_a_password_on_the_command_line_is_rejected(server: DashboardsServer) -> None:
    done = command("publish", "--token-index", "--dashboards-url", server.url.replace("//", "//me:secret-word@"))
    assert "a password on the command line" in told(done).message
    assert server.requests == []
    from_environment = command(
        "publish", "--index", "photos", "--token-index", STAIR_ES_DASHBOARDS_URL=server.url.replace("//", "//me:secret-word@")
    )
    assert from_environment.exit_code == 0, from_environment.output
    assert "secret-word" not in from_environment.output


def test_export_needs_no_cluster_with_explicit_options(tmp_path: Path) -> None:
    file = tmp_path / "photos.ndjson"
    done = command("export", "--index", "photos", "--token-index", "--product", "kibana", "-o", str(file))
    assert done.exit_code == 0, done.output
    assert file.read_text() == to_ndjson(build_bundle(PHOTOS, "kibana"))
    out = command("export", "--index", "photos", "--token-index", "--product", "kibana", "-o", "-")
    assert out.stdout == file.read_text()
    with DashboardsServer("kibana", "8.15.0") as server:
        assert raw(server, file.read_text())[1]["success"]


def test_export_names_the_options_that_it_needs(tmp_path: Path) -> None:
    file = str(tmp_path / "photos.ndjson")
    assert "the product is unknown" in told(command("export", "--token-index", "-o", file)).message
    other = told(command("export", "--token-index", "-o", "photos.json"))
    assert "the extension .ndjson" in other.message
    assert other.remedy == "Use photos.ndjson"
    away = command("export", "-o", file, "--url", "http://127.0.0.1:9")
    assert "Or give --token-index or --no-token-index" in told(away).remedy
    still = command("export", "-o", file, "--url", "http://127.0.0.1:9", "--no-token-index", "--product", "kibana")
    assert still.exit_code == 0, still.output
    assert "the cluster was not queried" in still.stderr


def test_export_looks_at_the_index(node_url: str, index_name: str, tmp_path: Path) -> None:
    from support.corpora.dashboard_corpus import ingest_corpus

    assert "there is no index or alias" in told(command("export", "--index", index_name, "-o", "-", "--url", node_url)).message
    ingest_corpus(node_url, index_name, tmp_path, token_index=False)
    done = command("export", "--index", index_name, "-o", "-", "--url", node_url)
    assert done.exit_code == 0, done.output
    assert f"--index {index_name} --token-index creates it" in done.stderr
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert find_errors(objects, "opensearch-dashboards") == []
    assert any(made["id"].endswith("-controls") for made in objects)  # OpenSearch has OpenSearch Dashboards
    assert not any(made["id"].endswith("-average-weight") for made in objects)

    over_time = next(made for made in objects if made["id"].endswith("-over-time"))["attributes"]
    assert over_time["title"].startswith("Words over time (taken)")
    assert '"interval":"M"' in over_time["visState"]
    other = command("export", "--index", index_name, "-o", "-", "--url", node_url, "--time-field", "ingested_at")
    assert "no panel 'Words over time': all images have the same day in ingested_at" in other.stderr
    assert "-over-time" not in other.stdout

    with DashboardsServer("opensearch-dashboards") as server:
        published = command("publish", "--index", index_name, "--url", node_url, "--dashboards-url", server.url)
        assert published.exit_code == 0, published.output
        assert [made["id"] for made in objects] == [id_ for _, id_ in server.get_objects()]
