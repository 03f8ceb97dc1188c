"""Search images by text: python search.py INDEX "a cup of coffee". Requires only Python 3.8 or newer.

STAIR_ES_URL is the cluster. The tokens of the text come from the service at STAIR_ES_ENCODER_URL (stair-es encoder; its access
token in STAIR_ES_ENCODER_TOKEN), or from the file STAIR_ES_TABLE (stair-es export --table).
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


def encode(text: str) -> tuple:
    """Return the model id and {token: weight} of a text."""
    if "STAIR_ES_ENCODER_URL" not in os.environ:
        table = Table(os.environ["STAIR_ES_TABLE"])  # read it once per program
        return table.model, table.encode(text)
    token = os.environ.get("STAIR_ES_ENCODER_TOKEN")
    login = {"authorization": f"Bearer {token}"} if token else {}
    answer = request(f"{os.environ['STAIR_ES_ENCODER_URL']}/v1/encode", {"texts": [text]}, **login)
    return answer["model"], answer["texts"][0]["tokens"]


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
    model, tokens = encode(text)
    check_model(index, model)
    for hit in request(f"{os.environ['STAIR_ES_URL']}/{index}/_search", build_body(tokens, size=3))["hits"]["hits"]:
        print(f"{hit['_score']:.4f} {hit['_source']['uri']}")
