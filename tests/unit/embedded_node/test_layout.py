"""Real fetching, verifying and laying out, of small files that stand for jars."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.messages import forward_messages

from stair_es.embedded_node.distribution import BytesCallback, JarSource, ensure_distribution, find_corruption
from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule
from stair_es.errors import NodeError


def _jar(name: str, folder: str = "lib") -> Jar:
    content = _content(name)
    return Jar(
        group="g",
        artifact=name,
        version="1",
        folder=folder,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def _content(name: str) -> bytes:
    return f"the jar {name}".encode() * 10


LOCK = NodeLock(
    opensearch="9.9.9",
    modules=(NodeModule(name="m", classname="c.M"), NodeModule(name="n", classname="c.N", extends=("m",))),
    jars=(_jar("core"), _jar("shared", "modules/m"), _jar("shared", "modules/n"), _jar("own", "modules/n")),
)


class Repository:
    """Stands for the public one: writes into the cache like jgo does, in place, and takes what is there."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.alter: Callable[[Jar, int], bytes] = lambda jar, _count: _content(jar.artifact)

    def source(self, cache: Path) -> JarSource:
        def bring(jar: Jar, advance: BytesCallback) -> Path:
            path = cache / jar.name
            if not path.exists():
                self.served.append(jar.artifact)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.alter(jar, self.served.count(jar.artifact)))
            advance(jar.size_bytes)
            return path

        return bring


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def messages() -> list[str]:
    return []


def test_layout_has_every_jar_and_descriptor(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    with forward_messages(messages.append):
        home = ensure_distribution(LOCK, tmp_path, repository.source)
    assert home == tmp_path / LOCK.folder
    assert [(home / jar.path).read_bytes() for jar in LOCK.jars] == [_content(jar.artifact) for jar in LOCK.jars]
    descriptor = (home / "modules/n/plugin-descriptor.properties").read_text()
    assert "classname=c.N\n" in descriptor
    assert "opensearch.version=9.9.9\n" in descriptor
    assert "extended.plugins=m\n" in descriptor
    assert sorted(repository.served) == ["core", "own", "shared"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_second_time_is_silent_and_cached(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    with forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, repository.source)
    before = (len(repository.served), len(messages))
    with forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, repository.source)
    assert (len(repository.served), len(messages)) == before


def test_truncated_jar_in_the_cache_is_fetched_again(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    cached = tmp_path / ".jars" / "core-1.jar"
    cached.parent.mkdir()
    cached.write_bytes(_content("core")[:7])
    with forward_messages(messages.append):
        home = ensure_distribution(LOCK, tmp_path, repository.source)
    assert (home / "lib/core-1.jar").read_bytes() == _content("core")


def test_altered_jar_of_the_right_size_in_the_cache_is_fetched_again(
    tmp_path: Path, repository: Repository, messages: list[str]
) -> None:
    cached = tmp_path / ".jars" / "core-1.jar"
    cached.parent.mkdir()
    cached.write_bytes(b"X" + _content("core")[1:])
    with forward_messages(messages.append):
        home = ensure_distribution(LOCK, tmp_path, repository.source)
    assert (home / "lib/core-1.jar").read_bytes() == _content("core")


def test_download_that_breaks_once_is_repeated(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    repository.alter = lambda jar, count: _content(jar.artifact)[: 5 if count == 1 else None]
    progress: list[tuple[int, int]] = []
    with forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, repository.source, lambda *told: progress.append(told))
    assert sorted(repository.served) == sorted(["core", "own", "shared"] * 2)
    assert progress == sorted(progress)
    assert progress[-1] == (LOCK.size_bytes, LOCK.size_bytes)


def test_wrong_content_twice_fails_and_releases_all(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    altered = b"Y" + _content("own")[1:]
    repository.alter = lambda jar, _count: altered if jar.artifact == "own" else _content(jar.artifact)
    with pytest.raises(NodeError) as caught, forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, repository.source)
    for text in ("g:own:1", _jar("own").sha256, hashlib.sha256(altered).hexdigest()):
        assert text in caught.value.message
    assert caught.value.remedy
    assert not (tmp_path / LOCK.folder).exists()
    assert not (tmp_path / ".jars" / "own-1.jar").exists()


def test_unreachable_repository_is_a_node_error(tmp_path: Path, messages: list[str]) -> None:
    def dead(_cache: Path) -> JarSource:
        def bring(_jar: Jar, _advance: BytesCallback) -> Path:
            raise ConnectionError("no route")

        return bring

    with pytest.raises(NodeError, match=r"can't fetch g:.*no route") as caught, forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, dead)
    assert "HTTPS_PROXY" in caught.value.remedy


@pytest.mark.parametrize("kind", ["truncated", "altered", "missing", "descriptor"])
def test_a_damaged_layout_is_reported_and_rebuilt(tmp_path: Path, repository: Repository, messages: list[str], kind: str) -> None:
    with forward_messages(messages.append):
        home = ensure_distribution(LOCK, tmp_path, repository.source)
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
    with forward_messages(messages.append):
        assert ensure_distribution(LOCK, tmp_path, repository.source) == home
    assert find_corruption(LOCK, home) is None
    assert any("damaged (modules/n" in line for line in messages)


def test_partial_layout_of_a_killed_process_is_removed(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    leftover = tmp_path / ".tmp-dead" / "lib"
    leftover.mkdir(parents=True)
    (leftover / "core-1.jar").write_bytes(b"half")
    with forward_messages(messages.append):
        ensure_distribution(LOCK, tmp_path, repository.source)
    assert not leftover.exists()


def test_unwritable_folder_is_a_node_error(tmp_path: Path, repository: Repository, messages: list[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NodeError) as caught, forward_messages(messages.append):
        ensure_distribution(LOCK, file / "dist", repository.source)
    assert "STAIR_ES_HOME" in caught.value.remedy
