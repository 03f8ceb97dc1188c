"""The runs of `bench.py`, in the order of the page. Pure.

The list contains every program in `benchmarks/`. `inputs.py` fetches the inputs of the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["short", "long"]

FOLDER = "build/bench"
TUXPAINT, CLOTHES, SETS, TRAINED = f"{FOLDER}/tuxpaint", f"{FOLDER}/clothes", f"{FOLDER}/sets", f"{FOLDER}/trained"
TAUGHT, RETRAINED = f"{FOLDER}/teach", f"{FOLDER}/retrained"
"""Models of an earlier run are deleted in `RETRAINED`, and reused in `TRAINED`."""


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
    """Options of the short run: minutes on two cores."""
    long: str = ""
    """Options of the long run: hours on a dedicated machine."""
    smoke: str = ""
    """Why the short run only shows that the benchmark works."""

    def build_command(self, form: Form) -> str:
        """Return the command to run in the root of the repository, without `python`."""
        return f"benchmarks/{self.script}.py {self.short if form == 'short' else self.long}".strip()


SEARCH, QUALITY, INGEST, LATENCY = "Token weights, BM25 and dense kNN", "Quality", "Ingest", "Latency and overhead"
TRAINING = "Training"

RUNS = (
    Run(
        name="query",
        group=SEARCH,
        shows="Token weights, BM25 and dense kNN in one node: indexing speed, bytes, search time and recall",
        script="query",
        short=f"--docs 10000 --docs 100000 --queries 30 --rounds 2 --tuxpaint {TUXPAINT}",
        long=f"--docs 10000 --docs 100000 --docs 1000000 --queries 60 --heap 6g --tuxpaint {TUXPAINT}",
    ),
    Run(
        name="pages",
        group=SEARCH,
        shows="Pages of documents with the 552 tokens of V-SPLADE, BM25 over OCR text and dense kNN in one node "
        "([explanation](../models.md#what-a-page-costs))",
        script="pages",
        short="--docs 10000 --queries 30 --rounds 2",
        long="--docs 10000 --docs 100000",
    ),
    Run(
        name="query-bytes",
        group=SEARCH,
        shows="Bytes of a document, by field and setting",
        script="query_bytes",
        short="--docs 4000",
        long="--docs 20000",
    ),
    Run(
        name="query-causes",
        group=SEARCH,
        shows="Effect of options and settings on the search time",
        script="query_causes",
        short="--docs 3000 --queries 10",
        long="--docs 50000",
        smoke="a search of 3,000 documents takes less time than the request itself",
    ),
    Run(
        name="query-corpus",
        group=SEARCH,
        shows="Similarity of the generated corpora in these tables to real photographs",
        script="query_corpus",
    ),
    Run(
        name="quality",
        group=QUALITY,
        shows="Retrieval with stair-mini, its predecessor and dense ConSE on unseen pictures, and the readability of the tokens",
        script="model_quality",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="hub-models",
        group=QUALITY,
        shows="Every named model on the example photographs: files, speed, and recall beside that of its dense vectors "
        "([what was tested](../models.md#what-was-tested))",
        script="hub_models",
        long="--download",
    ),
    Run(
        name="match-quality",
        group=QUALITY,
        shows="Hits kept and lost by the cut for weak matches ([explanation](../search.md#how-good-a-hit-is))",
        script="match_quality",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="hybrid",
        group=QUALITY,
        shows="Words of a query and titles of products, combined in several ways ([explanation](../search.md#words-in-captions))",
        script="hybrid",
        short=f"--images {CLOTHES}",
        long=f"--images {CLOTHES} --products 3000",
    ),
    Run(
        name="teach",
        group=QUALITY,
        shows="Words taught from marked pictures, compared with the words as text and with dense features",
        script="teach",
        short=f"--pictures {TAUGHT} --draws 3",
        long=f"--pictures {TAUGHT}",
    ),
    Run(
        name="recipes",
        group=QUALITY,
        shows="Trained STAIR models compared with dense vectors: same towers, data and number of updates",
        script="small_recipes",
        short=f"--sets {SETS} --out {RETRAINED} --arms dense stair grounded --seeds 1 --steps 60 --pairs 400",
        long=f"--sets {SETS} --out {TRAINED}",
        smoke="after a tenth of the updates on 400 pairs, no model has learned much. For a comparison of the recipes, see "
        "[the table of three seeds](recipes.md)",
    ),
    Run(
        name="distill",
        group=QUALITY,
        shows="Tokens distilled from a dense model, compared with its own vectors ([explanation](../distill.md))",
        script="distill",
        short=f"--sets {SETS} --out {RETRAINED} --methods labels --steps 60 --pairs 400",
        long=f"--sets {SETS} --out {TRAINED}",
        smoke="the dense model has only 60 updates on 400 pairs. For the loss by distillation, see "
        "[the table](../distill.md#both-methods-on-the-test-sets)",
    ),
    Run(
        name="stop-words",
        group=QUALITY,
        shows="Effect of muting stop-word candidates on retrieval",
        script="stop_words",
        short=f"--tuxpaint {TUXPAINT}",
        long=f"--tuxpaint {TUXPAINT} --sets {SETS}",
    ),
    Run(
        name="duplicates",
        group=QUALITY,
        shows="Copies and different pictures that are folded as duplicates ([explanation](../search.md#copies))",
        script="duplicates",
        short="--limit 10",
        long=f"--images examples/photos --images {TUXPAINT}/usr/share/tuxpaint/stamps",
        smoke="10 photos are too few to choose a threshold",
    ),
    Run(
        name="ingest",
        group=INGEST,
        shows="A complete ingest, in threads and on Ray, compared with a bare loop without an index, and with Ray Data",
        script="ingest",
        short="--images 400 1500 6000 --rounds 1",
        long="--images 400 1500 6000",
    ),
    Run(
        name="encode",
        group=INGEST,
        shows="The default model, stair-mini, compared with its bare networks: classifier, detector and text network",
        script="encode",
        short="--model stair-mini --arms eager --rounds 3",
        long="--model stair-mini --images 1024 --texts 4096 --rounds 7",
    ),
    Run(
        name="encode-random",
        group=INGEST,
        shows="A checkpoint of ViT-B/32 and BERT base with random weights, compared with its bare networks",
        script="encode",
        short="--arms eager --images 8 --texts 32 --rounds 2",
        long="--images 1024 --texts 4096 --rounds 7",
    ),
    Run(
        name="gpu",
        group=INGEST,
        shows="Decoding, encoding and both at once, compared with the bare networks on pixels in the memory of the device",
        script="gpu",
        short="--images 64 --batch 16 --rounds 2",
        long="--images 16384 --rounds 7",
    ),
    Run(
        name="decode",
        group=INGEST,
        shows="CPU time of decoding, what decoding large JPEGs at a smaller scale changes, and thumbnails by format and quality",
        script="decode",
        short="--images 4 --sides 128,320 --rounds 1",
        long="--rounds 7",
    ),
    Run(
        name="ocr",
        group=INGEST,
        shows="Text in pictures: words that are read, and CPU time ([explanation](../howto/words-and-text.md#text-in-pictures))",
        script="ocr",
        short="--pictures 3",
        long="--pictures 12",
    ),
    Run(
        name="sink",
        group=INGEST,
        shows="The bulk path compared with raw `_bulk`, the helpers of the client, and ray-elasticsearch",
        script="sink",
        short="--docs 4000 --rounds 3",
        long="--docs 50000 --rounds 7",
    ),
    Run(
        name="growth",
        group=INGEST,
        shows="A growing cluster of three nodes: bulk rate, bytes, heap, and searches during a load ([sizing](../sizing.md))",
        script="growth",
        short="--docs 30000 --loads 3 --heap 512m --queries 20",
        long="--docs 3000000",
        smoke="30,000 documents are too few for three nodes, and two cores are too few for a cluster",
    ),
    Run(
        name="faults",
        group=INGEST,
        shows="Ingests that are killed, disconnected or redirected, and full disks ([explanation](../faults.md))",
        script="faults",
        short="--rounds 1 --images 60",
        long="--rounds 100",
    ),
    Run(
        name="memory",
        group=INGEST,
        shows="Memory used by the processes of an ingest",
        script="memory",
        short="--images 300,1200",
        long="--images 1000,10000,100000",
    ),
    Run(
        name="listing",
        group=INGEST,
        shows="Speed and memory of listing a source",
        script="listing",
        long="--entries 10000 1000000",
    ),
    Run(
        name="driver",
        group=INGEST,
        shows="CPU that the driver of a run on Ray spends on each image, and how many images/s it can account for",
        script="driver",
        long="--images 2000000",
    ),
    Run(
        name="ray workers",
        group=INGEST,
        shows="A run with many workers on Ray, some of which are killed: the driver's CPU, and whether an image is lost",
        script="ray_workers",
        short="--images 2000 --workers 6 --kills 2",
        long="--images 100000 --workers 100",
    ),
    Run(name="shell", group=LATENCY, shows="Duration of commands", script="shell", short="--rounds 3"),
    Run(
        name="serve",
        group=LATENCY,
        shows="The page of `stair-es serve` compared with the requests that it sends",
        script="serve",
        short="--docs 5000 --queries 16 --rounds 2",
    ),
    Run(
        name="encoder",
        group=LATENCY,
        shows="`stair-es encoder` compared with the bare encoder: texts/s, latency and memory ([explanation](../encoder.md))",
        script="encoder",
        short="--seconds 1 --rounds 1 --clients 1 8",
        long="--rounds 30",
    ),
    Run(
        name="telemetry",
        group=LATENCY,
        shows="Overhead of metrics and traces in an ingest and in the page",
        script="telemetry",
        short="--images 80 --searches 30 --rounds 2",
        long="--images 2000 --searches 120 --rounds 5",
    ),
    Run(
        name="vocabulary-stats",
        group=LATENCY,
        shows="Reading the token statistics of an index compared with a bare scroll",
        script="vocabulary_stats",
        short="--documents 5000 --rounds 2",
        long="--documents 100000",
    ),
    Run(
        name="token-index",
        group=LATENCY,
        shows="Cost of a token index",
        script="token_index",
        short="--images 2000",
        long="--images 20000,100000",
    ),
    Run(
        name="train-shards",
        group=TRAINING,
        shows="Start, memory and CPU time of training on shards ([explanation](../training.md#shards))",
        script="train_shards",
        short="--names 40 --pairs 200 --seconds 2",
        long="--seconds 60",
    ),
)
