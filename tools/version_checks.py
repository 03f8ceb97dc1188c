"""What people do with a cluster, as checks: each runs the installed command, and looks whether it has done it right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args, get_type_hints

from version_commands import Commands, Refused

from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings
from stair_es.errors import StairError
from stair_es.search.shapes import SHAPES

__all__ = ["CHECKS", "Bench", "Wrong"]

_EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
_PHOTOS = ("tabby-cat.jpg", "two-spaniels.jpg", "espresso.jpg", "scarlet-macaw.jpg", "red-panda.jpg", "clownfish.jpg")
_BEST = _PHOTOS[0]
_QUESTION = "a cat"
VECTORS: tuple[str, ...] = get_args(get_type_hints(DocumentSettings)["vector"])
"""What `ingest --vector` takes."""
_MUTED = "lynx"
_NEAR = 0.005
"""Scores are up to 0.39 % below the exact product."""
_NEAR_APPROXIMATE = 0.05
"""SEISMIC keeps a weight in a byte."""


class Wrong(Exception):
    """The command succeeded, and what it printed isn't right."""


class Bench:
    """What the checks of one node share: the commands, the photos, and which index can be asked."""

    def __init__(self, commands: Commands, prefix: str = "") -> None:
        """Lay out the photos with their captions.

        Args:
            commands: For the node.
            prefix: What the names of indices begin with.
        """
        self.commands = commands
        self.prefix = prefix
        self.photos = commands.folder / "photos"
        self.photos.mkdir()
        lines = (_EXAMPLES / "captions.jsonl").read_text(encoding="utf-8").splitlines()
        (self.photos / "captions.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["file"] in _PHOTOS))
        for name in _PHOTOS:
            shutil.copyfile(_EXAMPLES / name, self.photos / name)
        self.policy = commands.folder / "policy.json"
        self.policy.write_text(json.dumps({"stair_es_policy": 1, "mute": [_MUTED]}))
        self.indices: set[str] = set()

    @property
    def main(self) -> str:
        """The index that most checks use, called as its field type: the default one, where the node has it.

        Raises:
            Wrong: There is none.
        """
        found = next((name for name in ("rank_features", "sparse_vector") if name in self.indices), None)
        if found is None:
            raise Wrong("no ingest succeeded")
        return found

    @property
    def best(self) -> str:
        """URI of the photo that the question means."""
        return (self.photos / _BEST).as_uri()

    def alias(self, index: str) -> str:
        """Return the name that commands are given for an index."""
        return self.prefix + index

    def ingest(self, index: str, *options: str) -> Mapping[str, object]:
        """Take the photos in."""
        report: Mapping[str, object] = self.commands.run(
            "ingest", self.photos / "captions.jsonl", "--image-column", "file", "--index", self.alias(index), *options
        )
        _expect(report, seen=len(_PHOTOS), dead=0)
        self.indices.add(index)
        return report

    def words(self) -> list[str]:
        """Return the words that the best photo has in the index, without the muted ones."""
        shown = self.commands.run("inspect", self.best, "--index", self.alias(self.main))
        return [entry["word"] for entry in shown["words"]]


def _expect(found: Mapping[str, object], **wanted: object) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise Wrong(f"{name} is {found.get(name)!r}, not {value!r}")


def _expect_best(bench: Bench, hits: list[Mapping[str, object]]) -> None:
    first = hits[0]["uri"] if hits else "nothing"
    if first != bench.best:
        raise Wrong(f"{_QUESTION!r} finds {str(first).rpartition('/')[2]} first, not {_BEST}")


def ingest_into(index: str, *options: str) -> Callable[[Bench], None]:
    """Return the check that takes the photos in."""

    def check(bench: Bench) -> None:
        _expect(bench.ingest(index, *options), written=len(_PHOTOS))

    return check


def repeat_ingest(bench: Bench) -> None:
    """Take the same photos in again: nothing is written."""
    options = ("--vector", bench.main)
    _expect(bench.ingest(bench.main, *options), written=0, unchanged=len(_PHOTOS))


def swap_model(bench: Bench) -> None:
    """Build an index with another model behind the same alias; searches see it at once."""
    options = ("--vector", bench.main)
    before = bench.ingest("swapped", *options)["index"]
    report = bench.ingest("swapped", *options, "--model", "colours")
    _expect(report, swapped=True, written=len(_PHOTOS))
    hits = bench.commands.run("search", "red", "--index", bench.alias("swapped"))["hits"]
    if not hits or hits[0]["index"] != report["index"] or report["index"] == before:
        raise Wrong("a search doesn't ask the new index")


def keep_words_index(bench: Bench) -> None:
    """Keep an index of the words beside the images."""
    options = ("--vector", bench.main)
    report = bench.ingest(bench.main, *options, "--words-index")
    if not report["words_index"]:
        raise Wrong("there is no words index")


def list_words(bench: Bench) -> None:
    """Read the vocabulary of the index."""
    found = {entry["word"]: entry["images"] for entry in bench.commands.run("words", "--index", bench.alias(bench.main))["words"]}
    _expect(found, cat=1)


def search_by(shape: str) -> Callable[[Bench], None]:
    """Return the check that asks by a shape of query."""
    preferred = {"weighted_tokens": "sparse_vector", "neural_sparse": "rank_features"}
    near = _NEAR_APPROXIMATE if shape == "seismic" else _NEAR

    def check(bench: Bench) -> None:
        wanted = preferred.get(shape, shape)
        index = wanted if wanted in bench.indices else bench.main
        answer = bench.commands.run("search", _QUESTION, "--shape", shape, "--index", bench.alias(index))
        _expect(answer, shape=shape)
        _expect_best(bench, answer["hits"])
        for hit in answer["hits"]:
            exact = sum(reason["contribution"] for reason in hit["why"])
            if abs(hit["score"] - exact) > near * exact + 0.001:
                raise Wrong(f"the score is {hit['score']}, the exact product {exact}")

    return check


def search_hybrid(form: str) -> Callable[[Bench], None]:
    """Return the check that asks words and captions together."""

    def check(bench: Bench) -> None:
        answer = bench.commands.run(
            "search", _QUESTION, "--caption", "tabby", "--hybrid", form, "--index", bench.alias(bench.main)
        )
        _expect_best(bench, answer["hits"])

    return check


def plan_policy(bench: Bench) -> None:
    """See what a policy would change."""
    _expect(bench.commands.run("policy", "plan", bench.policy, "--index", bench.alias(bench.main)), changed=1)


def apply_policy(bench: Bench) -> None:
    """Give the index the policy: the muted word is gone."""
    _expect(bench.commands.run("policy", "apply", bench.policy, "--index", bench.alias(bench.main))[0], changed=1, failed=[])
    if _MUTED in bench.words():
        raise Wrong(f"{_MUTED} isn't muted")


def roll_policy_back(bench: Bench) -> None:
    """Take the policy away: the word is there again."""
    bench.commands.run("policy", "rollback", "--index", bench.alias(bench.main))
    if _MUTED not in bench.words():
        raise Wrong(f"{_MUTED} isn't back")


def publish_templates(bench: Bench) -> None:
    """Put the search templates into the cluster."""
    _expect(bench.commands.run("template", "publish", "--index", bench.alias(bench.main)), **{"stair-es-words": "created"})


def search_template(bench: Bench) -> None:
    """Use a template as another language would: by a plain request."""
    body = {"id": "stair-es-words", "params": {"size": 1, "tokens": [{"word": "cat", "weight": 1}]}}
    try:
        client = Connection.from_env(environ=bench.commands.environ).client()
        hits = client.search_template(index=bench.alias(bench.main), body=body)["hits"]["hits"]
    except StairError as error:
        raise Refused(bench.commands.tell(f"{error.message}\n{error.remedy}")) from None
    _expect_best(bench, [hit["_source"] for hit in hits])


def delete_templates(bench: Bench) -> None:
    """Take the templates out again."""
    _expect(bench.commands.run("template", "delete"), **{"stair-es-words": "deleted"})


def use_page(bench: Bench) -> None:
    """Load the page, search by words and by a picture, look at an image and its thumbnail."""
    with bench.commands.serve("--index", bench.alias(bench.main), "--images", bench.photos) as page:
        if b"<html" not in page.ask("/"):
            raise Wrong("the start page isn't one")
        seen = json.loads(page.ask("/api/image", (bench.photos / _BEST).read_bytes(), "image/jpeg"))
        for question in ({"text": _QUESTION}, {"vector": dict(seen["words"])}):
            hits = json.loads(page.ask("/api/search", json.dumps(question).encode()))["hits"]
            _expect_best(bench, hits)
        page.ask(f"/api/image/{hits[0]['id']}")
        if not page.ask(hits[0]["thumbnail"]):
            raise Wrong("the thumbnail is empty")


def ask_doctor(bench: Bench) -> None:
    """Look at cluster and index: nothing is wrong."""
    _expect(bench.commands.run("doctor", "--index", bench.alias(bench.main)), ok=True)


CHECKS: Mapping[str, Callable[[Bench], None]] = {
    **{f"ingest --vector {vector}": ingest_into(vector, "--vector", vector) for vector in VECTORS},
    "ingest --impacts": ingest_into("impacts", "--impacts"),
    "ingest the same again": repeat_ingest,
    "ingest --words-index": keep_words_index,
    "swap to another model": swap_model,
    "words": list_words,
    **{f"search --shape {shape}": search_by(shape) for shape in SHAPES},
    "search --hybrid sum": search_hybrid("sum"),
    "search --hybrid rrf": search_hybrid("rrf"),
    "policy plan": plan_policy,
    "policy apply": apply_policy,
    "policy rollback": roll_policy_back,
    "template publish": publish_templates,
    "template search": search_template,
    "template delete": delete_templates,
    "serve": use_page,
    "doctor": ask_doctor,
}
"""Name, as on the page -> the check. In this order: later ones need what earlier ones have made."""

NEEDS: Mapping[str, str] = {"template search": "template publish", "template delete": "template publish"}
"""Check -> the one without which it isn't tried."""
