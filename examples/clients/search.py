"""Search images by text: python search.py INDEX "a cup of coffee". Requires only Python 3.8 or newer.

STAIR_ES_URL is the cluster. The query comes from the service at STAIR_ES_ENCODER_URL (stair-es encoder --index INDEX; its access
token in STAIR_ES_ENCODER_TOKEN), or is built of the tokens in the file STAIR_ES_TABLE (stair-es export --table).
"""

import json
import os
import sys
from urllib.request import Request, urlopen

from lookup import Table


def request(url: str, body: object = None, **headers: str) -> dict:
    """Return the JSON response to a GET, or to a POST of a body."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"content-type": "application/json", **headers}), timeout=10) as response:
        return json.load(response)


def build_query(text: str) -> dict:
    """Return the search without weak matches (`body`), and what to tell the user."""
    token = os.environ.get("STAIR_ES_ENCODER_TOKEN")
    login = {"authorization": f"Bearer {token}"} if token else {}
    return request(
        f"{os.environ['STAIR_ES_ENCODER_URL']}/v1/query", {"text": text, "k": 3, "cut": True, "describe": True}, **login
    )


def look_up(index: str, text: str) -> dict:
    """Return the search by the table of tokens."""
    table = Table(os.environ["STAIR_ES_TABLE"])  # read it once per program
    check_model(index, table.model)
    return {"body": build_body(table.encode(text), size=3), "unknown_words": [], "remarks": []}


def check_model(index: str, model: str) -> None:
    """Exit if another model wrote the images of the index. Check this once, when the program starts."""
    found = request(f"{os.environ['STAIR_ES_URL']}/{index}/_mapping?filter_path=*.mappings._meta.stair_es.model")
    others = {each["mappings"]["_meta"]["stair_es"]["model"] for each in found.values()} - {model}
    if others:
        sys.exit(f"{index} was written by {', '.join(others)}, and these tokens are of {model}")


def build_body(tokens: dict, size: int) -> dict:
    """Return the body of the search: its score is the sum of the products of weights."""
    names = {token: token.replace("%", "%25").replace(".", "%2E") or "%" for token in tokens}  # as in the index
    clauses = [{"rank_feature": {"field": f"tokens.{names[token]}", "boost": tokens[token], "linear": {}}} for token in tokens]
    return {"size": size, "_source": ["uri"], "query": {"bool": {"should": clauses}} if clauses else {"match_none": {}}}


if __name__ == "__main__":
    index, text = sys.argv[1:]
    query = build_query(text) if "STAIR_ES_ENCODER_URL" in os.environ else look_up(index, text)
    for note in (*(f"unknown word: {each['word']}" for each in query["unknown_words"]), *query["remarks"]):
        print(note, file=sys.stderr)
    hits = request(f"{os.environ['STAIR_ES_URL']}/{index}/_search", query["body"])["hits"]["hits"]
    for hit in hits:
        print(f"{hit['_score']:.4f} {hit['_source']['uri']}")
    if not hits:
        print("no good match")
