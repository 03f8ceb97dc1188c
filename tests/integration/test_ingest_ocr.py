"""Text in pictures from the file to the hit: read by the real networks, on a real node and on Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from opensearchpy import OpenSearch
from PIL import Image, ImageDraw, ImageFont
from support.corpora.web_corpus import Corpus, ingest_corpus
from support.errors import expect_error
from support.servers.hostile_http_server import serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput, EnricherSpec, get_enricher
from stair_es.search import ImageSearch

SCREEN = ("Invoice 4711", "Nordlicht Elektronik", "shipping to Reykjavik")
OCR = EnricherSpec("ocr")


def draw_text(lines: Sequence[str], px: int, size: tuple[int, int] = (1280, 800)) -> Image.Image:
    image = Image.new("RGB", size, (250, 250, 248))
    font = ImageFont.load_default(px)
    for place, line in enumerate(lines):
        ImageDraw.Draw(image).text((60, 60 + 2 * px * place), line, (30, 30, 40), font)
    return image


def read_picture(image: Image.Image, path: Path, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  fields of a document
    image.save(path)
    pixels_HWC = np.zeros((4, 4, 3), np.uint8)
    given = EnricherInput(uri="", data=path.read_bytes(), pixels_HWC=pixels_HWC, box=(0, 0, 4, 4), thumbnail=None, fields=fields)
    [enriched] = get_enricher(OCR).enrich([given])
    return dict(enriched.fields)


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.nightly("recognition on Ray"))])
def read_corpus(request: pytest.FixtureRequest, node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Photos, and a screenshot whose file has no telling name."""
    runner: Literal["local", "ray"] = request.param
    if runner == "ray":
        request.getfixturevalue("local_ray")
    folder = tmp_path_factory.mktemp("photos")
    draw_text(SCREEN, 22).save(folder / "0001.jpg")
    with ingest_corpus(node_url, f"test-ocr-{runner}", folder, runner=runner, enrichers=(OCR,)) as corpus:
        yield corpus


@pytest.mark.parametrize(
    ("fields", "is_read"),
    [({"text": "lease"}, False), ({"text": "lease " * 9, "page": 1}, False), ({"text": "Scanned by X", "page": 1}, True)],
)
def test_what_has_a_text_is_not_read(tmp_path: Path, fields: dict[str, Any], is_read: bool) -> None:
    assert bool(read_picture(draw_text(SCREEN, 22), tmp_path / "a.png", **fields)) is is_read


def test_a_screenshot_is_found_by_its_text(read_corpus: Corpus) -> None:
    with ImageSearch(read_corpus.alias, url=read_corpus.url) as search:
        hits = search.search("Nordlicht invoice").hits
        assert (Path(hits[0].uri).name, hits[0].weak) == ("0001.jpg", False)
        assert set(hits[0].caption_words) == {"nordlicht", "invoice"}
        assert hits[0].source["text"].split("\n") == list(SCREEN)
        assert "text_boxes" not in hits[0].source
        assert Path(search.search("a cat").hits[0].uri).stem == "tabby-cat"
    texts = [source.get("text") for source in read_corpus.read_documents().values()]
    assert len(texts) == 7
    assert texts.count(None) == 6


def test_places_are_stored_but_not_indexed(read_corpus: Corpus, client: OpenSearch) -> None:
    [source] = [each for each in read_corpus.read_documents().values() if "text" in each]
    assert [box["text"] for box in source["text_boxes"]] == list(SCREEN)
    first, *_, last = (box["box"] for box in source["text_boxes"])
    assert first[0] == pytest.approx(60 / 1280, abs=0.01)
    assert 0 < first[1] < first[3] < last[1] < last[3] < 0.5
    assert client.indices.get_mapping(index=read_corpus.index)[read_corpus.index]["mappings"]["properties"]["text_boxes"] == {
        "type": "object",
        "enabled": False,
    }


def test_the_page_marks_words_and_places(read_corpus: Corpus) -> None:
    with serve_page(Connection(url=read_corpus.url), read_corpus.alias) as page:
        for method in ("words-and-text", "text"):
            first = page.post("/api/search", {"text": "Nordlicht", "method": method}).json["hits"][0]
            [passage] = first["passages"]
            assert [text for text, is_match in passage if is_match] == ["Nordlicht"]
        lines = page.get(f"/api/image/{first['id']}").json["text"]
        assert [line["text"] for line in lines] == list(SCREEN)
        assert all(len(line["box"]) == 4 for line in lines)
        facts = page.get(f"/api/image/{first['id']}").json["facts"]
        assert not {"text", "text_boxes"} & set(facts)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_pages_are_read(degrees: int, tmp_path: Path) -> None:
    fields = read_picture(draw_text(SCREEN, 40).rotate(degrees, expand=True), tmp_path / "page.png")
    assert fields["text"].split("\n") == list(SCREEN)
    left, upper, right, lower = fields["text_boxes"][0]["box"]
    middle = {0: (0.14, 0.1), 90: (0.1, 0.86), 180: (0.86, 0.9), 270: (0.9, 0.14)}[degrees]
    assert ((left + right) / 2, (upper + lower) / 2) == pytest.approx(middle, abs=0.06)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (3000, 30), (16, 16)], ids=lambda size: f"{size[0]} x {size[1]}")
def test_pictures_of_odd_sizes_have_no_text(size: tuple[int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    assert read_picture(Image.fromarray(noise), tmp_path / "odd.png") == {}


def test_threads_read_what_one_reads(tmp_path: Path) -> None:
    pages = [draw_text([f"page number {number}"], 30 + number) for number in range(6)]
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        read = list(pool.map(read_picture, pages, paths))
    assert [fields["text"] for fields in read] == [f"page number {number}" for number in range(6)]


def test_the_included_recognizer_can_be_named() -> None:
    import rapidocr

    path = Path(str(rapidocr.__file__)).parent / "models" / "PP-OCRv6_rec_small.onnx"
    named = get_enricher(EnricherSpec("ocr", (("recognizer", str(path)),)))
    assert named.version != get_enricher(OCR).version
    with expect_error("ocr-recognizer-without-characters", UsageError):
        get_enricher(EnricherSpec("ocr", (("recognizer", str(path.with_name("PP-OCRv6_det_small.onnx"))),)))
