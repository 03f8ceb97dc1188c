"""SigV4: the server verifies signatures with the AWS SDK."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from support.errors import expect_error
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import UsageError
from stair_es.optional import import_optional

_CREDENTIALS = import_optional("botocore.credentials", "aws").Credentials("AKIDEXAMPLE", "hunter2", "session-token")
_REGION = "eu-central-1"


@pytest.fixture(autouse=True)
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
    header = request.headers.get("authorization", "")
    match = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{{8}}/{_REGION}/{service}/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=(\w+)",
        header,
    )
    if match is None or request.headers["x-amz-content-sha256"] != hashlib.sha256(request.body).hexdigest():
        return False
    signed = {name: request.headers[name] for name in match[1].split(";")}
    signed_request = import_optional("botocore.awsrequest", "aws").AWSRequest(
        method=request.method, url=origin + request.target, data=request.body, headers=signed
    )
    signed_request.context["timestamp"] = request.headers["x-amz-date"]
    auth = import_optional("botocore.auth", "aws").SigV4Auth(_CREDENTIALS, service, _REGION)
    again = auth.signature(auth.string_to_sign(signed_request, auth.canonical_request(signed_request)), signed_request)
    return "host" in signed and "x-amz-date" in signed and bool(again == match[2])


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


def test_a_signature_for_another_service_is_rejected(node_url: str) -> None:
    with RecordingProxy(node_url) as proxy:
        proxy.gate = lambda request: None if _is_signed(request, "es", proxy.url) else StubResponse(status=403)
        connection = Connection(url=proxy.url, security=SecuritySettings(aws_service="aoss", aws_region=_REGION))
        with Cluster(connection) as cluster, expect_error("request-forbidden") as caught:
            cluster.call(cluster.client.info)
    assert "access policy" in caught.value.remedy


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
