"""Bulk requests as many at a time, and as large, as the product's pace says: what `sink.py` and `growth.py` share."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.bulk.writer import BulkRequestStats, BulkResult, BulkWriter


def checked(written: BulkResult) -> BulkResult:
    """`written`, if no document was refused."""
    if any(written.outcomes.values()):
        raise SystemExit("documents were refused")
    return written


def paced(
    writer: BulkWriter,
    docs: Iterable[tuple[str, dict[str, Any]]],
    pool: ThreadPoolExecutor,
    pace: AdaptiveThrottle,
    document_bytes: float,
) -> list[BulkRequestStats]:
    """Send as many requests at a time, and as large, as the pace says; return all of them."""
    source, under_way, sent = iter(docs), set[Future[BulkResult]](), list[BulkRequestStats]()
    while True:
        while len(under_way) < pace.concurrency:
            part = list(islice(source, max(1, int(pace.chunk_bytes / document_bytes))))
            if not part:
                break
            under_way.add(pool.submit(writer.write, part, pace.chunk_bytes))
        if not under_way:
            return sent
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for each in (each for future in done for each in checked(future.result()).requests):
            pace.record_request(each)
            sent.append(each)
