"""Every way to log in, as the server sees it; and that no secret is shown, whatever happens."""

from __future__ import annotations

import base64
import hashlib
import logging
import pickle
import re
from functools import partial
from operator import attrgetter
from pathlib import Path

import pytest
from support.errors import expect_error
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.aliases import get_alias_targets
from stair_es.errors import ClusterError, UsageError
from stair_es.retry import RetryPolicy

_REGION = "eu-central-1"
# Each secret is one word that can be looked for.
_SECRET = "hunter2päss,wörd:/"
_BASIC = "Basic " + base64.b64encode(f"anna:{_SECRET}".encode()).decode()
_KEY = base64.b64encode(b"key-id:hunter2").decode()


def _write_secret(folder: Path, text: str) -> str:
    path = folder / "secret"
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("environ", "header"),
    [
        ({"STAIR_ES_USER": "anna", "STAIR_ES_PASSWORD": _SECRET}, _BASIC),
        ({"STAIR_ES_USER": "anna", "STAIR_ES_PASSWORD_FILE": _SECRET}, _BASIC),
        ({"STAIR_ES_API_KEY": "key-id:hunter2"}, f"ApiKey {_KEY}"),
        ({"STAIR_ES_API_KEY": _KEY}, f"ApiKey {_KEY}"),
        ({"STAIR_ES_API_KEY_FILE": _KEY}, f"ApiKey {_KEY}"),
        ({"STAIR_ES_BEARER_TOKEN": "ey.hunter2"}, "Bearer ey.hunter2"),
        ({"STAIR_ES_BEARER_TOKEN_FILE": "ey.hunter2"}, "Bearer ey.hunter2"),
        ({}, None),
    ],
)
def test_settings_of_the_environment_are_sent(node_url: str, tmp_path: Path, environ: dict[str, str], header: str | None) -> None:
    environ = {name: _write_secret(tmp_path, value) if name.endswith("_FILE") else value for name, value in environ.items()}
    with RecordingProxy(node_url) as proxy:
        connection = pickle.loads(pickle.dumps(Connection.from_env(environ={**environ, "STAIR_ES_URL": proxy.url})))
        with Cluster(connection) as cluster:
            assert get_cluster_info(cluster).label == "OpenSearch 3.8.0"
        assert {request.headers.get("authorization") for request in proxy.requests} == {header}
    assert "hunter2" not in repr(connection) + repr(connection.security) + f"{cluster.client!r}{vars(cluster.client)!r}"


def test_url_may_be_in_a_file(tmp_path: Path) -> None:
    path = _write_secret(tmp_path, "https://anna:hunter2@localhost:9200/search,https://anna:hunter2@localhost:9201")
    connection = Connection.from_env(environ={"STAIR_ES_URL_FILE": path})
    assert connection.nodes == ["https://localhost:9200/search", "https://localhost:9201"]
    assert connection.security.method == "basic"
    assert "hunter2" not in f"{connection!r} {connection.safe_url}"


