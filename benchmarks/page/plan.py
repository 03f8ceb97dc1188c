"""What `bench.py` runs, in the order of the page. Pure.

Every program of `benchmarks/` is in here. `inputs.py` fetches the inputs of the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["short", "long"]

FOLDER = "build/bench"
TUXPAINT, SETS, TRAINED = f"{FOLDER}/tuxpaint", f"{FOLDER}/sets", f"{FOLDER}/trained"
RETRAINED = f"{FOLDER}/retrained"
"""Models of an earlier run are deleted here, and used in `TRAINED`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command to run."""

    name: str
    """Name of its files, and for `--only`."""
    group: str
    """The section of the page."""
    shows: str
    script: str
    short: str = ""
    """Options of the short form: minutes on two cores."""
    long: str = ""
    """Options of the long form: hours on a dedicated machine."""
    smoke: str = ""
    """Why the short form shows only that it runs."""

    def build_command(self, form: Form) -> str:
        """Return the command that runs in the root of the repository, without `python`."""
        return f"benchmarks/{self.script}.py {self.short if form == 'short' else self.long}".strip()


SEARCH, QUALITY, INGEST, LATENCY = "Token weights, BM25 and dense kNN", "Quality", "Ingest", "Latency and overhead"

RUNS = (
    Run(
        name="query",
        group=SEARCH,
        shows="Token weights, BM25 and dense kNN in one node: indexing, bytes, time of a search, recall",
        script="query",
        short=f"--docs 10000 --queries 30 --rounds 2 --tuxpaint {TUXPAINT}",
        long=f"--docs 10000 --docs 100000 --docs 1000000 --queries 60 --heap 6g --tuxpaint {TUXPAINT}",
    ),
    Run(
        name="query-bytes",
        group=SEARCH,
        shows="What the bytes of a document are spent on",
        script="query_bytes",
        short="--docs 4000",
        long="--docs 20000",
    ),
    Run(
        name="query-causes",
        group=SEARCH,
        shows="What makes a search slow or quick",
        script="query_causes",
        short="--docs 3000 --queries 10",
        long="--docs 50000",
        smoke="3,000 documents are searched in less time than a request takes",
    ),
    Run(
        name="query-corpus",
        group=SEARCH,
        shows="How far the drawn corpora of these tables resemble real photographs",
        script="query_corpus",
    ),
    Run(
        name="quality",
        group=QUALITY,
        shows="Retrieval by stair-mini, its predecessor and dense ConSE on pictures they never saw; how readable the words are",
        script="model_quality",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="match-quality",
        group=QUALITY,
        shows="Where weak matches begin: what cuts keep and lose ([what it is](search.md#how-good-a-hit-is))",
        script="match_quality",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="recipes",
        group=QUALITY,
        shows="Trained STAIR against dense vectors: same towers, data and number of updates",
        script="small_recipes",
        short=f"--sets {SETS} --out {RETRAINED} --arms dense stair grounded --seeds 1 --steps 60 --pairs 400",
        long=f"--sets {SETS} --out {TRAINED}",
        smoke="a tenth of the updates on 400 pairs: no model has learned much. What recipes are worth is in "
        "[the table of three seeds](recipes.md)",
    ),
    Run(
        name="distill",
        group=QUALITY,
        shows="Tokens distilled from a dense model beside its own vectors",
        script="distill",
        short=f"--sets {SETS} --out {RETRAINED} --methods dictionary --steps 60 --pairs 400",
        long=f"--sets {SETS} --out {TRAINED}",
        smoke="a dense model of 60 updates on 400 pairs. What distillation costs is in "
        "[the table](distill.md#both-methods-on-the-test-sets)",
    ),
    Run(
        name="stop-words",
        group=QUALITY,
        shows="What muting stop-word candidates does to retrieval",
        script="stop_words",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="duplicates",
        group=QUALITY,
        shows="Which copies of a picture are folded, and which different pictures",
        script="duplicates",
        short="--limit 10",
        long=f"--images examples/photos --images {TUXPAINT}/usr/share/tuxpaint/stamps",
        smoke="10 photos say nothing about 4 bits more or less",
    ),
    Run(
        name="ingest",
        group=INGEST,
        shows="A whole ingest over the bare loop of reading, decoding and encoding",
        script="ingest",
        short="--images 400 --rounds 2",
        long="--images 10000",
    ),
    Run(
        name="encode",
        group=INGEST,
        shows="stair-mini, the default model, over its bare networks: classifier, detector, text network",
        script="encode",
        short="--model stair-mini --arms eager --rounds 3",
        long="--model stair-mini --images 1024 --texts 4096 --rounds 7",
    ),
    Run(
        name="encode-random",
        group=INGEST,
        shows="A checkpoint of ViT-B/32 and BERT base over its bare networks, random weights",
        script="encode",
        short="--arms eager --images 8 --texts 32 --rounds 2",
        long="--images 1024 --texts 4096 --rounds 7",
    ),
    Run(
        name="thumbnails",
        group=INGEST,
        shows="Bytes, time and looks of thumbnails, by size, format and quality",
        script="thumbnails",
        short="--sides 128,320 --rounds 1",
        long="--rounds 7",
    ),
    Run(
        name="sink",
        group=INGEST,
        shows="The bulk path over raw `_bulk`, the helpers of the client, and ray-elasticsearch",
        script="sink",
        short="--docs 4000 --rounds 3",
        long="--docs 50000 --rounds 7",
    ),
    Run(
        name="growth",
        group=INGEST,
        shows="A cluster of three nodes that grows: bulk, bytes, heap, and searches while it loads ([sizing](sizing.md))",
        script="growth",
        short="--docs 30000 --loads 3 --heap 512m --queries 20",
        long="--docs 3000000",
        smoke="30,000 documents are no load for three nodes, and two cores are none for a cluster",
    ),
    Run(
        name="faults",
        group=INGEST,
        shows="Ingests that are killed, cut off or redirected, and full disks ([what they are](faults.md))",
        script="faults",
        short="--rounds 1 --images 60",
        long="--rounds 100",
    ),
    Run(
        name="memory",
        group=INGEST,
        shows="Memory of the processes of an ingest",
        script="memory",
        short="--images 300,1200",
        long="--images 1000,10000,100000",
    ),
    Run(
        name="listing",
        group=INGEST,
        shows="Speed and memory of listing",
        script="listing",
        long="--entries 10000 1000000",
    ),
    Run(name="shell", group=LATENCY, shows="Seconds that a person waits", script="shell", short="--rounds 3"),
    Run(
        name="serve",
        group=LATENCY,
        shows="The page of `stair-es serve` over the requests that it makes",
        script="serve",
        short="--docs 5000 --queries 16 --rounds 2",
    ),
    Run(
        name="encoder",
        group=LATENCY,
        shows="`stair-es encoder` over the bare encoder: texts/s, latency, memory ([what it is](encoder.md))",
        script="encoder",
        short="--seconds 1 --rounds 1 --clients 1 8",
        long="--rounds 30",
    ),
    Run(
        name="telemetry",
        group=LATENCY,
        shows="An ingest and the page with metrics and traces over the same without",
        script="telemetry",
        short="--images 80 --searches 30 --rounds 2",
        long="--images 2000 --searches 120 --rounds 5",
    ),
    Run(
        name="vocabulary-stats",
        group=LATENCY,
        shows="Reading the words of an index over a bare scroll",
        script="vocabulary_stats",
        short="--documents 5000 --rounds 2",
        long="--documents 100000",
    ),
    Run(
        name="token-index",
        group=LATENCY,
        shows="What a token index costs",
        script="token_index",
        short="--images 2000",
        long="--images 20000,100000",
    ),
)
