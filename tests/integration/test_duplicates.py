"""Copies of a picture are one hit: in the command, in Python, on the page; and what the page shows and sends of an original."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from support.corpora.web_corpus import PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.search import ImageSearch, SearchOptions

CAT = {"text": "cat"}
COPIES = {"tabby-cat.jpg", "tabby-cat copy ñ.jpg", "tabby-cat-small.jpg"}
"""The photo, the same bytes under another name, and a smaller one."""


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    folder = tmp_path_factory.mktemp("photos")
    shutil.copy(PHOTOS / "tabby-cat.jpg", folder / "tabby-cat copy ñ.jpg")
    with Image.open(PHOTOS / "tabby-cat.jpg") as image:
        image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(
            folder / "tabby-cat-small.jpg", quality=85
        )
    with ingest_corpus(node_url, "test-duplicates", folder) as corpus:
        for id_, source in corpus.read_documents().items():
            hash_ = "00ff12ab34cd56e0" if "tabby" in source["uri"] else hashlib.sha256(id_.encode()).hexdigest()[:16]
            hash_ = hash_[:-1] + "1" if "small" in source["uri"] else hash_
            corpus.add_document(id_, {**source, "perceptual_hash": hash_})
        yield corpus


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,)) as client:
        yield client


def run_search(corpus: Corpus, *arguments: str) -> str:
    program = str(Path(sys.executable).parent / "stair-es")
    command = [program, "search", "cat", "--index", corpus.alias, "--url", corpus.url, *arguments]
    output: str = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return output


def test_the_page_folds_copies_and_still_finds_k_pictures(page: PageClient) -> None:
    result = page.post("/api/search", {**CAT, "k": 3}).json
    first, second, third = result["hits"]
    assert {first["name"], *(copy["name"] for copy in first["duplicates"])} == COPIES
    assert set(first["duplicates"][0]) == {"id", "name", "uri"}
    assert (second["name"], second["duplicates"], third["duplicates"]) == ("kitten-with-yarn.jpg", [], [])
    next_hits = page.post("/api/search", {**CAT, "k": 3, "after": result["after"]}).json["hits"]
    names = [hit["name"] for hit in (*result["hits"], *next_hits)]
    assert len(names) == len(set(names))
    assert set(names) & COPIES == {first["name"]}


def test_browsing_folds_copies_too(page: PageClient, corpus: Corpus) -> None:
    stored = corpus.read_documents()
    everything = page.post("/api/search", {"k": 100}).json["hits"]
    [folded] = [hit for hit in everything if hit["duplicates"]]
    assert {folded["name"], *(copy["name"] for copy in folded["duplicates"])} == COPIES
    assert len(everything) == len(stored) - 2
    result = page.post("/api/search", {"k": 2}).json
    paged = result["hits"]
    while result["after"]:
        result = page.post("/api/search", {"k": 2, "after": result["after"]}).json
        paged += result["hits"]
    assert sorted(copy["id"] for hit in paged for copy in (hit, *hit["duplicates"])) == sorted(stored)  # none twice, none lost


def test_neighbors_are_other_pictures(page: PageClient, corpus: Corpus) -> None:
    result = page.get(f"/api/image/{corpus.get_id('tabby-cat')}/neighbors?k=2").json
    hits = result["hits"]
    assert len(hits) == 2
    assert not {hit["name"] for hit in hits} & COPIES
    copies = result["duplicates"]
    assert {copy["name"] for copy in copies} == COPIES - {"tabby-cat.jpg"}
    assert set(copies[0]) == {"id", "name", "uri"}
    hits = page.get(f"/api/image/{corpus.get_id('kitten-with-yarn')}/neighbors?k=2").json["hits"]
    assert len({hit["name"] for hit in hits} & COPIES) == 1


def test_the_command_counts_copies_or_lists_them(corpus: Corpus) -> None:
    lines = run_search(corpus, "-k", "2").splitlines()
    assert lines[0].endswith("  +2 copies")
    assert sum("tabby-cat" in line for line in lines) == 1
    hits = json.loads(run_search(corpus, "-k", "2", "--json"))["hits"]
    assert [len(hit["duplicates"]) for hit in hits] == [2, 0]
    assert set(hits[0]["duplicates"][0]) == {"id", "index", "uri"}
    everything = json.loads(run_search(corpus, "-k", "3", "--json", "--duplicates"))["hits"]
    assert [hit["duplicates"] for hit in everything] == [[], [], []]
    assert sum("tabby-cat" in hit["uri"] for hit in everything) == 3


def test_programs_fold_on_request_only(corpus: Corpus) -> None:
    with ImageSearch(corpus.alias, url=corpus.url) as images:
        assert [len(hit.duplicates) for hit in images.search("cat", 4).hits] == [0, 0, 0, 0]
        folded = images.search("cat", 2, options=SearchOptions(fold_duplicates=True))
        assert [len(hit.duplicates) for hit in folded.hits] == [2, 0]
        next_hits = images.search("cat", 2, after=folded.after, options=SearchOptions(fold_duplicates=True))
        assert not {hit.id for hit in folded.hits} & {hit.id for hit in next_hits.hits}


def test_thumbnails_for_sharp_screens_come_from_the_original(page: PageClient, node_url: str, corpus: Corpus) -> None:
    hit = page.post("/api/search", {"text": "cow", "k": 1}).json["hits"][0]
    assert hit["thumbnail_2x"] == f"{hit['thumbnail']}&px=640"
    small, large = (page.get(f"/{hit[name]}") for name in ("thumbnail", "thumbnail_2x"))
    with Image.open(PHOTOS / hit["name"]) as original:
        side_px = min(640, max(original.size))
    assert max(Image.open(io.BytesIO(large.body)).size) == side_px > max(Image.open(io.BytesIO(small.body)).size)
    assert (large.headers["content-type"], large.headers["cache-control"]) == (
        "image/webp",
        "private, max-age=31536000, immutable",
    )
    assert page.get(f"/{hit['thumbnail']}").body == small.body  # each size has its own place in the cache
    assert page.get(f"/{hit['thumbnail']}&px=641").status == 400
    with serve_page(Connection(url=node_url), corpus.alias) as without_originals:
        assert without_originals.post("/api/search", {"text": "cow", "k": 1}).json["hits"][0]["thumbnail_2x"] is None
        stored = without_originals.get(f"/{hit['thumbnail_2x']}")
        assert (stored.status, max(Image.open(io.BytesIO(stored.body)).size)) == (
            200,
            max(Image.open(io.BytesIO(small.body)).size),
        )


def test_a_download_is_the_file_itself(page: PageClient, corpus: Corpus) -> None:
    [(id_, uri)] = [(id_, doc["uri"]) for id_, doc in corpus.read_documents().items() if "%C3%B1" in doc["uri"]]
    answer = page.get(f"/original/{quote(id_, safe='')}?download=1")
    assert (answer.status, answer.headers["content-type"], uri[:5]) == (200, "application/octet-stream", "file:")
    assert answer.body == (PHOTOS / "tabby-cat.jpg").read_bytes()
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].split("; ") == [
        "attachment",
        'filename="tabby-cat copy _.jpg"',
        "filename*=UTF-8''tabby-cat%20copy%20%C3%B1.jpg",
    ]
    head = page.request("HEAD", f"/original/{quote(id_, safe='')}?download=1")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


def test_other_files_below_the_root_are_not_downloaded(page: PageClient, corpus: Corpus) -> None:
    assert (corpus.folder / "photos.jsonl").is_file()
    document = next(iter(corpus.read_documents().values()))
    for name, uri in (
        ("table", (corpus.folder / "photos.jsonl").as_uri()),
        ("away", "file:///etc/passwd"),
        ("web", "https://a/b.jpg"),
    ):
        corpus.add_document(name, {**document, "uri": uri})
        answer = page.get(f"/original/{name}?download=1")
        assert (answer.status, answer.json["error"]) == (
            404,
            page.get("/original/nothing?download=1").json["error"].replace("nothing", name),
        )
        corpus.client.delete(index=corpus.index, id=name, params={"refresh": "true"})
