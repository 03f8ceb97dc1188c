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

from stair_es.errors import ReadError, SourceError, UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem
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
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseClient]:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs  # type: ignore[import-untyped]

    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="photos")
    yield client
    requests.post(f"{endpoint}/moto-api/reset", timeout=120)
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


def _items(argument: str) -> list[SourceItem]:
    found = list(open_source(argument).list_items())
    assert not [each for each in found if isinstance(each, ListingFailure)]
    return [each for each in found if isinstance(each, SourceItem)]


def test_listing_reads_no_objects(s3: BaseClient, caplog: pytest.LogCaptureFixture) -> None:
    for key in ("in/a.jpg", "in/deep/b.PNG", "in/notes.txt", "out/c.jpg"):
        s3.put_object(Bucket="photos", Key=key, Body=key.encode())
    s3.put_object(Bucket="photos", Key="in/marker/", Body=b"")
    source = open_source("s3://photos/in")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="werkzeug"):
        items = [each for each in source.list_items() if isinstance(each, SourceItem)]
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert lines
    assert not [line for line in lines if ".jpg" in line.lower() or ".png" in line.lower()]
    assert [item.uri for item in items] == ["s3://photos/in/a.jpg", "s3://photos/in/deep/b.PNG"]
    assert {item.source for item in items} == {source.uri} == {"s3://photos/in"}
    assert source.ignored == {".txt": 1}
    read = [item.locator.read(ReadLimits()) for item in items]
    assert [each.data for each in read if each] == [b"in/a.jpg", b"in/deep/b.PNG"]


def test_versions_are_etags_and_change_with_the_bytes(s3: BaseClient) -> None:
    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"one")
    [first], [again] = _items("s3://photos/a.jpg"), _items("s3://photos/*.jpg")
    stored_at = s3.head_object(Bucket="photos", Key="a.jpg")["LastModified"].replace(microsecond=0)
    named = ObjectLocator.from_url("s3://photos/a.jpg")  # as in a table: nothing was listed
    for locator in (first.locator, again.locator, named):
        read = locator.read(ReadLimits())
        assert read is not None
        assert read.modified_at is not None
        assert datetime.fromisoformat(read.modified_at).replace(microsecond=0) == stored_at
    etag = s3.head_object(Bucket="photos", Key="a.jpg")["ETag"].strip('"')
    assert first.version == again.version == etag
    assert first.locator.read(ReadLimits(), known_version=first.version) is None
    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"two")
    [changed] = _items("s3://photos")
    assert changed.version not in (None, first.version)
    read = first.locator.read(ReadLimits(), known_version=first.version)
    assert read is not None
    assert (read.data, read.version) == (b"two", changed.version)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_listed_and_read(s3: BaseClient, key: str) -> None:
    s3.put_object(Bucket="photos", Key=key, Body=key.encode())
    [item] = _items("s3://photos")
    assert item.uri == f"s3://photos/{key}"
    [named] = _items(item.uri)
    assert named.uri == item.uri
    written = item.locator.to_json()
    assert written is not None
    for locator in (item.locator, restore_locator(written)):
        read = locator.read(ReadLimits())
        assert read is not None
        assert read.data == key.encode()


def test_more_keys_than_a_page_are_listed(s3: BaseClient) -> None:
    bucket = s3_backends["123456789012"]["aws"]  # the server's own state: a thousand requests would take long
    for i in range(1205):
        bucket.put_object("photos", f"many/{i:05}.jpg", b"x")
    assert [item.uri for item in _items("s3://photos/many/")] == [f"s3://photos/many/{i:05}.jpg" for i in range(1205)]
    assert len(_items("s3://photos/many/*7.jpg")) == 120


