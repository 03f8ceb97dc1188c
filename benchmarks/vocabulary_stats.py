"""Compare the speed at which `stair-es words` reads an index with a bare scroll of the same pages.

    python benchmarks/vocabulary_stats.py                       # 20,000 generated documents on the embedded node
    python benchmarks/vocabulary_stats.py --documents 100000 --url http://localhost:9200

The documents are generated as in `query_corpus.py`, with all fields and a real thumbnail, so that the engine has to extract the
tokens from documents of a realistic size. Each reading runs `--rounds` times, alternating. The table shows the best of each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cluster import open_cluster
from harness.photos import make_thumbnails
from harness.program import add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from search.corpus import Corpus, score_photos

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.inspection import vocabulary_stats as reading
from stair_es.inspection.vocabulary_stats import DocumentSample, build_tokens_query, collect_vocabulary_stats
from stair_es.model.stair_mini.plugin import KIND

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

BULK = 500
SAMPLE = 5000


def build_documents(count: int) -> Iterator[dict[str, Any]]:
    """Yield generated documents as ingest builds them."""
    pictures = make_thumbnails()
    drawn, number = Corpus(score_photos()), 0
    for batch in drawn.draw_batches(count):
        for vector in drawn.make_vectors(batch):
            metadata = ImageMetadata(
                uri=f"file:///photos/{number // 1000:04}/{number:08}.jpg",
                name=f"{number:08}.jpg",
                folder=f"/photos/{number // 1000:04}",
                source="file:///photos",
                version=f"{number}-1",
                bytes=number,
                sha256=f"{number:064x}",
                width=640,
                height=480,
                format="JPEG",
                taken_at=None,
                thumbnail=pictures[number % len(pictures)],
            )
            yield build_document(
                vector,
                metadata,
                fields={},
                model_id=KIND.card.model_id,
                fingerprint=f"{number:032x}",
                ingested_at="2026-01-01T00:00:00Z",
                settings=DocumentSettings(),
            )
            number += 1


def load_index(client: OpenSearch, index: str, count: int) -> None:
    """Write the documents into one segment, as in an idle index."""
    made = resources.load_json_resource("mappings", "image")
    made["settings"]["index"] = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    made["mappings"]["_meta"] = {
        "stair_es": {"format_version": INDEX_FORMAT, "model": KIND.card.model_id, "model_name": KIND.card.name}
    }
    client.indices.create(index=index, body=made)
    lines: list[dict[str, Any]] = []
    for each in build_documents(count):
        lines += [{"index": {"_id": make_document_id(each["uri"])}}, each]
        if len(lines) == 2 * BULK:
            assert not client.bulk(body=lines, index=index)["errors"]
            lines = []
    if lines:
        assert not client.bulk(body=lines, index=index)["errors"]
    client.indices.refresh(index=index)
    client.indices.forcemerge(index=index, params={"max_num_segments": "1"})


def scroll_documents(client: OpenSearch, index: str, size: int) -> int:
    """Return the number of documents of a scroll that does nothing with them."""
    body = {**build_tokens_query({"match_all": {}}), "size": size, "sort": ["_doc"]}
    answer, read = client.search(index=index, body=body, params={"scroll": "1m"}), 0
    while answer["hits"]["hits"]:
        read += len(answer["hits"]["hits"])
        answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": "1m"})
    client.clear_scroll(body={"scroll_id": [answer["_scroll_id"]]})
    return read


def build_readings(cluster: Cluster, index: str) -> dict[str, Callable[[], int]]:
    """Return the readings to measure; each returns the number of documents that it read."""

    def scan(size: int, sample: DocumentSample | None = None) -> int:
        reading.PAGE = size
        return collect_vocabulary_stats(cluster, index, sample=sample).images

    own = reading.PAGE
    made: dict[str, Callable[[], int]] = {f"bare scroll, pages of {own:,}": lambda: scroll_documents(cluster.client, index, own)}
    for size in (200, own, 5000):
        made[f"words, pages of {size:,}"] = lambda size=size: scan(size)  # type: ignore[misc]
    made[f"words --sample {SAMPLE:,}"] = lambda: scan(own, DocumentSample(size=SAMPLE))
    return made


def run_command(connection: Connection, index: str) -> str:
    """Measure the whole command, including its start and its model."""
    script, start = Path(sys.executable).parent / "stair-es", time.perf_counter()
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"  # a child would start with this memory
    program = [sys.executable, "-c", code, str(script), "words", "--index", index, "--url", connection.url]
    peak = int(subprocess.run(program, check=True, capture_output=True, text=True).stdout) / 1024
    return f"stair-es words: {time.perf_counter() - start:.1f} s, peak memory {peak:.0f} MiB"


def main() -> None:
    """Print a table."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with open_cluster(args.url) as (cluster, index):
        start = time.perf_counter()
        load_index(cluster.client, index, args.documents)
        about = f"{args.documents:,} documents loaded in {time.perf_counter() - start:.0f} s, best of {args.rounds} rounds"
        best: dict[str, tuple[float, int]] = {}
        for _ in range(args.rounds):
            for name, read in build_readings(cluster, index).items():
                start = time.perf_counter()
                count = read()
                best[name] = min(best.get(name, (1e9, 0)), (time.perf_counter() - start, count))
        publish_result(build_result(about, best, run_command(cluster.connection, index)), args.json)


def build_result(about: str, best: Mapping[str, tuple[float, int]], whole: str) -> Result:
    """Return a row for each reading; the first is the bare one, and the third has pages of the same size."""
    rates = {name: count / seconds for name, (seconds, count) in best.items()}
    rows = tuple((name, f"{count:,}", f"{seconds:.2f}", f"{rates[name]:,.0f}") for name, (seconds, count) in best.items())
    bare, _, ours, *_ = rates
    return Result(
        about=about,
        tables=(ReportTable(head=("reading", "documents", "s", "documents/s"), rows=rows),),
        ratios=(
            Ratio(what="reading the token statistics of an index, documents/s", against=bare, value=rates[ours] / rates[bare]),
        ),
        remarks=(whole,),
        figures={"best": best},
    )


if __name__ == "__main__":
    main()
