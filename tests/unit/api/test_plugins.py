"""Loading of plugins, and the parts of the example plugin."""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error
from support.plugin_metadata import write_entry_points

from stair_es import plugins
from stair_es.errors import PluginError, ReadError, UsageError
from stair_es.ingest.enrichers.base import EnricherInput
from stair_es.ingest.sinks.base import SinkKind, SinkPlan
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ReadLimits, SourceItem, SourceOptions
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.store import IndexedDocument
from stair_es.types import ImageSpec, Pixels

InstallPlugin = Callable[[str, str, str], str]
LoadExample = Callable[[str], Any]
EXAMPLE = Path(__file__).parents[3] / "examples" / "plugin" / "src"


@pytest.fixture
def install_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallPlugin]:
    """Install a package with one entry point: `(group, name, source)` -> its name. `KIND` is the object."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    plugins.list_plugins.cache_clear()

    def install_plugin(group: str, name: str, source: str) -> str:
        module = f"stranger_{uuid.uuid4().hex}"  # a fresh name, since imported modules are cached
        (site / f"{module}.py").write_text(source)
        write_entry_points(site, module, f"{name} = {module}:KIND", group=group, version="2.5")
        return module

    yield install_plugin
    plugins.list_plugins.cache_clear()


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> LoadExample:
    """The object that a module of the example plugin exports."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return lambda module: import_module(f"stair_es_example.{module}").KIND


def test_each_group_has_its_built_ins() -> None:
    built_in = {
        group: {p.name for p in plugins.list_plugins(group) if p.distribution == plugins.BUILTIN_DISTRIBUTION}
        for group in plugins.PLUGIN_GROUPS
    }
    assert "folder" in built_in["sources"]
    assert "stair-mini" in built_in["encoders"]
    assert "filename" in built_in["enrichers"]
    assert "cluster" in built_in["sinks"]


def test_a_third_party_plugin_is_found_before_built_in_ones(install_package: InstallPlugin) -> None:
    name = install_package("enrichers", "filename", "KIND = 'theirs'")
    plugin = plugins.get_plugin("enrichers", "filename")
    assert plugin is not None
    assert (plugin.distribution, plugin.version, plugin.load()) == (name, "2.5", "theirs")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise SystemError('broken inside')", "broken inside"),
        ("OTHER = 1", "AttributeError"),
        ("class KIND:\n    api_version = 99", "API version 99"),
        ("class KIND:\n    name = 'broken'", "not an instance of SinkKind"),
    ],
)
def test_an_incompatible_plugin_is_named_with_the_reason(install_package: InstallPlugin, source: str, reason: str) -> None:
    name = install_package("sinks", "broken", source)
    plugin = plugins.get_plugin("sinks", "broken")
    assert plugin is not None
    with pytest.raises(PluginError, match=reason) as error:
        plugin.load(SinkKind)
    assert f"'broken' of {name} 2.5" in error.value.message
    assert name in error.value.remedy


def test_zip_images_are_listed_and_read_elsewhere(load_example: LoadExample, tmp_path: Path) -> None:
    kind, archive = load_example("zip_source"), tmp_path / "a b.ZIP"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("in/red car.png", b"first")
        file.writestr("notes.txt", b"no image")
        file.writestr("b.jpg", b"second")
    assert kind.can_open(str(archive))
    assert not kind.can_open("s3://bucket/a.zip")
    source = kind.open(str(archive), SourceOptions())
    first, second = source.list_items()
    assert isinstance(first, SourceItem)
    assert first.uri == f"{archive.as_uri()}!/in/red%20car.png"
    assert dict(source.ignored) == {".txt": 1}
    locator = pickle.loads(pickle.dumps(first.locator))
    read = locator.read(ReadLimits())
    assert (read.data, read.version) == (b"first", first.version)
    assert locator.read(ReadLimits(), known_version=first.version) is None
    assert first.version != second.version
    with expect_error("read-error") as caught:
        locator.read(ReadLimits(max_bytes=4))
    assert re.findall(r"\d+", caught.value.message) == ["5", "4"]
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("b.jpg", b"second")
    with pytest.raises(ReadError):
        locator.read(ReadLimits())


