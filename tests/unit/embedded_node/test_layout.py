"""Real fetching, verifying and laying out, of small files that stand for jars."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.errors import expect_error
from support.messages import forward_messages

from stair_es.embedded_node.distribution import BytesCallback, JarSource, ensure_distribution, find_corruption
from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule


def build_jar(name: str, folder: str = "lib") -> Jar:
    content = build_content(name)
    sha256 = hashlib.sha256(content).hexdigest()
    return Jar(group="g", artifact=name, version="1", folder=folder, sha256=sha256, size_bytes=len(content))


def build_content(name: str) -> bytes:
    return f"the jar {name}".encode() * 10


LOCK = NodeLock(
    opensearch="9.9.9",
    modules=(NodeModule(name="m", classname="c.M"), NodeModule(name="n", classname="c.N", extends=("m",))),
    jars=(build_jar("core"), build_jar("shared", "modules/m"), build_jar("shared", "modules/n"), build_jar("own", "modules/n")),
)


class Repository:
    """Stands for the public one: writes into the cache like jgo does, in place, and takes what is there."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.alter: Callable[[Jar, int], bytes] = lambda jar, _count: build_content(jar.artifact)

    def open_source(self, cache: Path) -> JarSource:
        def fetch_jar(jar: Jar, advance: BytesCallback) -> Path:
            path = cache / jar.name
            if not path.exists():
                self.served.append(jar.artifact)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.alter(jar, self.served.count(jar.artifact)))
            advance(jar.size_bytes)
            return path

        return fetch_jar


@pytest.fixture
def jar_repository() -> Repository:
    return Repository()


@pytest.fixture(autouse=True)
def logged_messages() -> Iterator[list[str]]:
    messages: list[str] = []
    with forward_messages(messages.append):
        yield messages


def test_layout_has_every_jar_and_descriptor(tmp_path: Path, jar_repository: Repository) -> None:
    home = ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    assert home == tmp_path / LOCK.folder
    assert [(home / jar.path).read_bytes() for jar in LOCK.jars] == [build_content(jar.artifact) for jar in LOCK.jars]
    descriptor = (home / "modules/n/plugin-descriptor.properties").read_text()
    assert {"classname=c.N", "opensearch.version=9.9.9", "extended.plugins=m"} <= set(descriptor.splitlines())
    assert sorted(jar_repository.served) == ["core", "own", "shared"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_second_time_is_silent_and_cached(tmp_path: Path, jar_repository: Repository, logged_messages: list[str]) -> None:
    ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    before = (len(jar_repository.served), len(logged_messages))
    ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    assert (len(jar_repository.served), len(logged_messages)) == before


@pytest.mark.parametrize("content", [build_content("core")[:7], b"X" + build_content("core")[1:]], ids=["truncated", "altered"])
def test_a_damaged_jar_in_the_cache_is_fetched_again(tmp_path: Path, jar_repository: Repository, content: bytes) -> None:
    cached = tmp_path / ".jars" / "core-1.jar"
    cached.parent.mkdir()
    cached.write_bytes(content)
    home = ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    assert (home / "lib/core-1.jar").read_bytes() == build_content("core")


def test_download_that_breaks_once_is_repeated(tmp_path: Path, jar_repository: Repository) -> None:
    jar_repository.alter = lambda jar, count: build_content(jar.artifact)[: 5 if count == 1 else None]
    progress: list[tuple[int, int]] = []
    ensure_distribution(LOCK, tmp_path, jar_repository.open_source, lambda done, total: progress.append((done, total)))
    assert sorted(jar_repository.served) == sorted(["core", "own", "shared"] * 2)
    assert progress == sorted(progress)
    assert progress[-1] == (LOCK.size_bytes, LOCK.size_bytes)


def test_wrong_content_twice_fails_and_releases_all(tmp_path: Path, jar_repository: Repository) -> None:
    altered = b"Y" + build_content("own")[1:]
    jar_repository.alter = lambda jar, _count: altered if jar.artifact == "own" else build_content(jar.artifact)
    with expect_error("jar-checksum-mismatch") as caught:
        ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    for fact in ("g:own:1", build_jar("own").sha256, hashlib.sha256(altered).hexdigest()):
        assert fact in caught.value.message
    assert caught.value.remedy
    assert not (tmp_path / LOCK.folder).exists()
    assert not (tmp_path / ".jars" / "own-1.jar").exists()


def test_unreachable_repository_is_a_node_error(tmp_path: Path) -> None:
    def raise_error(_jar: Jar, _advance: BytesCallback) -> Path:
        raise ConnectionError("no route")

    with expect_error("jar-not-fetched") as caught:
        ensure_distribution(LOCK, tmp_path, lambda _cache: raise_error)
    assert "no route" in caught.value.message
    assert "HTTPS_PROXY" in caught.value.remedy


@pytest.mark.parametrize("kind", ["truncated", "altered", "missing", "descriptor"])
def test_a_damaged_layout_is_reported_and_rebuilt(
    tmp_path: Path, jar_repository: Repository, logged_messages: list[str], kind: str
) -> None:
    home = ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    jar = home / "modules/n/own-1.jar"
    if kind == "truncated":
        jar.write_bytes(jar.read_bytes()[:3])  # a hard link: the cached one is damaged with it
    elif kind == "altered":
        jar.write_bytes(b"Z" + jar.read_bytes()[1:])
    elif kind == "missing":
        jar.unlink()
    else:
        (home / "modules/n/plugin-descriptor.properties").write_text("name=n")
    corruption = find_corruption(LOCK, home)
    assert corruption
    assert "modules/n" in corruption
    assert ensure_distribution(LOCK, tmp_path, jar_repository.open_source) == home
    assert find_corruption(LOCK, home) is None
    assert any("modules/n" in line for line in logged_messages)


def test_partial_layout_of_a_killed_process_is_removed(tmp_path: Path, jar_repository: Repository) -> None:
    leftover = tmp_path / ".tmp-dead" / "lib"
    leftover.mkdir(parents=True)
    (leftover / "core-1.jar").write_bytes(b"half")
    ensure_distribution(LOCK, tmp_path, jar_repository.open_source)
    assert not leftover.exists()


def test_unwritable_folder_is_a_node_error(tmp_path: Path, jar_repository: Repository) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with expect_error("home-not-writable") as caught:
        ensure_distribution(LOCK, file / "dist", jar_repository.open_source)
    assert "STAIR_ES_HOME" in caught.value.remedy
