"""The checks of a version: each runs an installed command and verifies its output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import get_args, get_type_hints

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import StairError
from stair_es.search.dsl.select import QUERY_TYPES
from support.versions.bench import BEST, MUTED, PHOTOS, QUESTION, Bench, WrongOutput, check_best_hit, check_output
from support.versions.commands import CommandError

__all__ = ["CHECKS", "NEEDS"]

VECTORS: tuple[str, ...] = get_args(get_type_hints(DocumentSettings)["vector"])
"""Values of `ingest --vector`."""
_NEAR = 0.005
"""Tolerance of scores, which are up to 0.39 % below the exact product."""


def ingest_into(index: str, *options: str) -> Callable[[Bench], None]:
    """Return the check that ingests the photos."""

    def run_check(bench: Bench) -> None:
        check_output(bench.ingest(index, *options), written=len(PHOTOS))

    return run_check


def repeat_ingest(bench: Bench) -> None:
    """Ingest the same photos again, and expect that nothing is written."""
    options = ("--vector", bench.main)
    check_output(bench.ingest(bench.main, *options), written=0, unchanged=len(PHOTOS))


def swap_model(bench: Bench) -> None:
    """Build an index with another model under the same alias, and expect that searches use it at once."""
    options = ("--vector", bench.main)
    before = bench.ingest("swapped", *options)["index"]
    report = bench.ingest("swapped", *options, "--model", "colors")
    check_output(report, swapped=True, written=len(PHOTOS))
    hits = bench.commands.run("search", "red", "--index", bench.alias("swapped"))["hits"]
    if not hits or hits[0]["index"] != report["index"] or report["index"] == before:
        raise WrongOutput("a search doesn't ask the new index")


def keep_token_index(bench: Bench) -> None:
    """Maintain a token index for the image index."""
    options = ("--vector", bench.main)
    report = bench.ingest(bench.main, *options, "--token-index")
    if not report["token_index"]:
        raise WrongOutput("there is no token index")


def list_words(bench: Bench) -> None:
    """Read the vocabulary of the index."""
    images_of_token = {
        entry["token"]: entry["images"] for entry in bench.commands.run("words", "--index", bench.alias(bench.main))["tokens"]
    }
    check_output(images_of_token, cat=1)


def search_default(bench: Bench) -> None:
    """Search without a query type: the command selects the one that fits the index."""
    check_best_hit(bench, bench.commands.run("search", QUESTION, "--index", bench.alias(bench.main))["hits"])


def search_by(query_type: str) -> Callable[[Bench], None]:
    """Return the check that searches with a query type."""
    preferred = {"neural_sparse": "rank_features"}

    def run_check(bench: Bench) -> None:
        wanted = preferred.get(query_type, query_type)
        index = wanted if wanted in bench.indices else bench.main
        options = ("--query-type", query_type, "--hybrid", "none")  # scores are dot products
        response = bench.commands.run("search", QUESTION, *options, "--index", bench.alias(index))
        check_output(response, query_type=query_type)
        check_best_hit(bench, response["hits"])
        for hit in response["hits"]:
            exact = sum(reason["contribution"] for reason in hit["contributions"])
            if abs(hit["score"] - exact) > _NEAR * exact + 0.001:
                raise WrongOutput(f"the score is {hit['score']}, the exact product {exact}")

    return run_check


def search_hybrid(form: str) -> Callable[[Bench], None]:
    """Return the check that searches by tokens and captions together."""

    def run_check(bench: Bench) -> None:
        response = bench.commands.run(
            "search", QUESTION, "--caption", "tabby", "--hybrid", form, "--index", bench.alias(bench.main)
        )
        check_best_hit(bench, response["hits"])

    return run_check


def plan_policy(bench: Bench) -> None:
    """Plan a token policy."""
    check_output(bench.commands.run("policy", "plan", bench.policy, "--index", bench.alias(bench.main)), changed=1)


def apply_policy(bench: Bench) -> None:
    """Apply the policy, and expect that the muted token is gone."""
    check_output(bench.commands.run("policy", "apply", bench.policy, "--index", bench.alias(bench.main))[0], changed=1, failed=[])
    if MUTED in bench.words():
        raise WrongOutput(f"{MUTED} isn't muted")


def roll_policy_back(bench: Bench) -> None:
    """Roll the policy back, and expect that the muted token is back."""
    bench.commands.run("policy", "rollback", "--index", bench.alias(bench.main))
    if MUTED not in bench.words():
        raise WrongOutput(f"{MUTED} isn't back")


def publish_templates(bench: Bench) -> None:
    """Publish the search templates in the cluster."""
    check_output(bench.commands.run("template", "publish", "--index", bench.alias(bench.main)), **{"stair-es-tokens": "created"})


def search_template(bench: Bench) -> None:
    """Search with a template by a plain request, as a client in another language would."""
    body = {"id": "stair-es-tokens", "params": {"size": 1, "tokens": [{"token": "cat", "weight": 1}]}}
    try:
        with Cluster(Connection.from_env(environ=bench.commands.environ)) as cluster:
            answer = cluster.call(cluster.client.search_template, index=bench.alias(bench.main), body=body)
    except StairError as error:
        raise CommandError(bench.commands.format_error(f"{error.message}\n{error.remedy}")) from None
    check_best_hit(bench, [hit["_source"] for hit in answer["hits"]["hits"]])


def delete_templates(bench: Bench) -> None:
    """Delete the templates."""
    check_output(bench.commands.run("template", "delete"), **{"stair-es-tokens": "deleted"})


def ingest_texts(bench: Bench) -> None:
    """Index two texts in an index of their own, and find one by an image."""
    texts = bench.commands.folder / "texts.txt"
    texts.write_text("a cat\na cup of coffee\n", encoding="utf-8")
    index = ("--index", bench.alias("texts"))
    check_output(bench.commands.run("ingest-texts", texts, *index, "--vector", bench.main), written=2, failed=0)
    [hit] = bench.commands.run("search", "--image", bench.photos / BEST, "-k", "1", *index)["hits"]
    check_output(hit, caption="a cat")


def import_labels(bench: Bench) -> None:
    """Import a label for a photo, and find the photo by it alone."""
    rows = bench.commands.folder / "labels.jsonl"
    rows.write_text(json.dumps({"file": "espresso.jpg", "labels": {"flimflam": 0.9}}), encoding="utf-8")
    index = ("--index", bench.alias(bench.main))
    check_output(bench.commands.run("ingest-labels", rows, *index), written=1, failed=0)
    [hit] = bench.commands.run("search", "flimflam", *index)["hits"]
    if not str(hit["uri"]).endswith("espresso.jpg"):
        raise WrongOutput("the label finds another photo")


def annotate_documents(bench: Bench) -> None:
    """Add token weights to a document of another program, and read them from it."""
    index = bench.alias("catalog")
    with Cluster(Connection.from_env(environ=bench.commands.environ)) as cluster:
        cluster.client.index(index=index, id="1", body={"picture": BEST}, params={"refresh": "true"})
        options = ("--image-field", "picture", "--image-base", bench.photos)
        check_output(bench.commands.run("annotate", "--index", index, *options), written=1, failed=0)
        document = cluster.client.get(index=index, id="1")["_source"]
    check_output(document, picture=BEST)
    if "cat" not in document["tokens"]:
        raise WrongOutput("the document has no token weights of its photo")


def forget_image(bench: Bench) -> None:
    """Erase an image, and expect that the next ingest leaves it out."""
    index = ("--index", bench.alias(bench.main))
    [image] = bench.commands.run("forget", bench.photos / "clownfish.jpg", *index)["images"]
    if not image["documents"]:
        raise WrongOutput("no document is erased")
    report = bench.commands.run("ingest", bench.photos, "--vector", bench.main, *index)
    check_output(report, forgotten=1, failed=0)


def use_encoder(bench: Bench) -> None:
    """Let the encoder of the index build a query, and send that as an application would."""
    index = bench.alias(bench.main)
    with bench.commands.serve("encoder", "--index", index) as encoder:
        body = json.loads(encoder.request("/v1/query", json.dumps({"text": QUESTION}).encode()))
    with Cluster(Connection.from_env(environ=bench.commands.environ)) as cluster:
        answer = cluster.call(cluster.client.search, index=index, body=body)
    check_best_hit(bench, [hit["_source"] for hit in answer["hits"]["hits"]])


def use_page(bench: Bench) -> None:
    """Load the page, search by words and by an image, and load an image and its thumbnail."""
    with bench.commands.serve("serve", "--index", bench.alias(bench.main), "--images", bench.photos) as page:
        if b"<html" not in page.request("/"):
            raise WrongOutput("the start page isn't one")
        encoded = json.loads(page.request("/api/image", (bench.photos / BEST).read_bytes(), "image/jpeg"))
        for query in ({"text": QUESTION}, {"vector": dict(encoded["tokens"])}):
            hits = json.loads(page.request("/api/search", json.dumps(query).encode()))["hits"]
            check_best_hit(bench, hits)
        page.request(f"/api/image/{hits[0]['id']}")
        if not page.request("/" + hits[0]["thumbnail"]):
            raise WrongOutput("the thumbnail is empty")


def run_doctor(bench: Bench) -> None:
    """Run the doctor on cluster and index, and expect no problem."""
    check_output(bench.commands.run("doctor", "--index", bench.alias(bench.main)), ok=True)


CHECKS: Mapping[str, Callable[[Bench], None]] = {
    **{f"ingest --vector {vector}": ingest_into(vector, "--vector", vector) for vector in VECTORS},
    "ingest --impact-field": ingest_into("impacts", "--impact-field"),
    "ingest the same again": repeat_ingest,
    "ingest --token-index": keep_token_index,
    "swap to another model": swap_model,
    "words": list_words,
    "search": search_default,
    **{f"search --query-type {name}": search_by(name) for name in QUERY_TYPES},
    "search --hybrid sum": search_hybrid("sum"),
    "search --hybrid rrf": search_hybrid("rrf"),
    "policy plan": plan_policy,
    "policy apply": apply_policy,
    "policy rollback": roll_policy_back,
    "template publish": publish_templates,
    "template search": search_template,
    "template delete": delete_templates,
    "serve": use_page,
    "encoder --index": use_encoder,
    "ingest-texts": ingest_texts,
    "ingest-labels": import_labels,
    "annotate": annotate_documents,
    "doctor": run_doctor,
    "forget": forget_image,
}
"""Name on the page -> check, in the order of execution: later checks depend on earlier ones."""

NEEDS: Mapping[str, str] = {"template search": "template publish", "template delete": "template publish"}
"""Check -> the check that it depends on."""