def test_missing_and_broken_archives_are_wrong_usage(load_example: LoadExample, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    for name in ("none.zip", "broken.zip"):
        with pytest.raises(UsageError, match=re.escape(name)):
            list(load_example("zip_source").open(str(tmp_path / name), SourceOptions()).list_items())


def test_colors_parses_texts(load_example: LoadExample) -> None:
    kind = load_example("colors")
    encoder = kind.load(ModelSpec(name="colors"))
    images_BHWC = np.zeros((2, 64, 64, 3), np.uint8)
    images_BHWC[0, :, :48], images_BHWC[0, :, 48:] = (205, 30, 30), (245, 245, 245)
    images_BHWC[1] = kind.card.image_spec.background
    half_red, empty = encoder.encode_images(images_BHWC)
    assert half_red.to_dict() == {"red": 0.75, "white": 0.25}
    assert len(empty) == 0
    assert encoder.encode_images(images_BHWC[:1]) == [half_red]
    red_car, nothing = encoder.encode_texts(["Red car, GREY sky", "a dog"])
    assert red_car.to_dict() == {"gray": 1.0, "red": 1.0}
    assert len(nothing) == 0
    assert red_car.dot(half_red) == 0.75
    vocabulary = (Path(plugins.__file__).parent / "model" / "data" / "vocab.txt").read_text().split("\n")
    assert set(import_module("stair_es_example.colors_encoder").WORDS) <= set(vocabulary)


def build_enricher_input(
    pixels_HWC: Pixels, box: tuple[int, int, int, int] | None = None, thumbnail: str | None = None
) -> EnricherInput:
    height, width, _ = pixels_HWC.shape
    whole = (0, 0, width, height)
    return EnricherInput(uri="a.png", data=b"", pixels_HWC=pixels_HWC, box=box or whole, thumbnail=thumbnail, fields={})


def test_pixelate_hides_the_picture_wherever_it_shows(load_example: LoadExample) -> None:
    buffer, pixels_HWC = io.BytesIO(), np.zeros((64, 64, 3), np.uint8)
    pixels_HWC[::2] = 255
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    enricher = load_example("pixelate").build({"blocks": "2"})
    thumbnail = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    candidate = build_enricher_input(pixels_HWC, thumbnail=thumbnail)
    [result] = enricher.enrich([candidate])
    assert result.pixels_HWC.shape == pixels_HWC.shape
    assert result.pixels_HWC.dtype == np.uint8
    assert set(np.unique(result.pixels_HWC)) == {128}
    assert result.fields == {"brightness": 0.5}
    assert result.thumbnail.startswith("data:image/webp;base64,")
    assert enricher.version != load_example("pixelate").build({}).version
    with pytest.raises(OSError, match="cannot identify"):
        enricher.enrich([replace(candidate, thumbnail="data:image/webp;base64,none")])
    assert enricher.enrich([replace(candidate, thumbnail=None)])[0].thumbnail is None
    for wrong in ({"blocks": "0"}, {"blocks": "many"}, {"size": "3"}):
        with pytest.raises(UsageError, match="blocks=N"):
            load_example("pixelate").build(wrong)


def test_pixelate_keeps_the_margin(load_example: LoadExample) -> None:
    buffer, background = io.BytesIO(), (255, 0, 255)
    Image.new("RGB", (50, 100), (0, 100, 0)).save(buffer, "PNG")
    decoded = decode_image(buffer.getvalue(), ImageSpec(size_px=40, background=background), DecodeLimits(), 0)
    candidate = build_enricher_input(decoded.pixels_HWC, box=decoded.box)
    [result] = load_example("pixelate").build({}).enrich([candidate])
    assert np.array_equal(result.pixels_HWC, decoded.pixels_HWC)
    assert result.fields == {"brightness": 0.23}


def build_sink_plan(folder: Path) -> SinkPlan:
    return SinkPlan(alias="a", digest="0123abcd", options={"folder": str(folder)})


def build_document(uri: str, version: str) -> dict[str, str]:
    return {"uri": uri, "source": "file:///a", "sha256": "5" * 64, "fingerprint": "f", "version": version}


def test_ndjson_counts_all_files(load_example: LoadExample, tmp_path: Path) -> None:
    kind = load_example("ndjson")
    assert kind.open_readonly(build_sink_plan(tmp_path / "out")) is None
    assert not (tmp_path / "out").exists()
    session = kind.open(build_sink_plan(tmp_path / "out"))
    assert session.is_empty
    writer = pickle.loads(pickle.dumps(session.writer))
    written = writer.write([("1", build_document("u1", "v1")), ("2", build_document("u2", "v1")), ("3", {"uri": object()})], 1)
    assert (written.outcomes["1"], written.outcomes["2"]) == (None, None)
    assert "not JSON" in written.outcomes["3"]
    writer.write([("1", build_document("u1", "v2"))], 1)
    writer.update([("2", {"version": "v3"}), ("4", {"version": "v3"})])
    assert {id_: stored.version for id_, stored in writer.find_by_id(["1", "2", "3", "4"]).items()} == {"1": "v2", "2": "v3"}
    assert writer.find_by_uri(["u2", "u9"])["u2"].id == "2"
    session.delete_documents([IndexedDocument(id=id_, uri="", source="") for id_ in ("1", "9")])
    assert [(entry.id, entry.uri) for entry in session.iterate_documents(["file:///a"])] == [("2", "u2")]
    assert list(session.iterate_documents(["file:///b"])) == []
    again = kind.open(build_sink_plan(tmp_path / "out"))
    assert not again.is_empty
    assert again.index == session.index


def test_finished_ndjson_files_are_bulk_bodies(load_example: LoadExample, tmp_path: Path) -> None:
    session = load_example("ndjson").open(build_sink_plan(tmp_path))
    session.writer.write([("1", build_document("u1", "v1"))], 1)
    folder = Path(session.index)
    (folder / "00000000000000000000-dead.unfinished").write_bytes(b'{"index": {"_id": "7"}}\n{"uri": "tor')
    [part] = folder.glob("*.ndjson")
    body = part.read_bytes()
    assert body.endswith(b"\n")
    assert [json.loads(line) for line in body.splitlines()] == [{"index": {"_id": "1"}}, build_document("u1", "v1")]
    assert set(session.writer.find_by_id(["1", "7"])) == {"1"}


@pytest.mark.parametrize("options", [{}, {"folder": ""}, {"folder": "x", "keep": "1"}])
def test_ndjson_needs_a_folder(load_example: LoadExample, options: dict[str, str]) -> None:
    plan = SinkPlan(alias="a", digest="0123abcd", options=options)
    with pytest.raises(UsageError, match="folder"):
        load_example("ndjson").open(plan)


def run_documented_code() -> list[dict[str, Any]]:
    """The names that each Python block of docs/plugins.md defines."""
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLE.parents[2] / "docs" / "plugins.md").read_text(), re.DOTALL)
    defined = []
    for block in blocks:
        names: dict[str, Any] = {}
        exec("from __future__ import annotations\n" + block, names)
        defined.append(names)
    return defined


