"""The stages in this process: one thread a core takes a batch through all of them.

Reading and writing wait for others while Pillow and the encoder compute outside the interpreter lock, so threads keep every
core busy without a byte being copied between processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from stair_es.ingest.stages import Batch, Job, decode_batch, encode_batch, read_batch, write_batch
from stair_es.model import catalogue
from stair_es.model.encoder import Encoder


def run_local(job: Job, todo: Iterable[Batch], threads: int = 0) -> Iterator[Batch]:
    """The finished batches of `todo`, as they get ready. `threads`: 0 for one a core, and one to wait for the cluster.

    Raises:
        StairError: A stage failed as a whole; batches that a thread works on are finished first, others never started.
    """
    threads = threads or (os.cpu_count() or 1) + 1
    encoder = catalogue.load(replace(job.model, threads=1))

    with ThreadPoolExecutor(threads, thread_name_prefix="ingest") as pool:
        under_way: set[Future[Batch]] = set()
        try:
            for batch in todo:
                under_way.add(pool.submit(_all_stages, batch, job, encoder))
                if len(under_way) >= 2 * threads:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _all_stages(batch: Batch, job: Job, encoder: Encoder) -> Batch:
    return write_batch(encode_batch(decode_batch(read_batch(batch, job), job), encoder), job)
