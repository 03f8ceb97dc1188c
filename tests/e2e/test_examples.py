"""The examples, run against a real node."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import pytest
from fastapi.testclient import TestClient
from nbclient import NotebookClient
from opensearchpy import OpenSearch
from support.browser.web_server import start_chromium
from support.servers.fault_proxy import Response, start_server

from stair_es.model.base import ModelSpec
from stair_es.model.registry import load_encoder
from stair_es.search import ImageSearch

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOS = EXAMPLES / "photos"
STAIR_ES = Path(sys.executable).parent / "stair-es"
BEAR = "a black and white bear"


@dataclass
class Shop:
    """Run the programs of the shop in this process, and return their output lines, split at double spaces."""

    index: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, program: str, *arguments: str) -> list[list[str]]:
        self.monkeypatch.setattr(sys, "argv", [program, *arguments])
        runpy.run_path(str(EXAMPLES / "products" / program), run_name="__main__")
        return [re.split(r" {2,}", line) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def shop_runner(node_url: str, index_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    monkeypatch.setenv("STAIR_ES_URL", node_url)
    monkeypatch.setenv("SHOP_INDEX", index_name)
    return Shop(index_name, monkeypatch, capsys)


def _list_skus(lines: list[list[str]]) -> list[str]:
    return [line[1] for line in lines]


def annotate(index: str, *arguments: str) -> dict[str, int]:
    """Annotate the shop's products, and return the counts."""
    command = [str(STAIR_ES), "annotate", "--index", index, "--image-field", "image", "--image-base", str(PHOTOS)]
    ran = subprocess.run([*command, *arguments, "--json"], check=False, capture_output=True, text=True)
    report = json.loads(ran.stdout)
    assert ran.returncode == (3 if report["failed"] else 0), ran.stderr
    return {name: report[name] for name in ("written", "unchanged", "failed", "without_image")}


def test_shop_gains_image_search_unchanged(shop_runner: Shop, client: OpenSearch) -> None:
    assert shop_runner("shop.py") == [[f"22 products in {shop_runner.index}"]]
    before = shop_runner("shop.py", "siesta")
    assert _list_skus(before) == ["P-016", "P-012"]
    products = _fetch_sources(client, shop_runner.index)

    assert annotate(shop_runner.index) == {"written": 21, "unchanged": 0, "failed": 0, "without_image": 1}
    assert annotate(shop_runner.index) == {"written": 0, "unchanged": 21, "failed": 0, "without_image": 1}
    after = _fetch_sources(client, shop_runner.index)
    assert {sku: {name: source[name] for name in products[sku]} for sku, source in after.items()} == products
    assert "tokens" not in after["P-022"]

    now = shop_runner("shop.py", "siesta")
    assert _list_skus(now) == _list_skus(before)
    # Old versions of documents count for BM25 until the engine merges them away.
    assert [float(line[0]) for line in now] == pytest.approx([float(line[0]) for line in before], rel=0.05)
    assert _list_skus(shop_runner("search.py", BEAR))[:2] == ["P-012", "P-016"]
    cheap = shop_runner("search.py", BEAR, "--max-price", "20")
    assert _list_skus(cheap)[0] == "P-016"
    assert all(float(line[2].split()[0]) <= 20 for line in cheap)
    assert set(_list_skus(shop_runner("search.py", "siesta"))[:2]) == {"P-016", "P-012"}, "titles count, too"

    with ImageSearch(shop_runner.index) as images:
        assert images.search("a kitten", k=1).hits[0].id == "P-019"


def test_a_rewritten_product_gets_the_words_of_its_new_picture(shop_runner: Shop, client: OpenSearch) -> None:
    shop_runner("shop.py")
    annotate(shop_runner.index)
    photo = Response(kind="image/jpeg", body=(PHOTOS / "stone-arch-bridge.jpg").read_bytes())
    with start_server(lambda request: photo if request.path == "/bridge" else Response(status=404)) as url:
        for id_, name in (("P-019", "bridge"), ("P-020", "gone")):
            card = {"sku": id_, "title": "Postcard: Crossing", "price": 3, "image": f"{url}/{name}"}
            client.index(index=shop_runner.index, id=id_, body=card, params={"refresh": "true"})
        counts = annotate(shop_runner.index, "--allow-private-urls")  # the pictures of a real shop are public
        assert counts == {"written": 1, "unchanged": 19, "failed": 1, "without_image": 1}
    after = _fetch_sources(client, shop_runner.index)
    assert (after["P-019"]["uri"], "tokens" in after["P-020"]) == (f"{url}/bridge", False)
    assert "P-019" in _list_skus(shop_runner("search.py", "an old stone bridge"))[:1]
    assert "P-019" not in _list_skus(shop_runner("search.py", "a kitten"))


