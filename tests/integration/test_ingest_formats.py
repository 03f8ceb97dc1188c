"""A phone's folder: each picture becomes a document, or is named with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pillow_jxl  # noqa: F401  registers itself
import pytest
from PIL import Image
from support.commands import CommandRunner
from support.corpora.documents import build_pdf
from support.corpora.phone_folder import BROKEN, DOCUMENTS, PAGES, PAIRS, PHOTOS, build_phone_folder, encode_heif
from support.plugin_metadata import install_colors_plugin

from stair_es.sources.image import isolated

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PARTLY_FAILED = 3
PICTURES = sum(PHOTOS.values()) + DOCUMENTS * PAGES
FORMATS = {
    "heic": ("HEIF", "heic"),
    "jpg": ("JPEG", None),
    "dng": ("DNG", None),
    "png": ("PNG", None),
    "jxl": ("JXL", "jxl"),
    "jp2": ("JPEG2000", None),
    "nef": ("NEF", None),
}
"""Suffix -> format of its documents, and the extra that reads it."""


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin, which is quick."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_phone_folder(tmp_path_factory.mktemp("phone"))


@dataclass(frozen=True)
class PhoneRuns:
    """Ingests of the folder into one alias."""

    client: OpenSearch
    index: str
    command: CommandRunner

    def ingest(self, *options: str) -> dict[str, Any]:
        done = self.command.run("ingest", *options, "--json")
        assert done.exit_code in (0, PARTLY_FAILED), done.output
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def count_formats(self) -> dict[str, int]:
        body = {"size": 0, "aggs": {"formats": {"terms": {"field": "format", "size": 20}}}}
        buckets = self.client.search(index=self.index, body=body)["aggregations"]["formats"]["buckets"]
        return {bucket["key"]: bucket["doc_count"] for bucket in buckets}


@pytest.fixture
def runs(client: OpenSearch, node_url: str, index_name: str, phone: Path, tmp_path: Path) -> PhoneRuns:
    environment = {"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "STAIR_ES_HOME": str(tmp_path)}
    return PhoneRuns(client, index_name, CommandRunner({**environment, "STAIR_ES_MODEL": "colors"}))


def test_each_picture_is_searchable_or_named(runs: PhoneRuns, phone: Path) -> None:
    letters = phone.parent / "letters.jsonl"
    predicted = runs.ingest(str(phone), "--dry-run")
    report = runs.ingest(str(phone), "--dead-letters", str(letters))
    assert (predicted["seen"], report["seen"]) == (PICTURES + len(BROKEN),) * 2
    assert (report["written"], report["failed"]) == (PICTURES, len(BROKEN))
    assert runs.count_formats() == {
        "PDF": DOCUMENTS * PAGES,
        **{FORMATS[suffix][0]: count for suffix, count in PHOTOS.items()},
    }
    named = {Path(letter["uri"]).name for letter in map(json.loads, letters.read_text().splitlines())}
    assert named == set(BROKEN)
    [lease] = runs.client.search(index=runs.index, body={"query": {"match": {"text": "number7"}}})["hits"]["hits"]
    assert lease["_source"]["uri"].endswith("Contract%207.pdf#page=1")
    again = runs.ingest(str(phone), "--dead-letters", str(letters))
    assert (again["written"], again["unchanged"]) == (0, PICTURES)


def test_a_picture_beside_a_raw_file_stands_for_both(runs: PhoneRuns, phone: Path) -> None:
    predicted = runs.ingest(str(phone), "--dry-run", "--skip-raw-pairs")
    assert predicted["seen"] == PICTURES + len(BROKEN) - PAIRS


def test_what_cannot_be_read_now_is_not_gone(monkeypatch: pytest.MonkeyPatch, runs: PhoneRuns, tmp_path: Path) -> None:
    folder, letters = tmp_path / "mixed", tmp_path / "mixed.jsonl"
    folder.mkdir()
    lease = build_pdf(["one", "two"])
    (folder / "lease.pdf").write_bytes(lease)
    (folder / "photo.heic").write_bytes(encode_heif(Image.new("RGB", (60, 40), "red")))
    Image.new("RGB", (60, 40), "blue").save(folder / "kept.png")
    assert runs.ingest(str(folder))["written"] == 4
    (folder / "lease.pdf").write_bytes(lease[:200])
    damaged = runs.ingest(str(folder), "--resync", "--dead-letters", str(letters))
    assert (damaged["failed"], damaged["removed"]) == (1, 0)
    (folder / "lease.pdf").write_bytes(build_pdf(["one", "three"]))
    retried = runs.ingest("--retry-failed", str(letters))
    assert (retried["written"], retried["unchanged"], retried["failed"]) == (1, 1, 0)
    with monkeypatch.context() as context:
        context.setattr(isolated, "is_installed", lambda module: False)
        assert runs.ingest(str(folder), "--resync")["removed"] == 0
    (folder / "photo.heic").unlink()
    (folder / "lease.pdf").write_bytes(build_pdf(["one"]))
    assert runs.ingest(str(folder), "--resync")["removed"] == 2


def test_pictures_that_take_an_extra_are_named(monkeypatch: pytest.MonkeyPatch, runs: PhoneRuns, phone: Path) -> None:
    monkeypatch.setattr(isolated, "is_installed", lambda module: False)
    report = runs.ingest(str(phone))
    extras = {suffix: extra for suffix, (_, extra) in FORMATS.items() if extra}
    assert report["written"] == PICTURES - DOCUMENTS * PAGES - sum(PHOTOS[suffix] for suffix in extras)
    for suffix, extra in extras.items():
        [remark] = [remark for remark in report["remarks"] if f".{suffix}" in remark]
        assert f"[{extra}]" in remark
        assert str(PHOTOS[suffix] + sum(name.endswith(suffix) for name in BROKEN)) in remark
    [remark] = [remark for remark in report["remarks"] if f"{DOCUMENTS} .pdf" in remark]
    assert "[pdf]" in remark
    done = runs.command.run("ingest", str(phone / "IMG_BROKEN_1.heic"))  # named by itself
    assert "[heic]" in done.output
    doctor = json.loads(runs.command.run("doctor", "--json").stdout)
    [formats] = [finding["message"] for finding in doctor["findings"] if finding["check"] == "formats"]
    assert "[heic]" in formats