@pytest.mark.parametrize(
    ("environ", "code", "facts"),
    [
        ({"STAIR_ES_USER": "anna"}, "incomplete-login", ["password"]),
        ({"STAIR_ES_PASSWORD": "hunter2"}, "incomplete-login", ["user"]),
        ({"STAIR_ES_USER": "anna", "STAIR_ES_PASSWORD": "hunter2", "STAIR_ES_API_KEY": "hunter2"}, "option-conflict", []),
        (
            {"STAIR_ES_API_KEY": "hunter2", "STAIR_ES_AWS_SERVICE": "es"},
            "option-conflict",
            ["STAIR_ES_API_KEY", "STAIR_ES_AWS_SERVICE"],
        ),
        ({"STAIR_ES_API_KEY": "hunter2\nx: y"}, "invalid-header-value", []),
        ({"STAIR_ES_BEARER_TOKEN": "hunter2 hunter2"}, "invalid-header-value", []),
        ({"STAIR_ES_API_KEY": "hunter2", "STAIR_ES_API_KEY_FILE": "x"}, "option-conflict", ["STAIR_ES_API_KEY_FILE"]),
        ({"STAIR_ES_API_KEY_FILE": "/no/such/file"}, "secret-file-unreadable", ["STAIR_ES_API_KEY_FILE"]),
        ({"STAIR_ES_URL": "http://anna:hunter2@localhost", "STAIR_ES_API_KEY": "hunter2"}, "option-conflict", ["URL"]),
        ({"STAIR_ES_URL": "http://anna:hunter2@localhost,http://anna:hunter22@localhost"}, "different-logins", []),
        ({"STAIR_ES_URL": "http://anna:12#hunter2@localhost"}, "invalid-server-url", []),
        ({"STAIR_ES_URL": "http://anna:12/hunter2@localhost"}, "invalid-server-url", []),
        ({"STAIR_ES_AWS_SERVICE": "s3"}, "unknown-aws-service", ["s3"]),
        ({"STAIR_ES_AWS_REGION": "eu-central-1"}, "aws-region-without-service", []),
        ({"STAIR_ES_CLIENT_KEY": "key.pem"}, "client-key-without-certificate", []),
        ({"STAIR_ES_CA_FILE": "ca.pem"}, "certificate-without-https", []),
        ({"STAIR_ES_CA_FINGERPRINT": "ab:cd"}, "not-a-fingerprint", []),
    ],
)
def test_conflicting_settings_are_usage_errors(environ: dict[str, str], code: str, facts: list[str]) -> None:
    with expect_error(code, UsageError) as caught:
        Connection.from_env(environ={"STAIR_ES_URL": "http://localhost", **environ})
    assert [fact for fact in facts if fact not in caught.value.message] == []
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("security", "remedy"),
    [
        (SecuritySettings(), "STAIR_ES_API_KEY"),
        (SecuritySettings(user="anna", password="hunter2"), "STAIR_ES_PASSWORD"),
        (SecuritySettings(api_key="id:hunter2"), "STAIR_ES_API_KEY"),
        (SecuritySettings(bearer_token="hunter2"), "STAIR_ES_BEARER_TOKEN"),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 400, 500, 302])
def test_echoed_secrets_are_redacted(
    security: SecuritySettings, remedy: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def echo_secrets(request: RecordedRequest) -> StubResponse:
        sent = request.headers.get("authorization", "")
        body = f'{{"error": {{"type": "echo", "reason": "you sent {sent}, {base64.b64encode(b"hunter2")!r} hunter2"}}}}'
        headers = {"content-type": "application/json", "location": "https://anna:hunter2@elsewhere.example.org/?key=hunter2"}
        return StubResponse(status=status, body=body.encode(), headers=headers)

    with caplog.at_level(logging.DEBUG, "stair_es"), RecordingProxy(None, gate=echo_secrets) as proxy:
        connection = Connection(url=proxy.url, security=security)
        with Cluster(connection, sleep=lambda _: None) as cluster, pytest.raises(ClusterError) as caught:
            cluster.call(cluster.client.get, index="i", id="1", retry=RetryPolicy(attempts=3))
    output = f"{caught.value} {caught.value!r} {caplog.text}"
    if security.method != "none":
        assert "hunter2" not in output
        assert (security.authorization or "").split()[1] not in output
    assert len(proxy.requests) == 1, "nothing of this passes by itself, and no redirect is followed"
    if status == 401:
        assert caught.value.code == "login-refused"
        assert remedy in caught.value.remedy
    if status == 302:
        assert "https://elsewhere.example.org" in caught.value.message


def test_a_forbidden_version_request_names_the_permission() -> None:
    with (
        RecordingProxy(None, gate=lambda _: StubResponse(status=403)) as proxy,
        Cluster(Connection(url=proxy.url)) as cluster,
        expect_error("version-unknown") as caught,
    ):
        get_cluster_info(cluster)
    assert "monitor" in caught.value.remedy


@pytest.mark.parametrize(
    ("path", "arguments", "facts"),
    [
        ("indices.exists", {"index": "photos"}, ["HEAD /photos ", "indices:admin/get"]),
        ("indices.exists_alias", {"index": "a", "name": "b"}, ["HEAD /a/_alias/b ", "indices:admin/aliases/get"]),
        ("search", {"index": "hunter2"}, ["POST /***/_search "]),
    ],
)
def test_a_rejected_request_names_the_missing_permission(path: str, arguments: dict[str, str], facts: list[str]) -> None:
    """Also where the answer has no body, as that to HEAD."""
    security = SecuritySettings(user="anna", password="hunter2")
    with (
        RecordingProxy(None, gate=lambda _: StubResponse(status=403)) as proxy,
        Cluster(Connection(url=proxy.url, security=security)) as cluster,
        expect_error("request-forbidden") as caught,
    ):
        cluster.call(partial(attrgetter(path)(cluster.client), **arguments))
    assert [fact for fact in facts if fact not in caught.value.message] == []
    assert "docs/howto/secure.md#roles" in caught.value.remedy


def test_proxy_rejects_requests_without_an_index() -> None:
    with RecordingProxy(None) as proxy:
        proxy.gate = lambda _: StubResponse(status=200)
        with Cluster(Connection(url=proxy.url)) as cluster:
            assert get_alias_targets(cluster, "photos") == []
            assert proxy.requests[-1].target == "/photos/_alias/photos"
            with expect_error("request-forbidden"):
                cluster.call(cluster.client.indices.get_alias, name="photos")


# --- SigV4: the server verifies signatures with the AWS SDK ---


@pytest.fixture
def set_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own AWS configuration must not matter, and nothing may be asked of an instance's metadata service."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_SESSION_TOKEN": "session-token",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


def _is_signed(request: RecordedRequest, service: str, origin: str) -> bool:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import Credentials  # type: ignore[import-untyped]

    header = request.headers.get("authorization", "")
    match = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{{8}}/{_REGION}/{service}/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=(\w+)",
        header,
    )
    if match is None or request.headers["x-amz-content-sha256"] != hashlib.sha256(request.body).hexdigest():
        return False
    signed = {name: request.headers[name] for name in match[1].split(";")}
    signed_request = AWSRequest(method=request.method, url=origin + request.target, data=request.body, headers=signed)
    signed_request.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", "hunter2", "session-token"), service, _REGION)
    signature = auth.signature(auth.string_to_sign(signed_request, auth.canonical_request(signed_request)), signed_request)
    return "host" in signed and "x-amz-date" in signed and bool(signature == match[2])