def test_a_program_indexes_and_serves_photos_with_public_names(
    node_url: str, index_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for photo in PHOTOS.glob("*-*.jpg"):
        shutil.copy(photo, tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"x")
    monkeypatch.setenv("STAIR_ES_URL", node_url)
    monkeypatch.setenv("PHOTOS_INDEX", index_name)
    monkeypatch.setattr(sys, "argv", ["index_photos.py", str(tmp_path), index_name])
    runpy.run_path(str(EXAMPLES / "library" / "index_photos.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert int(printed.out.split()[0]) == len(list(tmp_path.iterdir())) - 1
    assert "broken.jpg" in printed.err
    app = runpy.run_path(str(EXAMPLES / "library" / "app.py"))["app"]
    with TestClient(app) as visitor:
        found = visitor.get("/search", params={"text": "a kitten zzxq", "k": 3}).json()
        assert found["hits"][0]["uri"].endswith(("tabby-cat.jpg", "kitten-with-yarn.jpg"))
        assert found["unknown_words"]
        picture = (PHOTOS / "red-panda.jpg").read_bytes()
        assert visitor.post("/search", content=picture).json()["hits"][0]["uri"].endswith("red-panda.jpg")
        for sent in (visitor.post("/search", content=b"no picture"), visitor.get("/search", params={"text": "-cat"})):
            assert (sent.status_code, sent.json()["code"]) in {(422, "unknown-image-format"), (422, "no-input")}
        assert visitor.get("/search", params={"text": "x" * 501}).status_code == 422
        assert visitor.post("/search", content=b"x" * 20_000_001).status_code == 413


def _fetch_sources(client: OpenSearch, index: str) -> dict[str, dict[str, object]]:
    hits = client.search(index=index, body={"size": 100})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


@pytest.mark.nightly("an example")
def test_notebook_output_is_reproduced(node_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAIR_ES_URL", node_url)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    path = EXAMPLES / "notebook" / "photo_to_postings.ipynb"
    stored_notebook, ran = (nbformat.reads(path.read_text(encoding="utf-8"), as_version=4) for _ in range(2))  # type: ignore[no-untyped-call]
    NotebookClient(ran, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    for old, new in zip(stored_notebook.cells, ran.cells, strict=True):
        assert _find_numbers(_read_output(new)) == pytest.approx(_find_numbers(_read_output(old)), abs=2e-3), old.source
        assert _find_words(_read_output(new)) == _find_words(_read_output(old)), old.source


def _read_output(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


_NUMBER = re.compile(r"[-+]?\d+\.\d+")


def _find_numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def _find_words(text: str) -> list[str]:
    return _NUMBER.sub("", text).replace("#", "").split()


@pytest.mark.nightly("an example")
def test_a_browser_looks_texts_up(tmp_path: Path) -> None:
    """As a site would: the program as a module, and the table as a file that the server sends."""
    shutil.copy(EXAMPLES / "clients" / "lookup.mjs", tmp_path / "lookup.js")
    (tmp_path / "index.html").write_text("<!doctype html><title>Search</title>")
    subprocess.run([STAIR_ES, "export", "--table", "--out", tmp_path / "table.tsv"], check=True, capture_output=True)
    script = """async (text) => {
        const { parseTable } = await import('./lookup.js');
        const table = parseTable(await (await fetch('table.tsv')).text());
        return [table.model, Object.entries(table.encode(text))];
    }"""
    encoder = load_encoder(ModelSpec(name="stair-mini", text_tower="table"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, start_chromium() as browser:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        for text in ("a kitten on a red blanket", "CAFÉ \U0001f436 clown-fish", ""):
            [vector] = encoder.encode_texts([text])
            assert page.evaluate(script, text) == [encoder.model_id, [list(pair) for pair in vector]]
        server.shutdown()


@pytest.mark.nightly("an example on Ray")
def test_ray_job_ingests_and_reports(node_url: str, index_name: str, tmp_path: Path) -> None:
    for name in ("tabby-cat.jpg", "espresso.jpg"):
        shutil.copy(PHOTOS / name, tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    result = subprocess.run(
        [sys.executable, EXAMPLES / "ray" / "ingest_job.py", tmp_path, "--index", index_name],
        env={**os.environ, "STAIR_ES_URL": node_url, "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3, result.stderr
    report = json.loads(result.stdout)
    assert (report["runner"], report["written"], report["failed"]) == ("ray", 2, 1)
    with ImageSearch(index_name, url=node_url) as images:
        assert images.search("coffee", k=1).hits[0].uri.endswith("/espresso.jpg")
