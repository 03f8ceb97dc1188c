"""Object stores: requests to a real S3 server on loopback (moto's)."""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import boto3  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import requests
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from support.errors import expect_error

from stair_es.errors import ReadError, SourceError, UsageError
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, SourceItem
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.registry import open_source

BaseClient: TypeAlias = Any
ODD_KEYS = [
    "a b.jpg",
    "naïve 日本.jpg",
    "100%25.jpg",
    "#1?x=2&y.jpg",
    "up/../down.jpg",
    "a+b@c:d.jpg",
    "[x]*.jpg",
    "dir//double.jpg",
]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_client(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseClient]:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs  # type: ignore[import-untyped]

    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="photos")
    yield client
    requests.post(f"{s3_endpoint}/moto-api/reset", timeout=120)
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


def put_object(client: BaseClient, key: str, body: bytes) -> None:
    client.put_object(Bucket="photos", Key=key, Body=body)


def get_etag(client: BaseClient, key: str) -> str:
    etag: str = client.head_object(Bucket="photos", Key=key)["ETag"]
    return etag.strip('"')


def read_new(locator: Locator, known_version: str | None = None) -> ReadResult:
    """Read what isn't the known version."""
    result = locator.read(ReadLimits(), known_version=known_version)
    assert result is not None
    return result


def _list_items(argument: str) -> list[SourceItem]:
    found = list(open_source(argument).list_items())
    assert not [entry for entry in found if isinstance(entry, ListingFailure)]
    return [entry for entry in found if isinstance(entry, SourceItem)]


def test_listing_reads_no_objects(s3_client: BaseClient, caplog: pytest.LogCaptureFixture) -> None:
    for key in ("in/a.jpg", "in/deep/b.PNG", "in/notes.txt", "out/c.jpg"):
        put_object(s3_client, key, key.encode())
    put_object(s3_client, "in/marker/", b"")
    source = open_source("s3://photos/in")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="werkzeug"):
        items = [entry for entry in source.list_items() if isinstance(entry, SourceItem)]
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert lines
    assert not [line for line in lines if ".jpg" in line.lower() or ".png" in line.lower()]
    assert [item.uri for item in items] == ["s3://photos/in/a.jpg", "s3://photos/in/deep/b.PNG"]
    assert {item.source for item in items} == {source.uri} == {"s3://photos/in"}
    assert source.ignored == {".txt": 1}
    assert [read_new(item.locator).data for item in items] == [b"in/a.jpg", b"in/deep/b.PNG"]


def test_versions_are_etags_and_change_with_the_bytes(s3_client: BaseClient) -> None:
    put_object(s3_client, "a.jpg", b"one")
    [first], [again] = _list_items("s3://photos/a.jpg"), _list_items("s3://photos/*.jpg")
    stored_at = s3_client.head_object(Bucket="photos", Key="a.jpg")["LastModified"].replace(microsecond=0)
    given = ObjectLocator.from_url("s3://photos/a.jpg")  # as in a table: nothing was listed
    for locator in (first.locator, again.locator, given):
        modified_at = read_new(locator).modified_at
        assert modified_at is not None
        assert datetime.fromisoformat(modified_at).replace(microsecond=0) == stored_at
    assert first.version == again.version == get_etag(s3_client, "a.jpg")
    assert first.locator.read(ReadLimits(), known_version=first.version) is None
    put_object(s3_client, "a.jpg", b"two")
    [changed] = _list_items("s3://photos")
    assert changed.version not in (None, first.version)
    result = read_new(first.locator, first.version)
    assert (result.data, result.version) == (b"two", changed.version)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_listed_and_read(s3_client: BaseClient, key: str) -> None:
    put_object(s3_client, key, key.encode())
    [item] = _list_items("s3://photos")
    assert item.uri == f"s3://photos/{key}"
    [given] = _list_items(item.uri)
    assert given.uri == item.uri
    stored_locator = item.locator.to_json()
    assert stored_locator is not None
    for locator in (item.locator, restore_locator(stored_locator)):
        assert read_new(locator).data == key.encode()


def test_more_keys_than_a_page_are_listed(s3_client: BaseClient) -> None:
    bucket = s3_backends["123456789012"]["aws"]  # the server's own state: a thousand requests would take long
    for i in range(1205):
        bucket.put_object("photos", f"many/{i:05}.jpg", b"x")
    assert [item.uri for item in _list_items("s3://photos/many/")] == [f"s3://photos/many/{i:05}.jpg" for i in range(1205)]
    assert len(_list_items("s3://photos/many/*7.jpg")) == 120


def test_globs_match_names_and_folders(s3_client: BaseClient) -> None:
    for key in ("2023/a/x.jpg", "2024/a/y.jpg", "2024/b/z.png", "2024/w.jpg"):
        put_object(s3_client, key, b"x")
    assert [item.uri[12:] for item in _list_items("s3://photos/2024/*/*.jpg")] == ["2024/a/y.jpg"]
    assert [item.uri[12:] for item in _list_items("s3://photos/*/a")] == ["2023/a/x.jpg", "2024/a/y.jpg"]
    assert [item.uri[12:] for item in _list_items("s3://photos/2024/**/*.jpg")] == ["2024/a/y.jpg", "2024/w.jpg"]


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ("s3://no-such-bucket/x", "nothing-matches"),
        ("s3://photos/none", "nothing-matches"),
        ("s3://photos/none-*.jpg", "nothing-matches"),
        ("s3://photos", "nothing-matches"),
        ("s3://", "no-bucket"),
        ("s3:///", "no-bucket"),
        ("s3:////", "no-bucket"),
    ],
)
@pytest.mark.usefixtures("s3_client")
def test_names_without_objects_are_usage_errors(argument: str, code: str) -> None:
    with expect_error(code, UsageError):
        list(open_source(argument).list_items())