@pytest.mark.usefixtures("set_aws_environment")
@pytest.mark.parametrize("service", ["es", "aoss"])
def test_each_request_is_signed_as_it_arrives(node_url: str, index_name: str, service: str) -> None:
    with RecordingProxy(node_url) as proxy:
        proxy.gate = lambda request: None if _is_signed(request, service, proxy.url) else StubResponse(status=403)
        environ = {"STAIR_ES_URL": proxy.url, "STAIR_ES_AWS_SERVICE": service, "STAIR_ES_AWS_REGION": _REGION}
        connection = Connection.from_env(environ=environ)
        with Cluster(connection) as cluster:
            client = cluster.client
            client.index(index=index_name, id="a/b c+d%ü", body={"words": "größer +&="}, params={"refresh": "true"})
            client.bulk(index=index_name, body=[{"index": {"_id": "2"}}, {"words": "rot"}], params={"require_alias": "false"})
            stored = client.get(index=index_name, id="a/b c+d%ü", params={"_source_includes": "words,more"})
        assert stored["_source"] == {"words": "größer +&="}
        assert len(proxy.requests) == 3
    assert "hunter2" not in f"{connection!r}{connection.security!r}"


@pytest.mark.usefixtures("set_aws_environment")
def test_a_signature_for_another_service_is_rejected(node_url: str) -> None:
    with RecordingProxy(node_url) as proxy:
        proxy.gate = lambda request: None if _is_signed(request, "es", proxy.url) else StubResponse(status=403)
        connection = Connection(url=proxy.url, security=SecuritySettings(aws_service="aoss", aws_region=_REGION))
        with Cluster(connection) as cluster, expect_error("request-forbidden") as caught:
            cluster.call(cluster.client.info)
    assert "access policy" in caught.value.remedy


@pytest.mark.usefixtures("set_aws_environment")
def test_missing_aws_settings_are_usage_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(url="https://localhost", security=SecuritySettings(aws_service="es"))
    with expect_error("no-aws-region", UsageError):
        connection.client()
    monkeypatch.setenv("AWS_DEFAULT_REGION", _REGION)
    connection.client().close()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with expect_error("invalid-aws-configuration", UsageError) as caught:
        connection.client()
    assert "nobody" in caught.value.message
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with expect_error("no-aws-credentials"):
        connection.client()