def test_globs_match_names_and_folders(s3: BaseClient) -> None:
    for key in ("2023/a/x.jpg", "2024/a/y.jpg", "2024/b/z.png", "2024/w.jpg"):
        s3.put_object(Bucket="photos", Key=key, Body=b"x")
    assert [item.uri[12:] for item in _items("s3://photos/2024/*/*.jpg")] == ["2024/a/y.jpg"]
    assert [item.uri[12:] for item in _items("s3://photos/*/a")] == ["2023/a/x.jpg", "2024/a/y.jpg"]
    assert [item.uri[12:] for item in _items("s3://photos/2024/**/*.jpg")] == ["2024/a/y.jpg", "2024/w.jpg"]


@pytest.mark.parametrize("argument", ["s3://no-such-bucket/x", "s3://photos/none", "s3://photos/none-*.jpg", "s3://photos"])
def test_a_missing_object_is_a_usage_error(s3: BaseClient, argument: str) -> None:
    with pytest.raises(UsageError, match="nothing at"):
        list(open_source(argument).list_items())


@pytest.mark.parametrize("argument", ["s3://", "s3:///", "s3:////"])
def test_a_store_without_a_bucket_is_wrong_usage(s3: BaseClient, argument: str) -> None:
    with pytest.raises(UsageError, match="no bucket in"):
        list(open_source(argument).list_items())


def test_sizes_are_limits_and_an_empty_object_is_read(s3: BaseClient) -> None:
    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"12345")
    s3.put_object(Bucket="photos", Key="empty.jpg", Body=b"")
    large, empty = _items("s3://photos")
    with pytest.raises(ReadError, match="5 bytes exceed the limit of 4"):
        large.locator.read(ReadLimits(max_bytes=4))
    read = empty.locator.read(ReadLimits())
    assert read is not None
    assert read.data == b""
    s3.put_object(Bucket="photos", Key="empty.jpg", Body=b"x" * 100)
    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"x" * 100)
    with pytest.raises(ReadError, match="exceed the limit of 10"):
        large.locator.read(ReadLimits(max_bytes=10))
    s3.delete_object(Bucket="photos", Key="a.jpg")
    with pytest.raises(ReadError, match="not found"):
        large.locator.read(ReadLimits())


def test_missing_credentials_fail(s3: BaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="redentials"):
        list(open_source("s3://photos").list_items())


def test_denied_credentials_fail_listing_and_reading(s3: BaseClient, endpoint: str) -> None:
    s3.put_object(Bucket="photos", Key="a.jpg", Body=b"x")
    [item] = _items("s3://photos")
    requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=120)
    try:
        with pytest.raises(SourceError, match=r"s3://photos can't be listed: access denied") as caught:
            list(open_source("s3://photos").list_items())
        with pytest.raises(ReadError, match="access denied"):
            item.locator.read(ReadLimits())
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"inf", timeout=120)
    assert "a-secret" not in str(caught.value)


def test_tables_and_tars_in_buckets(s3: BaseClient, tmp_path: Path) -> None:
    s3.put_object(Bucket="photos", Key="set/img/a.jpg", Body=b"A")
    s3.put_object(Bucket="photos", Key="set/t.jsonl", Body=b'{"path": "img/a.jpg"}\n{"path": "/etc/hostname"}\n')
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("1.jpg", "2.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(name[:1].encode() * 3))
    pq.write_table(pa.table({"image": [b"P", b"Q"]}), tmp_path / "t.parquet")
    for name in ("s.tar", "t.parquet"):
        s3.put_object(Bucket="photos", Key=f"set/{name}", Body=(tmp_path / name).read_bytes())
    item, unlisted = open_source("s3://photos/set/*.jsonl").list_items()
    assert isinstance(item, SourceItem)
    assert isinstance(unlisted, ListingFailure)
    found = [item, *_items("s3://photos/set/s.tar"), *_items("s3://photos/set/*.parquet")]
    reads = [pickle.loads(pickle.dumps(each.locator)).read(ReadLimits()) for each in found]
    assert [each.data for each in reads] == [b"A", b"111", b"222", b"P", b"Q"]
    assert reads[0].version == s3.head_object(Bucket="photos", Key="set/img/a.jpg")["ETag"].strip('"')
    assert all(each.version for each in found[1:])