def test_sizes_are_limits_and_an_empty_object_is_read(s3_client: BaseClient) -> None:
    put_object(s3_client, "a.jpg", b"12345")
    put_object(s3_client, "empty.jpg", b"")
    large, empty = _list_items("s3://photos")
    with expect_error("file-too-large", ReadError) as caught:
        large.locator.read(ReadLimits(max_bytes=4))
    assert all(number in caught.value.message for number in ("5 bytes", " 4"))
    assert read_new(empty.locator).data == b""
    put_object(s3_client, "empty.jpg", b"x" * 100)
    put_object(s3_client, "a.jpg", b"x" * 100)
    with expect_error("file-too-large", ReadError):
        large.locator.read(ReadLimits(max_bytes=10))
    s3_client.delete_object(Bucket="photos", Key="a.jpg")
    with expect_error("object-unreadable", ReadError) as caught:
        large.locator.read(ReadLimits())
    assert "not found" in caught.value.message


def test_missing_credentials_fail(s3_client: BaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    put_object(s3_client, "a.jpg", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with expect_error("listing-failed", SourceError) as caught:
        list(open_source("s3://photos").list_items())
    assert "redentials" in caught.value.message


def test_denied_credentials_fail_listing_and_reading(s3_client: BaseClient, s3_endpoint: str) -> None:
    put_object(s3_client, "a.jpg", b"x")
    [item] = _list_items("s3://photos")
    requests.post(f"{s3_endpoint}/moto-api/reset-auth", data=b"0", timeout=120)
    try:
        with expect_error("listing-failed", SourceError) as caught:
            list(open_source("s3://photos").list_items())
        with expect_error("object-unreadable", ReadError) as caught_read:
            item.locator.read(ReadLimits())
    finally:
        requests.post(f"{s3_endpoint}/moto-api/reset-auth", data=b"inf", timeout=120)
    assert "s3://photos" in caught.value.message
    assert all("access denied" in error.value.message for error in (caught, caught_read))
    assert "a-secret" not in str(caught.value)


def test_tables_and_tars_in_buckets(s3_client: BaseClient, tmp_path: Path) -> None:
    put_object(s3_client, "set/img/a.jpg", b"A")
    put_object(s3_client, "set/t.jsonl", b'{"path": "img/a.jpg"}\n{"path": "/etc/hostname"}\n')
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("1.jpg", "2.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(name[:1].encode() * 3))
    pq.write_table(pa.table({"image": [b"P", b"Q"]}), tmp_path / "t.parquet")
    for name in ("s.tar", "t.parquet"):
        put_object(s3_client, f"set/{name}", (tmp_path / name).read_bytes())
    item, unlisted = open_source("s3://photos/set/*.jsonl").list_items()
    assert isinstance(item, SourceItem)
    assert isinstance(unlisted, ListingFailure)
    found = [item, *_list_items("s3://photos/set/s.tar"), *_list_items("s3://photos/set/*.parquet")]
    reads = [read_new(pickle.loads(pickle.dumps(entry.locator))) for entry in found]
    assert [entry.data for entry in reads] == [b"A", b"111", b"222", b"P", b"Q"]
    assert reads[0].version == get_etag(s3_client, "set/img/a.jpg")
    assert all(entry.version for entry in found[1:])


def test_a_training_is_copied_to_a_bucket_and_fetched(s3_client: BaseClient, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from stair_es.training.checkpointing import STATE_FILE, RunCopies

    (tmp_path / "out" / "tensorboard").mkdir(parents=True)
    messages: list[str] = []
    copies = RunCopies("s3://photos/runs/first", tmp_path / "out", messages.append)
    for name in ("log.csv", "tensorboard/events", "state-2.pt", STATE_FILE):
        (tmp_path / "out" / name).write_text(name)
    copies.start()
    (tmp_path / "out" / "log.csv").write_text("longer by now")
    (tmp_path / "out" / "state-2.pt").unlink()
    assert (copies.finish(), messages) == ("", [])
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket="photos")["Contents"]]
    assert sorted(keys) == [f"runs/first/{name}" for name in ("log.csv", STATE_FILE, "tensorboard/events")]
    assert RunCopies("s3://photos/runs/first", tmp_path / "new", messages.append).fetch_missing()
    assert (tmp_path / "new" / "log.csv").read_text() == "longer by now"
    assert (tmp_path / "new" / "tensorboard" / "events").is_file()
    lost = RunCopies("s3://no-such-bucket/run", tmp_path / "out", messages.append)
    assert "s3://no-such-bucket/run" in lost.finish()
    assert len(messages) == 1
