"""`ingest-texts`, `evaluate` and `coverage` with the default model: as installed on a node, in this process without one."""

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
from support.corpora.web_corpus import Corpus

from stair_es.ingest.stages import NO_KNOWN_TOKENS
from stair_es.model.stair_mini import artifacts

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
TABLE = ("--text-tower", "table")


@pytest.fixture
def run_script(node_url: str, tmp_path: Path, warm_script: Path) -> RunScript:
    """Run the command; its index is never to be the one of the environment."""
    environment = {
        **os.environ,
        "STAIR_ES_MODEL": "stair-mini",
        "STAIR_ES_URL": node_url,
        "STAIR_ES_INDEX": "photos",
        "COLUMNS": "100",
    }

    def run_arguments(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [warm_script, *arguments], capture_output=True, text=True, check=False, env=environment, input=stdin, cwd=tmp_path
        )

    return run_arguments


def test_texts_from_standard_input(run_script: RunScript, client: OpenSearch, index_name: str) -> None:
    options = ("--index", index_name, *TABLE)
    done = run_script("ingest-texts", "-", *options, "--json", stdin="a brown dog\nthe of\na brown dog\n")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("seen", "written", "unchanged", "failed", "documents", "duplicates")} == {
        **{"seen": 3, "written": 1, "unchanged": 1, "failed": 1},
        **{"documents": 1, "duplicates": 1},
    }
    assert report["failure_reasons"] == [{"stage": "encode", "reason": NO_KNOWN_TOKENS, "texts": 1}]
    assert client.count(index=index_name)["count"] == 1
    again = run_script("ingest-texts", "-", *options, stdin="a brown dog\n")
    assert again.returncode == 0, again.stderr
    assert all(count in again.stdout for count in ("1 texts", "0 written", "1 unchanged", "0 failed"))
    wrong = run_script("ingest-texts", "gone.txt", *options, "--json")
    assert (wrong.returncode, json.loads(wrong.stdout)["code"]) == (2, "no-such-file")


LOG = """\
      9 cat
      4 a panda in a tree
      3 windmill
      2 qwzxv
      1 cat^x
      1 qwzxv cat
"""


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ((), {"match": 13, "only_weak": 4, "no_known_word": 2, "error": 1}),
        (("--hybrid", "none", "--literal"), {"match": 14, "only_weak": 4, "no_known_word": 2}),
    ],
)
def test_coverage(run_script: RunScript, corpus: Corpus, options: tuple[str, ...], kinds: dict[str, int]) -> None:
    done = run_script("coverage", "-", "--index", corpus.alias, *options, "--json", stdin=LOG)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["index"], report["model"], report["searches"], report["queries"]) == (corpus.alias, "stair-mini-3", 20, 6)
    assert {kind: each["searches"] for kind, each in report["answers"].items() if each["searches"]} == kinds
    unknown, *_ = report["words"]["unknown"]
    assert (unknown["word"], unknown["searches"], unknown["matched"]) == ("qwzxv", 3, 0)
    [windmill] = [each for each in report["words"]["not_carried"] if each["word"] == "windmill"]
    assert (windmill["searches"], windmill["largest_weight"]) == (3, 0.0)


def test_faults_of_the_index_end_a_coverage(run_script: RunScript, corpus: Corpus, tmp_path: Path) -> None:
    log = tmp_path / "searches.log"
    log.write_text("cat\n")
    table = run_script("coverage", log, "--index", corpus.alias, *TABLE)
    assert (table.returncode, "| a match " in table.stdout) == (0, True), table.stderr
    for options, code in (
        (("--index", corpus.alias, "--caption-field", "gone"), "no-such-caption-field"),
        (("--index", "gone"), "index-not-found"),
    ):
        failed = run_script("coverage", log, *options, "--json")
        assert (failed.returncode, json.loads(failed.stdout)["code"]) == (1, code)


def test_evaluate(run_script: RunScript, client: OpenSearch, tmp_path: Path) -> None:
    done = run_script("evaluate", "retrieval", PHOTOS / "captions.jsonl", "--limit", "6", *TABLE, "--out", "report", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["images"], report["texts"], report["model"]) == (6, 6, "stair-mini-3")
    assert report == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    rows = {(row["method"], row["direction"]): row for row in report["rows"]}
    stair = rows["STAIR", "text -> image"]
    assert stair["engine"]["hit"]["5"] >= 0.8
    assert stair["differences"]["unexplained"] == 0
    assert set(rows["BM25 on captions", "text -> image"]["engine"]) == {"unavailable_reason"}
    assert "| STAIR " in (tmp_path / "report" / "evaluation.md").read_text()
    assert not client.indices.get(index="eval-*-stair-mini-3-*")
    wrong = run_script("evaluate", "retrieval", PHOTOS / "CREDITS.md", "--json")
    fault = json.loads(wrong.stdout)
    assert (wrong.returncode, fault["code"], "JSON" in fault["error"]) == (2, "dataset-error", True)
    assert fault["remedy"]


