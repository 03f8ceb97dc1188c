"""The programs of examples/clients: they look texts up as the encoder does, and find by text what `stair-es search` finds."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import playwright
import pytest
from opensearchpy import OpenSearch
from support.browser.web_server import PHOTOS, ROOT, ingest_images
from support.nodes.java_tools import find_jdk
from support.servers.encoder_command import run_encoder

from stair_es.model.base import ModelSpec
from stair_es.model.registry import load_encoder, resolve_model
from stair_es.model.vocabularies.token_table import write_token_table
from stair_es.search import ImageSearch

CLIENTS = ROOT / "examples" / "clients"
QUERIES = ROOT / "benchmarks" / "data" / "photo_queries.json"
TABLE = ModelSpec(name="stair-mini", text_tower="table")
SECRET = "0123456789abcdef0123456789abcdef"
INDEX = "text-clients"
FOUND = ("tabby-cat", "kitten-with-yarn", "espresso", "red-crab", "two-spaniels", "red-panda")
HITS = 3
OTHER_LANGUAGE = pytest.mark.nightly("clients in another language than Python")
UNUSUAL_TEXTS = (
    *("", " ", "the of and", "?!", "42", "3 dogs2cats_and mice", "x² dog❶", "½ pizza", "\U0001f9ab \U0001f436 dog\U0001f436cat"),
    *("CAFÉ", "cafe\u0301", "naïve Zürich façade", "İstanbul DOĞ", "straße", "ſun ﬁre ﬂower", "Ωmega αβγ ΣΑΣ", "犬と猫 кошка"),
    *(
        "clown fish",
        "clown-fish",
        "clown'fish",
        "clown\u2019fish",
        "clown\u2010fish",
        "clown, fish",
        "clown  fish",
        "clown\tfish",
    ),
    *("t-shirts", "the dog's bowl", "her ring", "red panda, panda", "dog dog DOG", "polar bear cub", "clown fish tank top hat"),
    *("dog\u00a0house", "dog\u2028house", "dog\u200bhouse", "dog\x1fhouse", "dog\x0bhouse", "\ufeffdog", '"dog" \\ {{cat}} %2E'),
    *("ｆｕｌｌｗｉｄｔｈ ｄｏｇ", "𝐝𝐨𝐠 𝓬𝓪𝓽", "do\u0308g", "ᾀ ŉ ǰ dog", "a " * 3000 + "dog", "xqzzyv"),
)


@pytest.fixture(scope="module")
def java_path() -> Path | None:
    """The `java` of a JDK of 11 or newer; None on a contributor's machine without one."""
    path = find_jdk(11)
    if path is None and os.environ.get("CI"):
        raise LookupError("a JDK of 11 or newer is not on this machine")
    return path and Path(path)


