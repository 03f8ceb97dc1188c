"""Send bulk requests with the number and size that `AdaptiveThrottle` allows, for `sink.py` and `growth.py`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.store import BulkRequestStats, BulkResult


def check_written(written: BulkResult) -> BulkResult:
    """Return `written`, or exit if a document was rejected."""
    if any(written.outcomes.values()):
        raise SystemExit("documents were rejected")
    return written


def write_throttled(
    writer: BulkWriter,
    docs: Iterable[tuple[str, dict[str, Any]]],
    pool: ThreadPoolExecutor,
    throttle: AdaptiveThrottle,
    document_bytes: float,
) -> list[BulkRequestStats]:
    """Send requests with the number and size that the throttle allows; return all of them."""
    source, under_way, sent = iter(docs), set[Future[BulkResult]](), list[BulkRequestStats]()
    while True:
        while len(under_way) < throttle.concurrency:
            part = list(islice(source, max(1, int(throttle.chunk_bytes / document_bytes))))
            if not part:
                break
            under_way.add(pool.submit(writer.write, part, throttle.chunk_bytes))
        if not under_way:
            return sent
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for each in (each for future in done for each in check_written(future.result()).requests):
            throttle.record_request(each)
            sent.append(each)
