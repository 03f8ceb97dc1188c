"""Shards that several processes read: workers that share them, servers, and processes that end."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from support.errors import expect_error
from support.models import tiny_stair, tiny_training

from stair_es.training.data.batches import ShardBatches, build_shard_batches, translate_reader_errors
from stair_es.training.data.collate import OnlineTexts
from stair_es.training.data.dataset import ProblemCounter
from stair_es.training.data.shards import build_shard_sources
from stair_es.training.step import DeviceBatch
from stair_es.training.workers import SingleProcess

_T = TypeVar("_T")
PAIRS = 48


class OneOfSeveral(SingleProcess):
    """A worker whose others aren't there."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    """A set of 48 pairs in 12 shards, as changes of the configuration in `tmp_path`."""
    tiny_training.write_set(tmp_path)
    return {**tiny_training.write_shards(tmp_path, pairs=PAIRS, per_shard=4), "batch.size": 12}


def open_batches(folder: Path, changes: dict[str, Any], rank: int = 0, count: int = 1) -> ShardBatches:
    config = tiny_training.read_config(folder, changes)
    texts = OnlineTexts(tiny_stair.build_model(tiny_stair.build_config()).tokens)
    return build_shard_batches(config, build_shard_sources(config), texts, None, OneOfSeveral(rank, count), ProblemCounter())


def take(batches: ShardBatches, count: int) -> list[DeviceBatch]:
    return list(islice(batches.iterate_batches(0), count))


def list_images(batches: list[DeviceBatch]) -> list[bytes]:
    return [image.numpy().tobytes() for batch in batches for image in batch.images]


def test_workers_share_each_epoch(tmp_path: Path, changes: dict[str, Any]) -> None:
    alone = list_images(take(open_batches(tmp_path, changes), PAIRS // 12))
    parts = [take(open_batches(tmp_path, changes, rank, 3), PAIRS // 12) for rank in range(3)]
    assert [[len(batch) for batch in part] for part in parts] == [[4] * 4] * 3
    assert sorted(image for part in parts for image in list_images(part)) == sorted(alone)
    assert len(set(alone)) == tiny_training.PAIRS


def test_a_state_is_that_of_the_last_batch_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    batches = open_batches(tmp_path, changes)
    straight = take(open_batches(tmp_path, changes), 9)
    take(batches, 5)
    again = open_batches(tmp_path, changes)
    assert again.restore_state([batches.get_state()])
    assert list_images(take(again, 4)) == list_images(straight[5:])
    other = open_batches(tmp_path, changes, 1, 2)
    assert not other.restore_state([batches.get_state()])  # of one worker
    epochs = {position[0] for reader in other.get_state()["readers"] for position in reader["positions"]}
    assert epochs == {2}  # 5 batches of 12 are more than one epoch of 48


class _RangeHandler(SimpleHTTPRequestHandler):
    """Serves byte ranges of files."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        begin, end = (int(each or len(data) - 1) for each in re.findall(r"(\d+)-(\d*)", self.headers["Range"])[0])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{min(end, len(data) - 1)}/{len(data)}")
        self.send_header("Content-Length", str(len(data[begin : end + 1])))
        self.end_headers()
        self.wfile.write(data[begin : end + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_RangeHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_shards_on_a_server_equal_local_ones(tmp_path: Path, changes: dict[str, Any], server: str) -> None:
    local = take(open_batches(tmp_path, changes), 6)
    [train] = changes["data.train"]
    remote = open_batches(tmp_path, {**changes, "data.train": [{"shards": f"{server}/{train['shards']}"}]})
    assert list_images(take(remote, 6)) == list_images(local)
    (tmp_path / "shards" / "003.tar").unlink()
    rest = open_batches(tmp_path, {**changes, "data.train": [{"shards": f"{server}/{train['shards']}"}]})
    take(rest, 8)
    assert [line for line in rest.problems.format_lines() if "003.tar" in line] != []


def test_a_new_signature_is_no_other_training(tmp_path: Path, changes: dict[str, Any], server: str) -> None:
    [train] = changes["data.train"]
    for signature in ("first", "second"):
        shards = [{"shards": f"{server}/{train['shards']}?X-Amz-Signature={signature}"}]
        more = {**changes, "data.train": shards, "data.validation": [], "recipe.steps": 2}
        assert tiny_training.run_training(tmp_path, tmp_path / "out", more).steps == 2
    config = (tmp_path / "out" / "train.toml").read_text()
    assert "Amz" not in config
    assert f"{server}/{train['shards']}" in config


def test_a_reader_that_is_killed_ends_the_training_with_a_reason(tmp_path: Path, changes: dict[str, Any]) -> None:
    batches = open_batches(tmp_path, changes).iterate_batches(0)
    next(batches)
    readers = [child for child in psutil.Process().children(recursive=True) if child.name() == "pt_data_worker"]
    assert len(readers) >= 2
    for reader in readers:  # not the tracker of resources, which other tests share
        os.kill(reader.pid, signal.SIGKILL)
    with expect_error("reader-failed"), translate_reader_errors():
        for _ in range(20):
            next(batches)


def test_too_few_shards_are_rejected(tmp_path: Path, changes: dict[str, Any]) -> None:
    with expect_error("config-error") as caught:
        open_batches(tmp_path, {**changes, "batch.size": 26}, count=13)
    assert [fact for fact in ("12", "13") if fact not in caught.value.message] == []
