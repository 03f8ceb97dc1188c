"""Ingests on a full disk: errors and files."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.errors import IngestError
from stair_es.ingest.accounting import manifest as manifests
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.state import Outcome
from stair_es.sources.base import SourceItem
from stair_es.sources.io.local_file import FileLocator

FAILED = Outcome(SourceItem("file:///a", "file:///", FileLocator("file:///a")), "failed", "read", "why")


def build_items(start: int, count: int) -> list[SourceItem]:
    uris = (f"file:///{number}" for number in range(start, start + count))
    return [SourceItem(uri, "file:///", FileLocator(uri)) for uri in uris]


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(autouse=True)
def limit_manifest_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CACHE_KIB", 16)


def test_full_manifest_folder_is_named_with_its_variable(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest, limit_file_size(64 * 1024), expect_error("run-list-not-writable") as caught:
        for start in range(0, 20_000, 500):
            manifest.add_images(build_items(start, 500))
    assert str(tmp_path) in caught.value.message
    assert "TMPDIR" in caught.value.remedy
    with limit_file_size(1024), expect_error("run-list-not-writable"):
        Manifest(tmp_path)
    with expect_error("run-list-not-writable"):
        Manifest(tmp_path / "none")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is Linux's")
def test_killed_process_leaves_no_manifest(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        items = manifest.add_images(build_items(0, 2_000))
        assert list(tmp_path.iterdir()) == []
        links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert [link for link in links if link.startswith(str(tmp_path)) and link.endswith("(deleted)")]  # it is on the disk
        manifest.record_outcomes([(item.uri, item.source, item.uri) for item in items])
        assert (len(manifest), manifest.count_documents(), manifest.count_pending()) == (2_000, 2_000, 0)


def test_dead_letters_survive_a_full_disk(tmp_path: Path) -> None:
    dead_letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    dead_letters.prepare_file()
    dead_letters.add(FAILED)
    before = dead_letters.path.read_text()
    with limit_file_size(len(before) + 10), expect_error("dead-letters-not-writable", IngestError) as caught:
        dead_letters.add(FAILED)
    assert str(dead_letters.path) in caught.value.message
    assert os.strerror(errno.EFBIG) in caught.value.message
    assert "--dead-letters" in caught.value.remedy
    dead_letters.close()  # reports nothing more
    assert dead_letters.count == 1
    assert dead_letters.path.read_text().startswith(before)


def test_checking_dead_letters_changes_no_files(tmp_path: Path) -> None:
    dead_letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    dead_letters.check_writable()
    assert list(tmp_path.iterdir()) == []
    dead_letters.add(FAILED)
    dead_letters.close()
    DeadLetters(dead_letters.path, "photos").check_writable()
    assert dead_letters.path.read_text()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    DeadLetters(tmp_path / "link", "photos").check_writable()
    assert not (tmp_path / "elsewhere").exists()