def test_the_short_examples_of_the_page_work(tmp_path: Path) -> None:
    source, encoder, enricher, sink = run_documented_code()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b c.jpg", b"bytes")
    kind = source["ZipKind"]()
    assert kind.can_open("a.zip")
    [item] = kind.open(str(tmp_path / "a.zip"), SourceOptions()).list_items()
    assert item.uri.endswith("/a.zip!/b%20c.jpg")
    assert item.locator.read(ReadLimits()).data == b"bytes"

    colors = encoder["ColorsEncoder"]()
    assert colors.encode_images(np.full((2, 4, 4, 3), 9, np.uint8))[1].to_dict() == {"red": 10.0}
    assert [len(vector) for vector in colors.encode_texts(["red", "blue"])] == [1, 0]

    candidate = build_enricher_input(np.full((4, 4, 3), 255, np.uint8))
    assert enricher["BrightnessKind"]().build({}).enrich([candidate])[0].fields == {"brightness": 1.0}

    writer = sink["Writer"](tmp_path)
    assert writer.write([("1", {"uri": "a"})], 1).outcomes == {"1": None}
    assert [json.loads(path.read_text()) for path in tmp_path.glob("*.jsonl")] == [{"_id": "1", "uri": "a"}]
    assert writer.find_by_uri(["a"]) == {}
