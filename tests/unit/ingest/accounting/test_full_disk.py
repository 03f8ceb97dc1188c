"""Ingests on a full disk: messages and files."""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stair_es.errors import IngestError
from stair_es.ingest.accounting import manifest as manifests
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.state import Outcome
from stair_es.sources.base import SourceItem
from stair_es.sources.io.local_file import FileLocator

A = SourceItem("file:///a", "file:///", FileLocator("file:///a"))
FULL = Path("/dev/full")
on_linux = pytest.mark.skipif(not FULL.exists(), reason="/dev/full and /proc are Linux's")


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
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CACHE_KIB", 16)


def test_full_manifest_folder_is_named_with_its_variable(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest, limit_file_size(64 * 1024), pytest.raises(IngestError) as failed:
        deque((manifest.add_image(f"file:///{number}", "file:///") for number in range(20_000)), maxlen=0)
    assert str(tmp_path) in failed.value.message
    assert "TMPDIR" in failed.value.remedy
    with limit_file_size(1024), pytest.raises(IngestError, match="temporary file"):
        Manifest(tmp_path)
    with pytest.raises(IngestError, match="temporary file"):
        Manifest(tmp_path / "none")


@on_linux
def test_killed_process_leaves_no_manifest(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        for number in range(2_000):
            manifest.add_image(f"file:///{number}", "file:///")
        assert list(tmp_path.iterdir()) == []
        links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert [link for link in links if link.startswith(str(tmp_path)) and link.endswith("(deleted)")]  # it is on the disk
        manifest.record_outcomes((f"file:///{number}", f"id{number}") for number in range(2_000))
        assert (len(manifest), manifest.count_documents(), manifest.count_pending()) == (2_000, 2_000, 0)


@on_linux
def test_unwritable_dead_letters_name_file_and_option() -> None:
    dead_letters = DeadLetters(FULL, "photos")
    dead_letters.prepare_file()
    with pytest.raises(IngestError, match="/dev/full: No space left") as failed:
        dead_letters.add(Outcome(A, "failed", "read", "why"))
    assert "--dead-letters" in failed.value.remedy
    dead_letters.close()  # says nothing more
    assert dead_letters.count == 0


def test_dead_letters_survive_a_full_disk(tmp_path: Path) -> None:
    dead_letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    dead_letters.prepare_file()
    dead_letters.add(Outcome(A, "failed", "read", "why"))
    before = dead_letters.path.read_text()
    with limit_file_size(len(before) + 10), pytest.raises(IngestError, match=r"failed\.jsonl: File too large"):
        dead_letters.add(Outcome(A, "failed", "read", "why"))
    dead_letters.close()
    assert dead_letters.path.read_text().startswith(before)


def test_checking_dead_letters_changes_no_files(tmp_path: Path) -> None:
    dead_letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    dead_letters.check_writable()
    assert list(tmp_path.iterdir()) == []
    dead_letters.add(Outcome(A, "failed", "read", "why"))
    dead_letters.close()
    DeadLetters(dead_letters.path, "photos").check_writable()
    assert dead_letters.path.read_text()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    DeadLetters(tmp_path / "link", "photos").check_writable()
    assert not (tmp_path / "elsewhere").exists()
