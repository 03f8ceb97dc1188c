"""A Ray job that ingests images, for a scheduler that knows Ray: exit code 0 done, 3 some images are dead.

ray job submit --address http://head:8265 --working-dir . -- python ingest_job.py s3://bucket/photos/ --index photos
python ingest_job.py ~/Pictures --index photos        on a machine without a cluster: starts Ray for the time of the run
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys

from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source

_EVERY = 1_000


def address() -> str | None:
    """The cluster to join: `RAY_ADDRESS`, which Ray sets in a job; None starts one on this machine."""
    return os.environ.get("RAY_ADDRESS")


def run(sources: list[str], index: str, *, model: str, gpus_per_encoder: float, encoders: int) -> IngestReport:
    """One ingest: the stages run as tasks and actors of the cluster, this process keeps the books.

    Documents whose image is gone from its source are removed (`resync`).
    """
    options = IngestOptions(
        alias=index,
        model=ModelSpec(name=model),
        runner="ray",
        ray=RayOptions(address=address(), gpus_per_encoder=gpus_per_encoder, encoders=encoders),
        resync=True,
    )
    opened = [open_source(source, options.source) for source in sources]
    return run_ingest(opened, Connection.from_env(), options, progress=Progress())


class Progress:
    """A line in the job's log for each thousand images."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, books: RunAccounting) -> None:
        """Say how far it is, if that is worth a line."""
        if books.done_count // _EVERY > self._said:
            self._said = books.done_count // _EVERY
            log(f"{books.done_count:,} of {books.listed:,} images done")


def log(text: str) -> None:
    """A line in the job's log."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run, and print the report as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--index", required=True)
    parser.add_argument("--model", default="stair-mini")
    parser.add_argument("--gpus-per-encoder", type=float, default=1.0, help="where the cluster has GPUs; 0: on CPUs")
    parser.add_argument("--encoders", type=int, default=0, help="how many; 0: as many as fit")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("stair_es").setLevel(logging.INFO)
    try:
        report = run(
            asked.sources, asked.index, model=asked.model, gpus_per_encoder=asked.gpus_per_encoder, encoders=asked.encoders
        )
    except StairError as error:
        log(f"error: {error.message}\n{error.remedy}")
        return 1
    print(json.dumps(report.to_dict()))
    return 0 if report.is_complete() else 3


if __name__ == "__main__":
    sys.exit(main())
