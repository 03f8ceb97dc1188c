"""SigV4: the server verifies signatures with the AWS SDK."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import AuthenticationFailed, UsageError
from stair_es.optional import import_optional

_CREDENTIALS = import_optional("botocore.credentials", "aws").Credentials("AKIDEXAMPLE", "hunter2", "session-token")
_REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def _verified(asked: RecordedRequest, service: str, origin: str) -> bool:
    header = asked.headers.get("authorization", "")
    found = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{{8}}/{_REGION}/{service}/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=(\w+)",
        header,
    )
    if found is None or asked.headers["x-amz-content-sha256"] != hashlib.sha256(asked.body).hexdigest():
        return False
    signed = {name: asked.headers[name] for name in found[1].split(";")}
    request = import_optional("botocore.awsrequest", "aws").AWSRequest(
        method=asked.method, url=origin + asked.target, data=asked.body, headers=signed
    )
    request.context["timestamp"] = asked.headers["x-amz-date"]
    auth = import_optional("botocore.auth", "aws").SigV4Auth(_CREDENTIALS, service, _REGION)
    again = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return "host" in signed and "x-amz-date" in signed and bool(again == found[2])


@pytest.mark.parametrize("service", ["es", "aoss"])
def test_each_request_is_signed_as_it_arrives(node_url: str, index_name: str, service: str) -> None:
    def gate(asked: RecordedRequest) -> StubResponse | None:
        return None if _verified(asked, service, proxy.url) else StubResponse(status=403, body=b'{"message": "signature"}')

    with RecordingProxy(node_url, gate=gate) as proxy:
        environ = {"STAIR_ES_URL": proxy.url, "STAIR_ES_AWS_SERVICE": service, "STAIR_ES_AWS_REGION": _REGION}
        connection = Connection.from_env(environ=environ)
        with Cluster(connection) as cluster:
            client = cluster.client
            client.index(index=index_name, id="a/b c+d%ü", body={"words": "größer +&="}, params={"refresh": "true"})
            client.bulk(index=index_name, body=[{"index": {"_id": "2"}}, {"words": "rot"}], params={"require_alias": "false"})
            found = client.get(index=index_name, id="a/b c+d%ü", params={"_source_includes": "words,more"})
        assert found["_source"] == {"words": "größer +&="}
        assert len(proxy.requests) == 3
    assert "hunter2" not in f"{connection!r}{connection.security!r}"


def test_a_signature_for_another_service_is_rejected(node_url: str) -> None:
    with RecordingProxy(
        node_url, gate=lambda asked: None if _verified(asked, "es", proxy.url) else StubResponse(status=403)
    ) as proxy:
        connection = Connection(url=proxy.url, security=SecuritySettings(aws_service="aoss", aws_region=_REGION))
        with Cluster(connection) as cluster, pytest.raises(AuthenticationFailed) as caught:
            cluster.call(cluster.client.info)
    assert "access policy" in caught.value.remedy


def test_missing_aws_settings_are_usage_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Connection(url="https://localhost", security=SecuritySettings(aws_service="es"))
    with pytest.raises(UsageError, match="no AWS region"):
        wanted.client()
    monkeypatch.setenv("AWS_DEFAULT_REGION", _REGION)
    wanted.client().close()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match="nobody"):
        wanted.client()
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AuthenticationFailed, match="no AWS credentials"):
        wanted.client()
