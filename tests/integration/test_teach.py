"""Teach an index words from marked pictures: preview, apply, search, ingest, take back, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandRunner

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch
from stair_es.sources.registry import open_source

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
LATER = "white-duck.jpg"
BIRDS = ("kingfisher.jpg", "scarlet-macaw.jpg", "brown-hens.jpg", LATER)
WORD = "gefieder"
OTHER_QUERIES = ("bird", "a kitten", "castle by the water", "wind")


class TaughtIndex:
    """The bundled photos in an index, and the command."""

    def __init__(self, url: str, alias: str, folder: Path) -> None:
        self.url, self.alias, self.folder = url, alias, folder
        self.cluster = Cluster(Connection(url=url))
        self.command = CommandRunner({"STAIR_ES_URL": url, "STAIR_ES_INDEX": alias})

    def ingest(self) -> None:
        options = IngestOptions(
            alias=self.alias, model=ModelSpec(name="stair-mini"), runner="local", dead_letters=self.folder / "letters.jsonl"
        )
        run_ingest([open_source(str(self.folder))], Connection(url=self.url), options, progress=lambda _: None)

    def teach(self, *arguments: str | Path) -> Any:  # noqa: ANN401  JSON
        return self.command.read_json("teach", *arguments)

    def expect_failure(self, code: str, *arguments: str | Path) -> None:
        result = self.command.run(*arguments, "--json")
        assert json.loads(result.stdout)["code"] == code, result.output

    def list_birds(self) -> list[Path]:
        return [self.folder / name for name in BIRDS if name != LATER]

    def read_documents(self) -> dict[str, dict[str, Any]]:
        self.cluster.client.indices.refresh(index=self.alias)
        hits = self.cluster.client.search(index=self.alias, body={"size": 100})["hits"]["hits"]
        return {Path(hit["_source"]["uri"]).name: hit["_source"] for hit in hits}

    def search(self, text: str, k: int = 100) -> list[tuple[str, float]]:
        with ImageSearch(self.alias, url=self.url) as search:
            return [(Path(hit.uri).name, hit.score) for hit in search.search(text, k=k).hits]


@pytest.fixture(scope="module")
def index(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaughtIndex]:
    folder = tmp_path_factory.mktemp("photos")
    for photo in PHOTOS.glob("*.jpg"):
        if photo.name != LATER:
            shutil.copy2(photo, folder)  # a fresh file has no version yet
    taught = TaughtIndex(node_url, "test-teach", folder)
    taught.ingest()
    yield taught
    taught.cluster.client.indices.delete(index=f"{taught.alias}-*")
    taught.cluster.close()


def test_a_taught_word_works_everywhere_and_can_be_taken_back(index: TaughtIndex) -> None:
    before = index.read_documents()
    rankings = {text: index.search(text) for text in OTHER_QUERIES}
    preview = index.teach(WORD, "--yes", *index.list_birds(), "--no", index.folder / "bee-in-flight.jpg")
    assert 0 < len(preview["tokens"]) <= 32
    assert {hit["uri"].rpartition("/")[2] for hit in preview["hits"][:3]} == {path.name for path in index.list_birds()}
    assert 0 <= preview["precision"] <= 1
    assert index.read_documents() == before
    assert index.teach() == []

    [counts] = index.teach(WORD, "--yes", *index.list_birds(), "--no", index.folder / "bee-in-flight.jpg", "--apply")
    after = index.read_documents()
    written = {name for name, source in after.items() if f"#{WORD}" in source["tokens"]}
    assert counts["changed"] == len(written)
    assert {path.name for path in index.list_birds()} <= written
    assert [name for name, _ in index.search(WORD, k=3)] == [hit["uri"].rpartition("/")[2] for hit in preview["hits"][:3]]
    assert {text: index.search(text) for text in OTHER_QUERIES} == rankings
    assert WORD in " ".join(index.command.read_json("search", WORD)["remarks"])
    matches = {name for name in written if after[name]["tokens"][f"#{WORD}"] >= 0.25}
    assert {name for name, _ in index.search(f"animal +{WORD}")} == matches < written
    assert matches.isdisjoint(name for name, _ in index.search(f"animal -{WORD}"))
    [listed] = index.teach()
    assert (listed["word"], len(listed["yes"]), len(listed["no"]), listed["erased"]) == (WORD, 3, 1, 0)
    assert f"#{WORD}" in index.command.read_output("words", "--match", "#*")

    shutil.copy(PHOTOS / LATER, index.folder)
    index.ingest()
    assert index.read_documents()[LATER]["tokens"][f"#{WORD}"] > 0

    [counts] = index.teach(WORD, "--forget")
    restored = index.read_documents()
    assert f"#{WORD}" not in restored.pop(LATER)["tokens"]
    assert restored == before
    assert [list(source["tokens"].items()) for source in restored.values()] == [
        list(before[name]["tokens"].items()) for name in restored
    ]
    index.expect_failure("no-known-word", "search", WORD)


def test_marks_are_checked(index: TaughtIndex, tmp_path: Path) -> None:
    first, second, third = index.list_birds()
    cow, copy = index.folder / "dairy-cow.jpg", tmp_path / "moved.jpg"
    shutil.copy(third, copy)
    index.expect_failure("too-few-marks", "teach", WORD, "--yes", first, second)
    index.expect_failure("too-few-marks", "teach", WORD, "--yes", first, second, second)
    index.expect_failure("contradicting-marks", "teach", WORD, "--yes", first, second, third, "--no", third)
    index.expect_failure("contradicting-marks", "teach", WORD, "--yes", first, second, third, "--no", copy)
    index.expect_failure("mark-not-in-index", "teach", WORD, "--yes", first, second, PHOTOS / "CREDITS.md")
    index.expect_failure("too-many-marks", "teach", WORD, "--yes", *sorted(index.folder.glob("*.jpg"))[:21])
    index.expect_failure("not-a-teachable-word", "teach", "a|b", "--yes", first, second, third)
    index.expect_failure("not-a-taught-word", "teach", WORD)
    index.expect_failure("not-a-taught-word", "teach", WORD, "--forget")
    index.expect_failure("conflicting-options", "teach", WORD, "--yes", first, "--forget")
    index.expect_failure("no-word-to-teach", "teach", "--apply")
    assert index.teach(WORD, "--yes", first, second, copy)["yes"] == index.teach(WORD, "--yes", first, second, third)["yes"]
    contradictory = index.teach(WORD, "--yes", first, second, cow)
    assert contradictory["precision"] < index.teach(WORD, "--yes", first, second, third)["precision"]


def test_marks_of_erased_images_are_dropped(index: TaughtIndex) -> None:
    names = ["tabby-cat.jpg", "kitten-with-yarn.jpg", "red-panda.jpg", "koala.jpg"]
    marks = [index.folder / name for name in names]
    index.teach("kuscheltier", "--yes", *marks, "--apply")
    [listed] = index.teach("kuscheltier")
    erased = index.cluster.client.get(index=index.alias, id=listed["yes"][-1])
    index.cluster.client.delete(index=index.alias, id=erased["_id"], refresh=True)
    assert index.teach("kuscheltier")[0]["erased"] == 1
    index.teach("kuscheltier", "--apply")
    [refitted] = index.teach("kuscheltier")
    assert (refitted["yes"], refitted["erased"]) == (listed["yes"][:-1], 0)
    index.teach("kuscheltier", "--no", index.folder / "bison.jpg", "--apply")
    assert len(index.teach("kuscheltier")[0]["no"]) == 1
    index.command.read_json("policy", "rollback")
    assert [word["word"] for word in index.teach()] == ["kuscheltier"]
    index.command.read_json("policy", "rollback", "--taught-words")
    assert index.teach() == []
    index.ingest()


def test_words_go_to_files_and_other_indices(index: TaughtIndex, tmp_path: Path) -> None:
    exported, mine = tmp_path / "words.json", tmp_path / "mine.json"
    other = TaughtIndex(index.url, "test-teach-other", index.folder)
    other.ingest()
    try:
        before = other.read_documents()
        index.teach(WORD, "--yes", *index.list_birds(), "--local", mine)
        index.expect_failure("no-known-word", "search", WORD)
        local = [hit["uri"] for hit in index.command.read_json("search", WORD, "--local", mine, "-k", "3")["hits"]]
        index.teach(WORD, "--yes", *index.list_birds(), "--apply")
        assert [hit["uri"] for hit in index.command.read_json("search", WORD, "-k", "3")["hits"]] == local
        index.command.read_output("teach", "--export", exported)
        index.expect_failure("file-exists", "teach", "--export", exported)
        other.command.read_json("policy", "apply", exported)
        assert other.search(WORD) == index.search(WORD)
        (muting := tmp_path / "muting.json").write_text('{"stair_es_policy": 1, "mute": ["bird"]}')
        other.command.read_json("policy", "apply", muting)
        assert [word["word"] for word in other.teach()] == [WORD]
        muting.write_text(json.dumps({"stair_es_policy": 1, "mute": [WORD]}))
        other.expect_failure("taught-word-in-policy", "policy", "apply", muting)
        other.command.read_json("policy", "rollback", "--taught-words")
        assert other.read_documents() == before
        assert [word["word"] for word in other.teach("--refit", exported)] == [WORD]
        foreign = json.loads(exported.read_text())
        foreign["teach"][WORD]["model"] = "other-1"
        exported.write_text(json.dumps(foreign))
        other.expect_failure("taught-for-other-model", "policy", "apply", exported)
        other.expect_failure("taught-for-other-model", "search", WORD, "--local", exported)
    finally:
        index.teach(WORD, "--forget")
        other.cluster.client.indices.delete(index=f"{other.alias}-*")
        other.cluster.close()
