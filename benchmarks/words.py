"""How fast `stair-es words` reads an index, against a bare scroll of the same pages.

    python benchmarks/words.py                       # 20,000 drawn documents on the embedded node
    python benchmarks/words.py --documents 100000 --url http://localhost:9200

The documents are drawn as in `query_corpus.py`, with all fields and a real thumbnail, so that the engine has to pick
the words out of as much as it would. Each reading is done `--rounds` times in turn; the table has the best of each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import add_url, node, options, publish, thumbnails
from query_corpus import Corpus, see_photos
from result import Ratio, ReportTable, Result

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


def documents(count: int) -> Iterator[dict[str, Any]]:
    """Drawn documents as ingest makes them."""
    pictures = thumbnails()
    drawn, number = Corpus(see_photos()), 0
    for batch in drawn.batches(count):
        for vector in drawn.vectors(batch):
            facts = ImageMetadata(
                uri=f"file:///photos/{number // 1000:04}/{number:08}.jpg",
                source="file:///photos",
                version=f"{number}-1",
                sha256=f"{number:064x}",
                width=640,
                height=480,
                format="JPEG",
                taken_at=None,
                thumbnail=pictures[number % len(pictures)],
            )
            yield build_document(
                vector,
                facts,
                fields={},
                model_id=KIND.card.model_id,
                fingerprint=f"{number:032x}",
                ingested_at="2026-01-01T00:00:00Z",
                settings=DocumentSettings(),
            )
            number += 1


def load(client: OpenSearch, index: str, count: int) -> None:
    """The documents, in one segment as an index that is at rest."""
    made = resources.load_json_resource("mappings", "image")
    made["settings"]["index"] = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    made["mappings"]["_meta"] = {
        "stair_es": {"format_version": INDEX_FORMAT, "model": KIND.card.model_id, "model_name": KIND.card.name}
    }
    client.indices.create(index=index, body=made)
    lines: list[dict[str, Any]] = []
    for each in documents(count):
        lines += [{"index": {"_id": make_document_id(each["uri"])}}, each]
        if len(lines) == 2 * BULK:
            assert not client.bulk(body=lines, index=index)["errors"]
            lines = []
    if lines:
        assert not client.bulk(body=lines, index=index)["errors"]
    client.indices.refresh(index=index)
    client.indices.forcemerge(index=index, params={"max_num_segments": "1"})


def scroll(client: OpenSearch, index: str, size: int) -> int:
    """How many documents a scroll gives, which does nothing with them."""
    asked = {**build_tokens_query({"match_all": {}}), "size": size, "sort": ["_doc"]}
    answer, read = client.search(index=index, body=asked, params={"scroll": "1m"}), 0
    while answer["hits"]["hits"]:
        read += len(answer["hits"]["hits"])
        answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": "1m"})
    client.clear_scroll(body={"scroll_id": [answer["_scroll_id"]]})
    return read


def readings(cluster: Cluster, index: str) -> dict[str, Callable[[], int]]:
    """What is measured: each gives the number of documents that it read."""

    def scan(size: int, sample: DocumentSample | None = None) -> int:
        reading.PAGE = size
        return collect_vocabulary_stats(cluster, index, sample=sample).images

    own = reading.PAGE
    made: dict[str, Callable[[], int]] = {f"bare scroll, pages of {own:,}": lambda: scroll(cluster.client, index, own)}
    for size in (200, own, 5000):
        made[f"words, pages of {size:,}"] = lambda size=size: scan(size)  # type: ignore[misc]
    made[f"words --sample {SAMPLE:,}"] = lambda: scan(own, DocumentSample(size=SAMPLE))
    return made


def command(connection: Connection, index: str) -> str:
    """What the whole command takes, its start and its model included."""
    script, start = Path(sys.executable).parent / "stair-es", time.perf_counter()
    told = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
    told += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"  # a child of this process would begin with its memory
    asked = [sys.executable, "-c", told, str(script), "words", "--index", index, "--url", connection.url]
    peak = int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout) / 1024
    return f"stair-es words: {time.perf_counter() - start:.1f} s, peak memory {peak:.0f} MiB"


def main() -> None:
    """Print a table."""
    parser = options(__doc__)
    add_url(parser)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with node(given.url) as (cluster, index):
        start = time.perf_counter()
        load(cluster.client, index, given.documents)
        about = f"{given.documents:,} documents loaded in {time.perf_counter() - start:.0f} s, best of {given.rounds} rounds"
        best: dict[str, tuple[float, int]] = {}
        for _ in range(given.rounds):
            for name, read in readings(cluster, index).items():
                start = time.perf_counter()
                count = read()
                best[name] = min(best.get(name, (1e9, 0)), (time.perf_counter() - start, count))
        publish(result(about, best, command(cluster.connection, index)), given.json)


def result(about: str, best: Mapping[str, tuple[float, int]], whole: str) -> Result:
    """A line a reading; the first is the bare one, the third has pages as large."""
    rates = {name: count / seconds for name, (seconds, count) in best.items()}
    rows = tuple((name, f"{count:,}", f"{seconds:.2f}", f"{rates[name]:,.0f}") for name, (seconds, count) in best.items())
    bare, _, ours, *_ = rates
    return Result(
        about=about,
        tables=(ReportTable(head=("reading", "documents", "s", "documents/s"), rows=rows),),
        ratios=(Ratio(what="reading the words of an index, documents/s", against=bare, value=rates[ours] / rates[bare]),),
        remarks=(whole,),
        figures={"best": best},
    )


if __name__ == "__main__":
    main()
