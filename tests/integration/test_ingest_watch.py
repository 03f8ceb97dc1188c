"""`stair-es ingest --watch`: the command as a process of its own, whose folder changes in all kinds of ways."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.corpora.ingest_sources import PHOTOS
from support.polling import poll_until
from support.servers.fault_proxy import Fault, FaultProxy, Response

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

pytest.importorskip("watchfiles")
NAMES = [photo.name for photo in sorted(PHOTOS.glob("*.jpg"))]
TIMEOUT_S = 180


class Watch:
    """A running watch, and what its index has."""

    def __init__(self, client: OpenSearch, index: str, process: subprocess.Popen[str]) -> None:
        self._client, self._index, self.process = client, index, process
        self.reports: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read_reports)
        self._reader.start()

    def _read_reports(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.reports.append(json.loads(line))

    def list_names(self) -> set[str]:
        """Return the names of the images that a search finds: the rounds refresh, not the test."""
        body = {"size": 1000, "_source": ["uri"]}
        found = self._client.search(index=self._index, body=body, ignore=[404, 503])  # before and while it is created
        return {hit["_source"]["uri"].rpartition("/")[2] for hit in found.get("hits", {}).get("hits", ())}

    def wait_for(self, *names: str) -> None:
        poll_until(lambda: self.list_names() == set(names) or self.process.poll() is not None, timeout_s=TIMEOUT_S)
        assert self.list_names() == set(names)

    def wait_for_rounds(self, count: int) -> None:
        poll_until(lambda: len(self.reports) >= count or self.process.poll() is not None, timeout_s=TIMEOUT_S)
        assert len(self.reports) >= count

    def stop(self, number: int = signal.SIGINT) -> int:
        """End the process with a signal; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join()
        return code


@pytest.fixture
def start_watch(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> Callable[..., Any]:
    """Watch `photos` in a process."""

    @contextmanager
    def start(*options: str, url: str = node_url) -> Iterator[Watch]:
        script = str(Path(sys.executable).with_name("stair-es"))
        command = [script, "ingest", str(tmp_path / "photos"), "--watch", "--json", *options]
        environment = {**os.environ, "STAIR_ES_URL": url, "STAIR_ES_INDEX": index_name, "OMP_NUM_THREADS": "1"}
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        watch = Watch(client, index_name, process)
        try:
            yield watch
        finally:
            if process.poll() is None:
                watch.stop(signal.SIGKILL)
            assert process.stdout is not None
            process.stdout.close()

    (tmp_path / "photos").mkdir()
    return start


def store(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(PHOTOS / name, folder / name)


def test_new_changed_and_moved_files_are_found(start_watch: Any, tmp_path: Path) -> None:  # noqa: ANN401
    folder, (first, second, third, *_) = tmp_path / "photos", NAMES
    store(folder, first)
    with start_watch() as watch:
        watch.wait_for(first)
        store(folder, second)
        watch.wait_for(first, second)
        (tmp_path / "tree" / "deep").mkdir(parents=True)
        store(tmp_path / "tree" / "deep", third)
        (tmp_path / "tree" / ".hidden.jpg").write_bytes(b"")
        (tmp_path / "tree").rename(folder / "tree")
        watch.wait_for(first, second, third)
        (folder / first).unlink()  # without --resync its document stays
        (folder / "broken.jpg").write_bytes(b"half")
        poll_until(lambda: any(report["failed"] for report in watch.reports), timeout_s=TIMEOUT_S)
        store(folder, "espresso.jpg")
        (folder / "espresso.jpg").replace(folder / "broken.jpg")
        watch.wait_for(first, second, third, "broken.jpg")
        assert watch.stop() == 0
        assert sum(report["written"] for report in watch.reports) >= 3  # the last report may be interrupted
        assert all(report["seen"] < 4 for report in watch.reports)  # of changes, not of everything
    assert "stopped watching" in (tmp_path / "log").read_text()


def test_resync_removes_the_documents_of_deleted_files(start_watch: Any, tmp_path: Path) -> None:  # noqa: ANN401
    folder = tmp_path / "photos"
    store(folder, *NAMES[:3])
    with start_watch("--resync") as watch:
        watch.wait_for(*NAMES[:3])
        (folder / NAMES[0]).unlink()
        watch.wait_for(*NAMES[1:3])
        (folder / "other.part").write_bytes(b"")
        (folder / "other.part").unlink()
        store(folder, NAMES[3])
        watch.wait_for(*NAMES[1:4])
        assert sum(report["removed"] for report in watch.reports) == 1


def test_a_burst_is_few_rounds_and_a_killed_watch_loses_nothing(start_watch: Any, tmp_path: Path) -> None:  # noqa: ANN401
    folder = tmp_path / "photos"
    store(folder, NAMES[0])
    names = [f"{number}.jpg" for number in range(60)]
    with start_watch() as watch:
        watch.wait_for(NAMES[0])
        for name in names:
            shutil.copy(PHOTOS / NAMES[1], folder / name)
        watch.wait_for_rounds(2)
        assert watch.stop(signal.SIGKILL) == -signal.SIGKILL
    store(folder, NAMES[2])
    with start_watch() as watch:
        watch.wait_for(NAMES[0], NAMES[2], *names)
        rounds = len(watch.reports)
        for name in names:
            shutil.copy(PHOTOS / NAMES[2], folder / name)
        poll_until(lambda: sum(report["written"] for report in watch.reports[rounds:]) >= len(names), timeout_s=TIMEOUT_S)
        assert len(watch.reports) - rounds < 20


def test_a_lost_cluster_and_an_empty_folder_are_waited_for(start_watch: Any, node_url: str, tmp_path: Path) -> None:  # noqa: ANN401
    folder, is_lost = tmp_path / "photos", threading.Event()
    refusal = Response(
        status=400, body=b'{"error": {"type": "illegal_state_exception", "reason": "out of order"}, "status": 400}'
    )
    fault = Fault("lost", lambda request, send: refusal)
    with FaultProxy(node_url, lambda request: fault if is_lost.is_set() else None) as proxy, start_watch(url=proxy.url) as watch:
        store(folder, NAMES[0])
        watch.wait_for(NAMES[0])
        is_lost.set()
        store(folder, NAMES[1])
        poll_until(lambda: "trying again" in (tmp_path / "log").read_text(), timeout_s=TIMEOUT_S)
        store(folder, NAMES[2])
        is_lost.clear()
        watch.wait_for(*NAMES[:3])
        assert watch.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("https://h.test/a.jpg", "--watch"), "source-not-watchable"),
        ((PHOTOS / NAMES[0], "--watch"), "source-not-watchable"),
        (("-", "--watch"), "source-not-watchable"),
        ((PHOTOS, "--watch", "--dry-run"), "option-conflict"),
        ((PHOTOS, "--watch", "--runner", "ray"), "option-conflict"),
        ((PHOTOS, "--watch", "--retry-failed", Path(__file__)), "option-conflict"),
    ],
)
def test_what_cannot_be_watched_is_refused(arguments: tuple[str | Path, ...], code: str) -> None:
    assert CommandRunner({"STAIR_ES_URL": "http://127.0.0.1:1"}).read_error("ingest", *arguments).code == code