@pytest.fixture(scope="module")
def find_program(java_path: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Returns how to start a program, by its name."""

    @cache
    def compile_classes(java: Path) -> Path:
        folder, sources = tmp_path_factory.mktemp("classes"), sorted(CLIENTS.glob("*.java"))
        subprocess.run(
            [java, "-m", "jdk.compiler/com.sun.tools.javac.Main", "--release", "11", "-d", folder, *sources], check=True
        )
        return folder

    node = shutil.which("node") or str(Path(playwright.__file__).parent / "driver" / "node")  # the one that drives browsers

    def find_command(name: str) -> list[str]:
        if name.endswith(".java"):
            if java_path is None:
                pytest.skip("no JDK of 11 or newer")
            return [str(java_path), "-cp", str(compile_classes(java_path)), name.removesuffix(".java")]
        return [{".py": sys.executable, ".mjs": node, ".sh": "sh"}[Path(name).suffix], str(CLIENTS / name)]

    return find_command


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported table."""
    path = tmp_path_factory.mktemp("table") / "table.tsv.gz"
    write_token_table(resolve_model(ModelSpec(name="stair-mini")).build_text_table(), path)
    return path


def collect_texts() -> list[str]:
    """Return texts of one line: captions, queries, odd ones, and words of the table in random company."""
    captions = [json.loads(line)["caption"] for line in (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    queries = json.loads(QUERIES.read_text(encoding="utf-8"))["queries"]
    rng, phrases = random.Random(7), sorted(resolve_model(ModelSpec(name="stair-mini")).build_text_table().rows)
    gaps = (" ", " ", " ", "-", "'", ", ", ". ", "  ", "1", " the ", " of a ", " xqzzyv ")
    mixed = []
    for _ in range(2000):
        words = [rng.choice(phrases) for _ in range(rng.randint(1, 12))]
        text = "".join(
            rng.choice((word, word.upper(), word.title(), word.replace(" ", "-"))) + rng.choice(gaps) for word in words
        )
        mixed.append(text.replace("e", "é") if rng.random() < 0.1 else text)
    return [*captions, *queries, *UNUSUAL_TEXTS, *mixed]


@pytest.mark.parametrize(
    "name", ["lookup.py", *(pytest.param(name, marks=OTHER_LANGUAGE) for name in ("lookup.mjs", "Lookup.java"))]
)
@pytest.mark.parametrize("compressed", [True, False], ids=["gzip", "plain"])
def test_a_lookup_gives_the_vectors_of_the_encoder(
    find_program: Callable[[str], list[str]], table_file: Path, tmp_path: Path, name: str, *, compressed: bool
) -> None:
    path = table_file if compressed else tmp_path / "table.tsv"
    if not compressed:
        path.write_bytes(gzip.decompress(table_file.read_bytes()))
    texts = collect_texts() if compressed else list(UNUSUAL_TEXTS)
    completed = subprocess.run(
        [*find_program(name), path],
        input="".join(f"{text}\n" for text in texts),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    lines = completed.stdout.split("\n")[:-1]
    assert len(lines) == len(texts)
    vectors = load_encoder(TABLE).encode_texts(texts)
    for text, vector, line in zip(texts, vectors, lines, strict=True):
        cells = line.split("\t") if line else []
        assert tuple(cells[::2]) == vector.tokens, text
        assert [float(weight) for weight in cells[1::2]] == pytest.approx(vector.weights, abs=1e-6), text
    assert sum(map(bool, vectors)) > len(texts) / 3, "most texts have known words"


@pytest.mark.parametrize(
    "name", ["lookup.py", *(pytest.param(name, marks=OTHER_LANGUAGE) for name in ("lookup.mjs", "Lookup.java"))]
)
def test_a_lookup_rejects_other_files(find_program: Callable[[str], list[str]], tmp_path: Path, name: str) -> None:
    other = tmp_path / "table.tsv"
    other.write_text("stair-es-table\t2\nmodel\tx\n\ndog\tdog\t1\n")
    completed = subprocess.run([*find_program(name), other], input="dog\n", capture_output=True, text=True, check=False)
    assert completed.returncode != 0
    assert "stair-es export --table" in completed.stderr


@pytest.fixture(scope="module")
def fill_node(get_node_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Returns the URL of an engine that has `rank_features`, once it has an index of some of the photos."""
    folder = tmp_path_factory.mktemp("photos")
    for name in FOUND:
        shutil.copy(PHOTOS / f"{name}.jpg", folder)
    with ExitStack() as stack:

        @cache
        def fill(engine: str) -> str:
            url = get_node_url({"opensearch": "embedded"}.get(engine, engine))
            client = stack.enter_context(OpenSearch(url))
            stack.callback(client.indices.delete, index=f"{INDEX}-*")
            ingest_images(url, INDEX, folder, "--thumbnail-px", "0")
            return url

        yield fill


@pytest.fixture(scope="module")
def encoder_url() -> Iterator[str]:
    """The encoder service with the text network, of no index, which asks for a token."""
    with run_encoder(STAIR_ES_ENCODER_TOKEN=SECRET) as (_, url):
        yield url


def list_hits(completed: subprocess.CompletedProcess[str]) -> list[tuple[float, str]]:
    """Return scores and URIs of hits: the programs print lines, or JSON as the cluster sent it."""
    assert completed.returncode == 0, completed.stderr
    lines = [line for line in completed.stdout.splitlines() if line != "no good match"]
    if completed.stdout.startswith("{"):
        hits = json.loads(completed.stdout).get("hits", {}).get("hits", [])
        lines = [f"{hit['_score']} {hit['_source']['uri']}" for hit in hits]
    return [(float(score), uri) for score, uri in (line.split(" ", 1) for line in lines)]


@pytest.mark.parametrize(
    ("engine", "name", "text_tower"),
    [
        ("opensearch", "search.py", "table"),
        ("opensearch", "search.py", "full"),
        *(pytest.param("opensearch", name, "table", marks=OTHER_LANGUAGE) for name in ("search.mjs", "Search.java")),
        *(pytest.param("opensearch", name, "full", marks=OTHER_LANGUAGE) for name in ("search.mjs", "Search.java", "search.sh")),
        *(("elasticsearch7", name, "full") for name in ("search.mjs", "search.sh")),
    ],
)
def test_a_client_finds_by_text_what_the_command_finds(
    find_program: Callable[[str], list[str]],
    fill_node: Callable[[str], str],
    request: pytest.FixtureRequest,
    engine: str,
    name: str,
    text_tower: str,
) -> None:
    url = fill_node(engine)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("STAIR_ES_")}
    settings = {"STAIR_ES_TABLE": str(request.getfixturevalue("table_file"))}
    if text_tower == "full":
        settings = {"STAIR_ES_ENCODER_URL": request.getfixturevalue("encoder_url"), "STAIR_ES_ENCODER_TOKEN": SECRET}
    environment = {**clean, **settings, "STAIR_ES_URL": url, "LC_ALL": "C.UTF-8"}

    def run_search(index: str, text: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [*find_program(name), index, text]
        return subprocess.run(command, env={**environment, **changes}, capture_output=True, text=True, check=False, timeout=300)

    spec = ModelSpec(name="stair-mini", text_tower="table" if text_tower == "table" else "full")
    with ImageSearch(INDEX, url=url, model=spec) as images:
        for text in ("a kitten", "a cup of coffee", 'CAFÉ "crème" \\ {{cup}}\n%2E'):
            found = images.search(text, k=HITS).hits
            expected = [(hit.score, hit.uri) for hit in found if text_tower == "table" or not hit.weak]
            hits = list_hits(run_search(INDEX, text))
            assert [uri for _, uri in hits] == [uri for _, uri in expected]
            assert [score for score, _ in hits] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert list_hits(run_search(INDEX, "sdfkjh qwpoeiru")) == [], "nothing is known, so nothing is found"
    missing = run_search("there-is-none", "cat")
    assert missing.returncode != 0
    assert "404" in missing.stderr
    if text_tower == "full":
        nonsense = run_search(INDEX, "the Eiffel tower")  # its images have a tower at best
        assert (list_hits(nonsense), nonsense.stdout.strip()) == ([], "no good match")
        assert "401" in run_search(INDEX, "cat", STAIR_ES_ENCODER_TOKEN="wrong").stderr


@pytest.mark.parametrize("name", ["search.py", "search.mjs", "Search.java"])
def test_tokens_of_another_model_are_refused(
    find_program: Callable[[str], list[str]], table_file: Path, node_url: str, client: OpenSearch, index_name: str, name: str
) -> None:
    client.indices.create(index=index_name, body={"mappings": {"_meta": {"stair_es": {"model": "other-1"}}}})
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_TABLE": str(table_file)}
    completed = subprocess.run(
        [*find_program(name), index_name, "dog"], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode != 0
    assert [name for name in (index_name, "other-1", "stair-mini-3") if name not in completed.stderr] == []
