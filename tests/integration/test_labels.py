"""Labels from elsewhere: imported, searched, judged, changed by a policy, kept by ingests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from support.commands import CommandRunner
from support.corpora.ingest_sources import PHOTOS, copy_photo

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import IndexMismatch
from stair_es.labels.sidecars import build_sidecar

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

NAMES = ("tabby-cat", "two-spaniels", "bison", "koala", "wall-clock", "espresso")
ROWS: list[dict[str, Any]] = [
    {"image": "tabby-cat.jpg", "Labels": [{"Name": "Tabby Cat", "Confidence": 97}, {"Name": "Sofa.Bed", "Confidence": 55}]},
    {"file": "two-spaniels.jpg", "tags": [{"name": "golden retriever", "accuracy": 0.6}, {"name": "flimflam", "accuracy": None}]},
    {"file": "bison.jpg", "labels": {"flimflam": 0.5, "flimflam party": 0.9}},
]


class LabelRuns:
    """One index with photos, and the command on it."""

    def __init__(self, url: str, alias: str, folder: Path) -> None:
        self.alias, self.folder = alias, folder
        self.cluster = Cluster(Connection(url=url))
        self.command = CommandRunner({"STAIR_ES_URL": url, "STAIR_ES_INDEX": alias})

    def ingest(self, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = self.command.read_json("ingest", self.folder, *options)
        return found

    def write_rows(self, rows: list[dict[str, Any]]) -> Path:
        path = self.folder.parent / "labels.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def import_rows(self, rows: list[dict[str, Any]], *options: str) -> dict[str, Any]:
        """Import rows, and check that the counts add up."""
        result = self.command.run("ingest-labels", self.write_rows(rows), "--json", *options)
        assert result.exit_code in (0, 3), result.output
        report: dict[str, Any] = json.loads(result.stdout)
        assert report["images"] == report["written"] + report["unchanged"] + report["failed"] + report["forgotten"]
        assert (result.exit_code == 3) == (report["failed"] > 0)
        return report

    def get_labels(self) -> dict[str, dict[str, float]]:
        """Return the labels of each photo that has some."""
        hits = self.cluster.search(self.alias, {"size": 100, "_source": ["name", "labels", "top_labels"]})["hits"]["hits"]
        found = {hit["_source"]["name"].removesuffix(".jpg"): hit["_source"] for hit in hits}
        for source in found.values():
            weights = source.get("labels") or {}
            assert sorted(weights, key=lambda key: (-weights[key], key)) == [
                label.replace(".", "%2E") for label in source.get("top_labels") or []
            ]
        return {name: source["labels"] for name, source in found.items() if source.get("labels")}

    def search(self, *arguments: str) -> list[tuple[str, dict[str, float], bool]]:
        hits = self.command.read_json("search", *arguments)["hits"]
        return [(Path(hit["uri"]).stem, hit.get("labels", {}), hit["weak"]) for hit in hits]


def build_label_runs(url: str, alias: str, tmp_path: Path) -> LabelRuns:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        copy_photo(PHOTOS / f"{name}.jpg", folder / f"{name}.jpg")
    runs = LabelRuns(url, alias, folder)
    runs.ingest()
    return runs


@pytest.fixture
def engine_runs(rank_features_url: str, engine_index: str, tmp_path: Path) -> LabelRuns:
    """On each engine."""
    return build_label_runs(rank_features_url, engine_index, tmp_path)


@pytest.fixture
def runs(node_url: str, index_name: str, tmp_path: Path) -> LabelRuns:
    return build_label_runs(node_url, index_name, tmp_path)


def test_labels_are_imported_replaced_and_kept(engine_runs: LabelRuns) -> None:
    runs = engine_runs
    assert runs.import_rows(ROWS)["written"] == 3
    expected = {
        "tabby-cat": {"tabby cat": 0.97, "sofa bed": 0.55},
        "two-spaniels": {"golden retriever": 0.6, "flimflam": 1.0},
        "bison": {"flimflam": 0.5, "flimflam party": 0.9},
    }
    assert runs.get_labels() == expected
    assert runs.import_rows(ROWS)["unchanged"] == 3
    added = [{"image": "bison.jpg", "labels": {"Bison": 0.8, "flimflam": 0.4}}]
    assert runs.import_rows(added, "--keep")["written"] == 1
    assert runs.get_labels()["bison"] == {"flimflam": 0.5, "flimflam party": 0.9, "bison": 0.8}
    assert runs.import_rows(added, "--dry-run")["written"] == 1
    assert runs.import_rows(added, "--min-confidence", "0.5")["written"] == 1
    assert runs.get_labels() == {**expected, "bison": {"bison": 0.8}}
    assert runs.import_rows([{"image": "bison.jpg", "labels": []}])["written"] == 1
    assert "bison" not in runs.get_labels()


def test_queries_find_labels_by_their_confidence(engine_runs: LabelRuns) -> None:
    runs = engine_runs
    runs.import_rows(ROWS)
    assert runs.search("flimflam") == [
        ("two-spaniels", {"flimflam": 1.0}, False),
        ("bison", {"flimflam": 0.5}, False),
    ]
    assert runs.search("flimflam party", "-k", "1") == [("bison", {"flimflam": 0.5, "flimflam party": 0.9}, False)]
    [best, *others] = runs.search("golden retriever")
    assert best == ("two-spaniels", {"golden retriever": 0.6}, False)
    assert all(weak for _, _, weak in others)
    assert {name for name, _, _ in runs.search("animal +flimflam")} == {"two-spaniels", "bison"}
    without = {name for name, _, _ in runs.search("animal -flimflam")}
    assert without
    assert not without & {"two-spaniels", "bison"}
    assert [name for name, _, _ in runs.search("animal", "--filter", 'top_labels:"tabby cat"')] == ["tabby-cat"]
    explained = runs.command.read_json("explain", runs.folder / "bison.jpg", "flimflam")
    assert (explained["labels"], explained["rank"]) == ({"flimflam": 0.5}, 2)
    words = runs.command.read_json("words", "--labels")["tokens"]
    assert [(row["token"], row["images"]) for row in words[:1]] == [("flimflam", 2)]


def test_rows_without_their_image_fail_and_can_be_imported_later(runs: LabelRuns, tmp_path: Path) -> None:
    (runs.folder / "more").mkdir()
    copy_photo(PHOTOS / "bison.jpg", runs.folder / "more" / "bison.jpg")
    runs.ingest()
    rows = [
        {"image": "bison.jpg", "labels": ["a"]},
        {"image": "more/bison.jpg", "labels": ["b"]},
        {"image": "nowhere.jpg", "labels": ["c"]},
        {"uri": (runs.folder / "koala.jpg").as_uri(), "labels": ["d"]},
        {"image": "koala.jpg", "labels": ["e"]},
        {"image": "\ud800", "labels": ["f"]},
        {"image": "x" * 9000, "labels": ["g"]},
    ]
    letters = tmp_path / "failed.jsonl"
    report = runs.import_rows(rows, "--dead-letters", str(letters))
    assert (report["written"], report["failed"]) == (1, 6)
    letter_rows = [json.loads(line) for line in letters.read_text().splitlines()]
    assert len(letter_rows) == 6
    assert all(row["failed_reason"] and row["failed_row"] for row in letter_rows)
    report = runs.import_rows(rows[:2], "--image-base", str(runs.folder))
    assert (report["written"], report["failed"]) == (2, 0)
    copy_photo(PHOTOS / "astronaut.jpg", runs.folder / "nowhere.jpg")
    runs.ingest()
    assert runs.import_rows([row for row in letter_rows if row.get("references") == ["nowhere.jpg"]])["written"] == 1
    assert runs.get_labels()["nowhere"] == {"c": 1.0}


def test_ingests_keep_labels_while_the_image_is_the_same(engine_runs: LabelRuns) -> None:
    runs = engine_runs
    runs.import_rows(ROWS)
    labels = runs.get_labels()
    before = runs.ingest()["index"]
    assert runs.get_labels() == labels
    after = runs.ingest("--thumbnail-px", "32")["index"]  # builds another index
    assert after != before
    assert runs.get_labels() == labels
    copy_photo(PHOTOS / "astronaut.jpg", runs.folder / "bison.jpg")
    runs.ingest("--thumbnail-px", "32")
    assert runs.get_labels() == {name: found for name, found in labels.items() if name != "bison"}
    runs.command.read_output("forget", runs.folder / "tabby-cat.jpg")
    assert set(runs.get_labels()) == {"two-spaniels"}
    report = runs.import_rows(
        [{"uri": (runs.folder / f"{name}.jpg").as_uri(), "labels": ["x"]} for name in ("tabby-cat", "two-spaniels")]
    )
    assert (report["written"], report["forgotten"]) == (1, 1)


def test_a_policy_of_labels_is_applied_inherited_and_taken_back(engine_runs: LabelRuns, tmp_path: Path) -> None:
    runs = engine_runs
    runs.import_rows(ROWS)
    original = runs.get_labels()
    policy = tmp_path / "rejected.json"
    rules = {"mute": ["sofa bed"], "floor": {"flimflam": 0.6}, "rename": {"golden retriever": "dog of gold"}}
    policy.write_text(json.dumps({"stair_es_policy": 1, **rules}))
    plan = runs.command.read_json("policy", "plan", policy, "--labels")
    assert (plan["examined"], plan["changed"]) == (3, 3)
    [counts] = runs.command.read_json("policy", "apply", policy, "--labels")
    assert (counts["changed"], counts["unchanged"], counts["failed"]) == (3, 0, [])
    changed = {
        "tabby-cat": {"tabby cat": 0.97},
        "two-spaniels": {"dog of gold": 0.6, "flimflam": 1.0},
        "bison": {"flimflam party": 0.9},
    }
    assert runs.get_labels() == changed
    assert runs.search("golden retriever", "-k", "1") == [("two-spaniels", {"dog of gold": 0.6}, False)]
    assert [name for name, _, _ in runs.search("flimflam")] == ["two-spaniels"]
    assert runs.import_rows(ROWS)["unchanged"] == 3
    runs.ingest("--thumbnail-px", "32")
    assert runs.get_labels() == changed
    [state] = runs.command.read_json("policy", "show", "--labels")
    assert state["policy"]["floor"] == {"flimflam": 0.6}
    assert "pending_operation" not in state
    [counts] = runs.command.read_json("policy", "rollback", "--labels")
    assert counts["changed"] == 3
    assert runs.get_labels() == original
    assert runs.command.read_error("policy", "apply", "--labels").code == "no-policy"
    policy.write_text(json.dumps({"stair_es_policy": 1, "teach": {"x": {"tokens": {"a": 1}, "floor": 0, "full": 1}}}))
    assert runs.command.read_error("policy", "apply", policy, "--labels").code == "labels-cannot-be-taught"


def test_words_are_exported_as_sidecars(runs: LabelRuns, tmp_path: Path) -> None:
    runs.import_rows([{"image": "tabby-cat.jpg", "labels": {"R&D <sofa>\u0001": 0.9}}])
    foreign = runs.folder / "bison.jpg.xmp"
    foreign.write_text("<x:xmpmeta/>")
    expected = {"images": 6, "written": 5, "unchanged": 0, "kept": 1, "without": 0, "skipped": 0, "failed": 0}
    assert expected.items() <= runs.command.read_json("export-xmp", "--dry-run").items()
    assert list(runs.folder.glob("*.xmp")) == [foreign]
    assert expected.items() <= runs.command.read_json("export-xmp", "--labels", "--prefix", "auto/").items()
    assert foreign.read_text() == "<x:xmpmeta/>"
    tree = ElementTree.parse(runs.folder / "tabby-cat.jpg.xmp")
    found = [item.text or "" for item in tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")]
    assert found[-1] == "auto/r d sofa"
    assert "auto/cat" in found
    again = runs.command.read_json("export-xmp", "--labels", "--prefix", "auto/")
    assert (again["written"], again["unchanged"]) == (0, 5)
    assert runs.command.read_json("export-xmp")["written"] == 5
    assert runs.command.read_json("export-xmp", "--min-weight", "5")["without"] == 5
    assert runs.command.read_json("export-xmp", "--out", tmp_path / "out")["written"] == 6
    assert len(list((tmp_path / "out").rglob("*.xmp"))) == 6
    (runs.folder / "koala.jpg.xmp").unlink()
    (runs.folder / "koala.jpg.xmp").mkdir()
    result = runs.command.run("export-xmp", "--json")
    assert (result.exit_code, json.loads(result.stdout)["failed"]) == (3, 1)


def test_keywords_of_files_become_labels_beside_imported_ones(runs: LabelRuns, tmp_path: Path) -> None:
    runs.import_rows(ROWS)
    imported = runs.get_labels()
    photo = runs.folder / "koala.jpg"
    Image.open(photo).save(photo, xmp=build_sidecar(["Eucalyptus", "Koala"]))
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"stair_es_policy": 1, "rename": {"koala": "bear"}}))
    runs.command.read_json("policy", "apply", policy, "--labels")
    runs.ingest("--enrich", "keywords")
    assert runs.get_labels() == {**imported, "koala": {"eucalyptus": 1.0, "bear": 1.0}}
    assert runs.search("eucalyptus", "-k", "1") == [("koala", {"eucalyptus": 1.0}, False)]
    assert runs.import_rows([{"image": "koala.jpg", "labels": {"tree": 0.5}}], "--keep")["written"] == 1
    runs.command.read_json("policy", "rollback", "--labels")
    assert runs.get_labels()["koala"] == {"eucalyptus": 1.0, "koala": 1.0, "tree": 0.5}
    assert runs.ingest("--enrich", "keywords")["unchanged"] == 6


def test_columns_with_the_names_of_labels_are_not_overwritten(runs: LabelRuns, client: OpenSearch) -> None:
    index = runs.ingest()["index"]
    client.indices.put_mapping(index=index, body={"properties": {"top_labels": {"type": "text"}}})
    error = runs.command.read_error("ingest-labels", runs.write_rows(ROWS))
    assert (error.code, type(error)) == ("labels-field-taken", IndexMismatch)


def test_labels_are_judged_and_rejected(runs: LabelRuns, tmp_path: Path) -> None:
    assert runs.command.read_error("evaluate", "labels").code == "no-labels"
    for number in range(10):
        copy_photo(PHOTOS / "tabby-cat.jpg", runs.folder / f"cat{number}.jpg")
        copy_photo(PHOTOS / "wall-clock.jpg", runs.folder / f"clock{number}.jpg")
    runs.ingest()
    names = [f"{kind}{number}" for number in range(10) for kind in ("cat", "clock")]
    rows = [
        {
            "file": f"{name}.jpg",
            "labels": {("Cat" if "cat" in name else "Clock"): 0.9, **({"Zebra": 0.8} if place % 4 < 2 else {})},
        }
        for place, name in enumerate(names)
    ]
    assert runs.import_rows(rows)["written"] == 20
    marks = tmp_path / "marks.jsonl"
    marks.write_text("".join(json.dumps({"file": f"clock{n}.jpg", "label": "clock", "right": False}) + "\n" for n in range(6)))
    policy = tmp_path / "rejected.json"
    report = runs.command.read_json("evaluate", "labels", "--marks", marks, "--policy", policy)
    verdicts = {row["label"]: (row["verdict"], row["basis"]) for row in report["rows"]}
    assert verdicts == {"cat": ("keep", "agreement"), "clock": ("reject", "marks"), "zebra": ("unclear", "agreement")}
    assert json.loads(policy.read_text())["mute"] == ["clock"]
    [counts] = runs.command.read_json("policy", "apply", policy, "--labels")
    assert counts["changed"] == 10
    again = runs.command.read_json("evaluate", "labels", "--marks", marks)
    assert {row["label"]: (row["verdict"], row["basis"]) for row in again["rows"]} == verdicts
    assert runs.command.read_error("evaluate", "labels", "--policy", policy).code == "file-exists"