@pytest.fixture
def evaluate_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandRunner:
    """Run `stair-es evaluate` where there is no cluster, and none can be started."""
    monkeypatch.chdir(tmp_path)
    return CommandRunner({"STAIR_ES_MODEL": "stair-mini", "STAIR_ES_URL": "http://127.0.0.1:9", "COLUMNS": "100"}, "evaluate")


def create_classes(root: Path) -> Path:
    """Create a folder of classes as ImageNet has them, from photos."""
    classes = {"n1": ("tabby-cat", "kitten-with-yarn"), "n2": ("two-spaniels",), "n3": ("espresso",)}
    for name, photos in classes.items():
        (root / name).mkdir(parents=True)
        for photo in photos:
            shutil.copy(PHOTOS / f"{photo}.jpg", root / name / f"{photo}.JPEG")
    return root


def test_retrieval_of_a_coco_set_without_a_cluster(evaluate_command: CommandRunner, tmp_path: Path) -> None:
    names = {1: "tabby-cat.jpg", 2: "espresso.jpg", 3: "two-spaniels.jpg"}
    texts = ((1, "a cat"), (1, "a tabby cat looks"), (2, "a cup of coffee"), (3, "two dogs"), (3, "brown dogs in a kennel"))
    coco = {
        "images": [{"id": id_, "file_name": name} for id_, name in names.items()],
        "annotations": [{"id": place, "image_id": id_, "caption": text} for place, (id_, text) in enumerate(texts)],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(coco))
    arguments = ("retrieval", "captions_val2017.json", "--images", PHOTOS, "--exact", *TABLE)
    report = evaluate_command.read_json(*arguments)
    assert (report["format"], report["images"], report["texts"], report["cluster"]) == ("COCO", 3, 5, None)
    stair = report["rows"][0]
    assert (stair["method"], stair["model"], stair["exact"]["hit"]["1"]) == ("STAIR", "stair-mini-3", 1.0)
    assert set(stair["engine"]) == {"unavailable_reason"}
    assert evaluate_command.read_error(*arguments, "--keep-index").exit_code == 2
    assert "no-such.jsonl" in str(evaluate_command.read_error("retrieval", "no-such.jsonl", "--exact"))
    assert evaluate_command.read_error(*arguments, "--precision", "bf16").code == "onnx-needs-fp32"
    unknown = evaluate_command.read_error(*arguments, "--compare", "nobody")
    assert unknown.exit_code == 2
    assert "nobody" in str(unknown)


def test_a_folder_of_classes(evaluate_command: CommandRunner, tmp_path: Path) -> None:
    create_classes(tmp_path / "pets")
    (tmp_path / "names.txt").write_text("n1 cat, tabby\nn2 dog\nn3 coffee\n")
    (tmp_path / "prompts.txt").write_text("a photo of a {}\n\n{}\n")
    report = evaluate_command.read_json(
        "zero-shot", "pets", "--classes", "names.txt", "--prompts", "prompts.txt", "--out", "report", *TABLE
    )
    assert report["prompts"] == ["a photo of a {}", "{}"]
    [row] = report["rows"]
    assert row == {"vectors": "tokens", "model": "stair-mini-3", "images": 4, "top1": 1.0, "top5": 1.0, "mean_class": 1.0}
    assert report == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert "| stair-mini-3 |" in (tmp_path / "report" / "evaluation.md").read_text()
    [row] = evaluate_command.read_json("words", "pets", "--classes", "names.txt", *TABLE)["rows"]
    assert (row["images"], row["vocabulary"], row["at"]["20"]) == (4, len(artifacts.read_mini_artifacts().vocabulary), 1.0)
    refused = evaluate_command.read_error("words", "pets", "--classes", "names.txt", "--split", "test", *TABLE)
    assert (refused.code, "--classes" in refused.message) == ("option-conflict", True)
    probed = evaluate_command.read_json("probe", "--train", "pets", "--test", create_classes(tmp_path / "again"), *TABLE)
    assert probed["rows"][0]["top1"] == 1.0
    wrong = evaluate_command.read_error("probe", "pets", *TABLE)
    assert (wrong.exit_code, wrong.code, "pets/train" in wrong.message) == (2, "no-such-folder", True)


