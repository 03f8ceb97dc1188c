"""Connection and login of the dashboards, and the checks before any request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.dashboards.connection import (
    DASHBOARDS_VARIABLES,
    DashboardsConnection,
    build_dashboards_connection,
    parse_page_url,
)
from stair_es.errors import UsageError

URL = "http://localhost:5601"


def test_a_place_has_a_scope_and_a_link() -> None:
    assert DashboardsConnection(url=f"{URL}/").build_link("a-b") == f"{URL}/app/dashboards#/view/a-b"
    assert (
        DashboardsConnection(url=f"{URL}/base/", space="photo team").build_link("x")
        == f"{URL}/base/s/photo%20team/app/dashboards#/view/x"
    )
    assert DashboardsConnection(url=URL, space="default").path_prefix == ""
    assert DashboardsConnection(url=URL, workspace="w1").path_prefix == "/w/w1"
    assert DashboardsConnection(url=URL, tenant="a b").build_link("x") == f"{URL}/app/dashboards?security_tenant=a%20b#/view/x"


@pytest.mark.parametrize(("tenant", "header"), [("global", "global"), ("private", "__user__"), ("team", "team"), (None, None)])
def test_tenants_have_the_names_of_the_plugin(tenant: str | None, header: str | None) -> None:
    assert DashboardsConnection(url=URL, tenant=tenant).tenant_header == header


def test_part_names_its_product() -> None:
    assert DashboardsConnection(url=URL).product is None
    assert DashboardsConnection(url=URL, space="s").product == "kibana"
    assert (
        DashboardsConnection(url=URL, workspace="w").product
        == DashboardsConnection(url=URL, tenant="t").product
        == "opensearch-dashboards"
    )


@pytest.mark.parametrize(
    "url", ["", "localhost:5601", "ftp://host", f"{URL}/app/dashboards#/view/x", f"{URL}?a=b", "http://host:0", "http://[x"]
)
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(UsageError, match="not the address of a product"):
        DashboardsConnection(url=url)


def test_parts_of_two_products_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--space is for Kibana"):
        DashboardsConnection(url=URL, space="s", tenant="t")


def test_login_in_the_url_is_used_and_hidden() -> None:
    connection = DashboardsConnection(url="https://me:p%40ss@host/base", security=SecuritySettings(ca_file="ca.pem"))
    assert (connection.security.user, connection.security.password, connection.security.ca_file) == ("me", "p@ss", "ca.pem")
    assert connection.safe_url == "https://host/base"
    assert "p@ss" not in repr(connection)
    assert "p%40ss" not in repr(connection)
    assert connection.redact("sent p@ss and p%40ss") == "sent *** and ***"


def test_a_second_login_is_rejected() -> None:
    with pytest.raises(UsageError, match="the URL of the dashboards contains a login, but another login is set"):
        DashboardsConnection(url="https://me:pass@host", security=SecuritySettings(api_key="abc"))


def test_certificates_need_https() -> None:
    with pytest.raises(UsageError, match="certificates require https"):
        DashboardsConnection(url=URL, security=SecuritySettings(ca_file="ca.pem"))


def test_logins_come_from_the_environment_and_its_files(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    environ = {"STAIR_ES_DASHBOARDS_URL": URL, "STAIR_ES_DASHBOARDS_USER": "me", "STAIR_ES_DASHBOARDS_PASSWORD_FILE": str(file)}
    connection = build_dashboards_connection(None, {}, environ)
    assert (connection.safe_url, connection.security.user, connection.security.password) == (URL, "me", "secret")
    token = build_dashboards_connection(URL, {}, {"STAIR_ES_DASHBOARDS_TOKEN": "t" * 8})
    assert token.security.authorization == "Bearer tttttttt"
    key = build_dashboards_connection(URL, {}, {"STAIR_ES_DASHBOARDS_API_KEY": "id:key"})
    assert key.security.authorization == "ApiKey aWQ6a2V5"


def test_the_login_of_the_cluster_is_not_sent_to_dashboards() -> None:
    environ = {"STAIR_ES_USER": "me", "STAIR_ES_PASSWORD": "secret", "STAIR_ES_API_KEY": "key"}
    assert build_dashboards_connection(URL, {}, environ).security.method == "none"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "no URL of OpenSearch Dashboards or Kibana"),
        ({"URL": URL, "USER": "me"}, "has no password"),
        ({"URL": URL, "PASSWORD": "secret"}, "has no user"),
        ({"URL": URL, "API_KEY": "a", "TOKEN": "b"}, "more than one way to log in"),
        ({"URL": URL, "TOKEN": "a b"}, "STAIR_ES_DASHBOARDS_TOKEN contains spaces"),
        ({"URL": URL, "PASSWORD": "a", "PASSWORD_FILE": "b"}, "are both set"),
        ({"URL": "https://h", "CLIENT_KEY": "k.pem"}, "a client key without its certificate"),
        ({"URL": "https://h", "CA_FILE": "a", "CA_FINGERPRINT": "b"}, "are mutually exclusive"),
    ],
)
def test_conflicting_settings_are_rejected_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        build_dashboards_connection(None, {}, {f"STAIR_ES_DASHBOARDS_{name}": value for name, value in environ.items()})
    assert "STAIR_ES_USER" not in str(error.value)


def test_copies_keep_the_login() -> None:
    connection = replace(DashboardsConnection(url="https://me:secret@host"), timeout_s=1.0)
    assert (connection.security.user, connection.security.password) == ("me", "secret")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("ca_fingerprint", "zz", "--dashboards-ca-fingerprint"), ("user", "\udcff", "STAIR_ES_DASHBOARDS_USER isn't UTF-8")],
)
def test_errors_name_the_settings_of_the_product(name: str, value: str, message: str) -> None:
    settings = {"password": "secret"} if name == "user" else {}
    with pytest.raises(UsageError) as error:
        SecuritySettings(variables=DASHBOARDS_VARIABLES, **{name: value}, **settings)  # type: ignore[arg-type]
    assert message in error.value.message


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (None, None),
        ("http://localhost:8000/", "http://localhost:8000"),
        (" https://photos.example.org/images/ ", "https://photos.example.org/images"),
    ],
)
def test_the_page_is_a_url_without_a_slash_at_its_end(given: str | None, parsed: str | None) -> None:
    assert parse_page_url(given) == parsed


@pytest.mark.parametrize(
    "given",
    [
        "",
        "localhost:8000",
        "javascript:alert(1)",
        "http://",
        "http://me:pw@host",
        "http://host?a=b",
        "http://host/#/",
        "http://[",
        "http://host/{{rawValue}}",
    ],
)
def test_what_is_no_page_is_rejected(given: str) -> None:
    with pytest.raises(UsageError, match="--page-url is not the URL of a page"):
        parse_page_url(given)
