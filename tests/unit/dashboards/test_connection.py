"""Connection and login of the dashboards, and the checks before any request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.dashboards.connection import DASHBOARDS_VARIABLES, DashboardsConnection, build_dashboards_connection, parse_page_url

URL = "http://localhost:5601"


def test_a_connection_has_a_path_prefix_and_a_link() -> None:
    assert DashboardsConnection(url=f"{URL}/").build_link("a-b") == f"{URL}/app/dashboards#/view/a-b"
    in_space = DashboardsConnection(url=f"{URL}/base/", space="photo team")
    assert in_space.build_link("x") == f"{URL}/base/s/photo%20team/app/dashboards#/view/x"
    assert DashboardsConnection(url=URL, space="default").path_prefix == ""
    assert DashboardsConnection(url=URL, workspace="w1").path_prefix == "/w/w1"
    assert DashboardsConnection(url=URL, tenant="a b").build_link("x") == f"{URL}/app/dashboards?security_tenant=a%20b#/view/x"


@pytest.mark.parametrize(("tenant", "header"), [("global", "global"), ("private", "__user__"), ("team", "team"), (None, None)])
def test_tenants_have_the_names_of_the_plugin(tenant: str | None, header: str | None) -> None:
    assert DashboardsConnection(url=URL, tenant=tenant).tenant_header == header


def test_a_part_implies_its_product() -> None:
    assert DashboardsConnection(url=URL).product is None
    assert DashboardsConnection(url=URL, space="s").product == "kibana"
    for connection in (DashboardsConnection(url=URL, workspace="w"), DashboardsConnection(url=URL, tenant="t")):
        assert connection.product == "opensearch-dashboards"


@pytest.mark.parametrize(
    "url", ["", "localhost:5601", "ftp://host", f"{URL}/app/dashboards#/view/x", f"{URL}?a=b", "http://host:0", "http://[x"]
)
def test_an_invalid_url_is_rejected(url: str) -> None:
    with expect_error("invalid-server-url"):
        DashboardsConnection(url=url)


@pytest.mark.parametrize(
    ("url", "parts", "code", "fact"),
    [
        (URL, {"space": "s", "tenant": "t"}, "option-conflict", "--space"),
        ("https://me:pass@host", {"security": SecuritySettings(api_key="abc")}, "option-conflict", "login"),
        (URL, {"security": SecuritySettings(ca_file="ca.pem")}, "certificate-without-https", URL),
    ],
    ids=["parts of two products", "two logins", "certificate without https"],
)
def test_contradicting_parts_are_rejected(url: str, parts: dict[str, Any], code: str, fact: str) -> None:
    with expect_error(code) as caught:
        DashboardsConnection(url=url, **parts)
    assert fact in caught.value.message


def test_login_in_the_url_is_used_and_hidden() -> None:
    connection = DashboardsConnection(url="https://me:p%40ss@host/base", security=SecuritySettings(ca_file="ca.pem"))
    assert (connection.security.user, connection.security.password, connection.security.ca_file) == ("me", "p@ss", "ca.pem")
    assert connection.safe_url == "https://host/base"
    assert "p@ss" not in repr(connection)
    assert "p%40ss" not in repr(connection)
    assert connection.redact("p@ss, p%40ss") == "***, ***"
    assert replace(connection, timeout_s=1.0).security == connection.security


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
    ("environ", "code", "fact"),
    [
        ({}, "no-dashboards-url", ""),
        ({"URL": URL, "USER": "me"}, "incomplete-login", "password"),
        ({"URL": URL, "PASSWORD": "secret"}, "incomplete-login", "user"),
        ({"URL": URL, "API_KEY": "a", "TOKEN": "b"}, "option-conflict", "STAIR_ES_DASHBOARDS_"),
        ({"URL": URL, "TOKEN": "a b"}, "invalid-header-value", "STAIR_ES_DASHBOARDS_TOKEN"),
        ({"URL": URL, "PASSWORD": "a", "PASSWORD_FILE": "b"}, "option-conflict", "STAIR_ES_DASHBOARDS_PASSWORD_FILE"),
        ({"URL": "https://h", "CLIENT_KEY": "k.pem"}, "client-key-without-certificate", ""),
        ({"URL": "https://h", "CA_FILE": "a", "CA_FINGERPRINT": "b"}, "option-conflict", "--dashboards-ca-"),
    ],
)
def test_conflicting_settings_are_rejected_by_name(environ: dict[str, str], code: str, fact: str) -> None:
    with expect_error(code) as caught:
        build_dashboards_connection(None, {}, {f"STAIR_ES_DASHBOARDS_{name}": value for name, value in environ.items()})
    assert fact in str(caught.value)
    assert "STAIR_ES_USER" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "code", "name"),
    [
        ({"ca_fingerprint": "zz"}, "not-a-fingerprint", "--dashboards-ca-fingerprint"),
        ({"user": "\udcff", "password": "secret"}, "secret-not-utf-8", "STAIR_ES_DASHBOARDS_USER"),
    ],
)
def test_errors_name_the_settings_of_the_product(settings: dict[str, Any], code: str, name: str) -> None:
    with expect_error(code) as caught:
        SecuritySettings(variables=DASHBOARDS_VARIABLES, **settings)
    assert name in caught.value.message


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
    with expect_error("invalid-page-url"):
        parse_page_url(given)