def test_sparsity_of_captions_and_folders(evaluate_command: CommandRunner, tmp_path: Path) -> None:
    shown = evaluate_command.read_output("sparsity", PHOTOS / "captions.jsonl", "--limit", "5", *TABLE)
    assert "stair-mini-3" in shown
    assert "texts -> images" in shown
    assert evaluate_command.read_json("sparsity", PHOTOS, "--limit", "3")["rows"][0]["items"]["images"]["max"] <= 64
    for name, text in (("red", "a cat"), ("blue", "two dogs")):  # folders like those of classes, with captions in them
        (tmp_path / "both" / name).mkdir(parents=True)
        shutil.copy(PHOTOS / "tabby-cat.jpg", tmp_path / "both" / name / "photo.jpg")
        (tmp_path / "both" / name / "photo.txt").write_text(text)
    assert "captions" in evaluate_command.read_output("words", "both", *TABLE)  # not its classes
    (tmp_path / "both" / "metadata.jsonl").write_text('{"file_name": "gone.jpg", "text": "a cat"}')
    refused = evaluate_command.read_error("sparsity", "both")  # and isn't taken for a folder of images without a word
    assert (refused.code, "gone.jpg" in refused.message) == ("dataset-error", True)
    assert refused.remedy
    assert evaluate_command.read_json("words", PHOTOS / "captions.jsonl", "--limit", "8", *TABLE)["rows"][0]["images"] == 8


def test_accepted_words_of_a_model_and_of_an_index(
    evaluate_command: CommandRunner, client: OpenSearch, node_url: str, index_name: str, tmp_path: Path
) -> None:
    accepted = {"tabby-cat": ["cat", "tabby"], "koala": ["koala", "animal"], "espresso": ["coffee", "cup"], "red-crab": ["crab"]}
    lists = [json.dumps({"image": f"{name}.jpg", "accepted": words}) + "\n" for name, words in accepted.items()]
    (tmp_path / "lists.jsonl").write_text("".join(lists))
    own = evaluate_command.read_json("words", "lists.jsonl", "--images", PHOTOS, *TABLE)
    [row] = own["rows"]
    assert (row["vectors"], row["model"], row["images"], row["without_tokens"]) == ("tokens", "stair-mini-3", 4, 0)
    assert row["accepted"]["1"]["share"] >= 0.5

    labels = {"properties": {"photo": {"type": "text"}, "machine": {"properties": {"labels": {"type": "rank_features"}}}}}
    client.indices.create(index=index_name, body={"mappings": labels, "settings": {"number_of_shards": 2}})
    documents: list[dict[str, object]] = [
        {"photo": "https://shop.example/p/tabby%2Dcat.jpg?w=300", "machine": {"labels": {"Cats": 99.1, "##ing": 80, "Dog": 3}}},
        {"photo": "koala.jpg", "machine": {}},
        {"photo": "elsewhere/espresso.jpg", "machine": {"labels": {"cup": 0.2, "coffee": 0.9}}},
        {"photo": "unlisted.jpg", "machine": {"labels": {"sky": 1}}},
        {"photo": ["two.jpg", "three.jpg"]},
        {"title": "no photo"},
    ]
    client.bulk(
        body="".join(f'{{"index": {{}}}}\n{json.dumps(document)}\n' for document in documents),
        index=index_name,
        params={"refresh": "true"},
    )
    arguments = ("words", "lists.jsonl", "--url", node_url, "--index", index_name)
    fields = ("--tokens-field", "machine.labels", "--image-field", "photo")
    report = evaluate_command.read_json(*arguments, *fields)
    [row] = report["rows"]
    assert (row["vectors"], row["images"], row["without_tokens"], row["not_found"]) == ("index", 4, 2, 1)
    assert [reading["tokens"] for reading in row["readings"]] == [["Cats", "##ing", "Dog"], [], ["coffee", "cup"], []]
    assert [reading["accepted"] for reading in row["readings"]] == [["Cats"], [], ["coffee", "cup"], []]
    shares = {most: share["share"] for most, share in row["accepted"].items()}
    assert shares == pytest.approx({"5": 3 / 20, "1": 2 / 4, "10": 3 / 40})
    assert (row["accepted_of_written"], row["pieces"]) == (pytest.approx(3 / 5), pytest.approx(1 / 20))
    assert len(report["remarks"]) == 1  # about the crab
    assert index_name in evaluate_command.read_output(*arguments, *fields)
    for more, code in (
        ((), "no-images"),
        (("--image-field", "photo"), "no-token-weights"),
        (("--image-field", "photo", "--tokens-field", "photo"), "no-token-weights"),
        (("--compare", "stair-mini"), "option-conflict"),
        (("--index", "gone"), "index-not-found"),
    ):
        assert evaluate_command.read_error(*arguments, *more).code == code
    client.index(index=index_name, body={"photo": "other/koala.jpg"}, params={"refresh": "true"})
    assert evaluate_command.read_error(*arguments, *fields).code == "several-documents"
    assert evaluate_command.read_error("words", "lists.jsonl", "--split", "test").code == "option-conflict"
    assert evaluate_command.read_error("words", "lists.jsonl", *fields).code == "option-conflict"
    (tmp_path / "lists.jsonl").write_text("".join(lists) + lists[0].replace("tabby", "again/tabby"))
    assert evaluate_command.read_error(*arguments, *fields).code == "dataset-error"
