"""`stair-es ingest-texts` and `stair-es evaluate` with the default model: as installed on a node, in this process without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.commands import CommandRunner

from stair_es.model.stair_mini import artifacts

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(node_url: str, tmp_path: Path, warm_script: Path) -> Run:
    """Run the command; its index is never to be the one of the environment."""
    environment = {
        **os.environ,
        "STAIR_ES_MODEL": "stair-mini",
        "STAIR_ES_URL": node_url,
        "STAIR_ES_INDEX": "photos",
        "COLUMNS": "100",
    }

    def script(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [warm_script, *arguments], capture_output=True, text=True, check=False, env=environment, input=given, cwd=tmp_path
        )

    return script


def test_texts_from_standard_input(run: Run, client: OpenSearch, index_name: str) -> None:
    where = ("--index", index_name, "--text-tower", "table")
    done = run("ingest-texts", "-", *where, "--json", given="a brown dog\nthe of\na brown dog\n")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("seen", "written", "unchanged", "failed", "documents", "duplicates")} == {
        **{"seen": 3, "written": 1, "unchanged": 1, "failed": 1},
        **{"documents": 1, "duplicates": 1},
    }
    assert report["failure_reasons"] == [{"stage": "encode", "reason": "no token that the model knows", "texts": 1}]
    assert client.count(index=index_name)["count"] == 1
    again = run("ingest-texts", "-", *where, given="a brown dog\n")
    assert again.returncode == 0, again.stderr
    assert "1 texts: 0 written, 1 unchanged, 0 failed" in again.stdout
    wrong = run("ingest-texts", "gone.txt", *where, "--json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["error"].startswith("no such file")


def test_evaluate(run: Run, client: OpenSearch, tmp_path: Path) -> None:
    done = run(
        "evaluate", "retrieval", PHOTOS / "captions.jsonl", "--limit", "6", "--text-tower", "table", "--out", "report", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["texts"], found["model"]) == (6, 6, "stair-mini-2")
    assert found == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    rows = {(row["method"], row["direction"]): row for row in found["rows"]}
    stair = rows["STAIR", "text -> image"]
    assert stair["engine"]["hit"]["5"] >= 0.8
    assert stair["differences"]["unexplained"] == 0
    assert "second caption" in rows["BM25 on captions", "text -> image"]["engine"]["unavailable_reason"]
    assert "| STAIR " in (tmp_path / "report" / "evaluation.md").read_text()
    assert not client.indices.get(index="eval-*-stair-mini-2-*")
    wrong = run("evaluate", "retrieval", PHOTOS / "CREDITS.md", "--json")
    assert wrong.returncode == 2
    assert "isn't JSON" in json.loads(wrong.stdout)["error"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandRunner:
    """Run `stair-es evaluate` where there is no cluster, and none can be started."""
    monkeypatch.chdir(tmp_path)
    return CommandRunner({"STAIR_ES_MODEL": "stair-mini", "STAIR_ES_URL": "http://127.0.0.1:9", "COLUMNS": "100"}, "evaluate")


def layout(root: Path) -> Path:
    """A folder of classes as ImageNet has them, from photos."""
    classes = {"n1": ("tabby-cat", "kitten-with-yarn"), "n2": ("two-spaniels",), "n3": ("espresso",)}
    for name, photos in classes.items():
        (root / name).mkdir(parents=True)
        for photo in photos:
            shutil.copy(PHOTOS / f"{photo}.jpg", root / name / f"{photo}.JPEG")
    return root


def test_retrieval_of_a_coco_set_without_a_cluster(command: CommandRunner, tmp_path: Path) -> None:
    names = {1: "tabby-cat.jpg", 2: "espresso.jpg", 3: "two-spaniels.jpg"}
    texts = ((1, "a cat"), (1, "a tabby cat looks"), (2, "a cup of coffee"), (3, "two dogs"), (3, "brown dogs in a kennel"))
    coco = {
        "images": [{"id": id_, "file_name": name} for id_, name in names.items()],
        "annotations": [{"id": place, "image_id": id_, "caption": text} for place, (id_, text) in enumerate(texts)],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(coco))
    call = ("retrieval", "captions_val2017.json", "--images", PHOTOS, "--exact", "--text-tower", "table")
    found = command.read_json(*call)
    assert (found["format"], found["images"], found["texts"], found["cluster"]) == ("COCO", 3, 5, None)
    stair = found["rows"][0]
    assert (stair["method"], stair["model"], stair["exact"]["hit"]["1"]) == ("STAIR", "stair-mini-2", 1.0)
    assert stair["engine"] == {"unavailable_reason": "no cluster was used (--exact)"}
    assert command.read_error(*call, "--keep-index").exit_code == 2
    assert "no-such.jsonl" in str(command.read_error("retrieval", "no-such.jsonl", "--exact"))
    unknown = command.read_error(*call, "--compare", "nobody")
    assert unknown.exit_code == 2
    assert "nobody" in str(unknown)


def test_a_folder_of_classes(command: CommandRunner, tmp_path: Path) -> None:
    layout(tmp_path / "pets")
    (tmp_path / "names.txt").write_text("n1 cat, tabby\nn2 dog\nn3 coffee\n")
    (tmp_path / "prompts.txt").write_text("a photo of a {}\n\n{}\n")
    light = ("--text-tower", "table")
    found = command.read_json(
        "zero-shot", "pets", "--classes", "names.txt", "--prompts", "prompts.txt", "--out", "report", *light
    )
    assert found["prompts"] == ["a photo of a {}", "{}"]
    assert found["rows"] == [
        {"vectors": "tokens", "model": "stair-mini-2", "images": 4, "top1": 1.0, "top5": 1.0, "mean_class": 1.0}
    ]
    assert found == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert "| tokens  | stair-mini-2 |" in (tmp_path / "report" / "evaluation.md").read_text()
    [row] = command.read_json("words", "pets", "--classes", "names.txt", *light)["rows"]
    assert (row["images"], row["vocabulary"], row["at"]["20"]) == (4, len(artifacts.read_mini_artifacts().vocabulary), 1.0)
    refused = command.read_error("words", "pets", "--classes", "names.txt", "--split", "test", *light)
    assert "--classes is for a folder of classes" in str(refused)
    probed = command.read_json("probe", "--train", "pets", "--test", layout(tmp_path / "again"), *light)
    assert probed["rows"][0]["top1"] == 1.0
    wrong = command.read_error("probe", "pets", *light)
    assert (wrong.exit_code, wrong.message) == (2, "no such folder: pets/train")


def test_sparsity_of_captions_and_folders(command: CommandRunner, tmp_path: Path) -> None:
    table = ("--text-tower", "table")
    shown = command.read_output("sparsity", PHOTOS / "captions.jsonl", "--limit", "5", *table)
    assert "| tokens  | stair-mini-2 | texts -> images  |" in shown
    assert command.read_json("sparsity", PHOTOS, "--limit", "3")["rows"][0]["items"]["images"]["max"] <= 64
    for name, text in (("red", "a cat"), ("blue", "two dogs")):  # folders like those of classes, with captions in them
        (tmp_path / "both" / name).mkdir(parents=True)
        shutil.copy(PHOTOS / "tabby-cat.jpg", tmp_path / "both" / name / "photo.jpg")
        (tmp_path / "both" / name / "photo.txt").write_text(text)
    assert "Whether a word of an image's captions" in command.read_output("words", "both", *table)
    (tmp_path / "both" / "metadata.jsonl").write_text('{"file_name": "gone.jpg", "text": "a cat"}')
    refused = command.read_error("sparsity", "both")  # and isn't taken for a folder of images without a word
    assert "no image with a caption" in str(refused)
    shown = command.read_output("words", PHOTOS / "captions.jsonl", "--limit", "8", *table)
    assert "Whether a word of an image's captions" in shown
