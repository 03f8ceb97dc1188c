"""A Ray job that ingests images, for a scheduler of Ray jobs. Exit codes: 0 done, 1 failed, 3 some images failed.

ray job submit --address http://head:8265 --working-dir . -- python ingest_job.py s3://bucket/photos/ --index photos
python ingest_job.py ~/Pictures --index photos        on a machine without a cluster: starts Ray for the duration of the run
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


def get_ray_address() -> str | None:
    """Return the address of the cluster: `RAY_ADDRESS`, which Ray sets in a job; None starts one on this machine."""
    return os.environ.get("RAY_ADDRESS")


def ingest_images(sources: list[str], index: str, *, model: str, gpus_per_encoder: float, encoders: int) -> IngestReport:
    """Ingest on Ray: actors of the cluster process the images, this process lists and accounts for them.

    Documents whose image is no longer in its source are removed (`resync`).
    """
    options = IngestOptions(
        alias=index,
        model=ModelSpec(name=model),
        runner="ray",
        ray=RayOptions(address=get_ray_address(), gpus_per_encoder=gpus_per_encoder, encoders=encoders),
        resync=True,
    )
    opened = [open_source(source, options.source) for source in sources]
    return run_ingest(opened, Connection.from_env(), options, progress=ProgressLog())


class ProgressLog:
    """Progress in the job's log: one line per thousand images."""

    def __init__(self) -> None:
        self._logged = 0

    def __call__(self, accounting: RunAccounting) -> None:
        """Log the progress if another thousand images are done."""
        if accounting.done_count // _EVERY > self._logged:
            self._logged = accounting.done_count // _EVERY
            log(f"{accounting.done_count:,} of {accounting.listed:,} images done")


def log(text: str) -> None:
    """Write a line to the job's log."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run, and print the report as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--index", required=True)
    parser.add_argument("--model", default="stair-mini")
    parser.add_argument("--gpus-per-encoder", type=float, default=1.0, help="if the cluster has GPUs; 0: on CPUs")
    parser.add_argument("--encoders", type=int, default=0, help="number of encoders; 0: as many as fit")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("stair_es").setLevel(logging.INFO)
    try:
        report = ingest_images(
            args.sources, args.index, model=args.model, gpus_per_encoder=args.gpus_per_encoder, encoders=args.encoders
        )
    except StairError as error:
        log(f"error[{error.code}]: {error.message}\n{error.remedy}")
        return 1
    print(json.dumps(report.to_dict()))
    return 0 if report.is_complete() else 3


if __name__ == "__main__":
    sys.exit(main())
