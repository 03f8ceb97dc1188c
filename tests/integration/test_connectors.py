"""`examples/connectors`: search engines that have the encoder encode the text of a query find what `stair-es search` finds.

ml-commons isn't served as a package, so OpenSearch's part runs in the classes that neural-search brings (`RunConnector.java`);
of Elasticsearch's inference service nothing is, so `extract_values` reads the paths of the endpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from opensearchpy import RequestError
from support.commands import CommandRunner
from support.nodes.connectors import run_connector
from support.servers.encoder_command import run_encoder

from stair_es.cluster.client.connection import Connection
from stair_es.feature_names import escape_feature

ROOT = Path(__file__).parents[2]
CONNECTORS = ROOT / "examples" / "connectors"
ENCODER_URL = "https://encoder.example.org"
TOKEN = "the token of the encoder"
POLICY = {"stair_es_policy": 1, "rename": {"cat": "dom. cat", "red": "100%"}}
"""Tokens whose names an index escapes."""
TEXTS = ("a red panda", "the face of a tabby cat", "a cup of coffee")
STRANGE_TEXTS = ('a "red" cat\\', "two\nlines\t{}[]", "$1 ${a} $.texts[*]", "überraschte Katze 猫", "🐈")
PHOTOS = ("red-panda", "giant-panda", "tabby-cat", "kitten-with-yarn", "espresso", "red-crab")
HITS = 10


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("policy") / "policy.json"
    file.write_text(json.dumps(POLICY), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def encoder_url(plugin_url: str, photo_index: str) -> Iterator[str]:
    """The command, for the index on the plugin node."""
    with run_encoder("--index", photo_index, "--url", plugin_url, STAIR_ES_ENCODER_TOKEN=TOKEN) as (_, url):
        yield url


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        shutil.copy(ROOT / "examples" / "photos" / f"{name}.jpg", folder)
    return folder


@pytest.fixture(scope="module")
def photo_index(photo_folder: Path, policy_file: Path, plugin_url: str) -> Iterator[str]:
    alias = "test-connectors"
    ingest_photos(plugin_url, alias, photo_folder, policy_file)
    yield alias
    with Connection(url=plugin_url).client() as client:
        client.indices.delete(index=f"{alias}-*")


def ingest_photos(url: str, alias: str, folder: Path, policy_file: Path, *more: str) -> None:
    result = CommandRunner({"STAIR_ES_URL": url}).read_json(
        "ingest", folder, "--index", alias, "--policy", policy_file, "--no-token-index", *more
    )
    assert result["written"] == len(PHOTOS)


def fill_placeholders(file: str, encoder_url: str, token: str = TOKEN) -> str:
    text = (CONNECTORS / file).read_text(encoding="utf-8")
    pattern = json.dumps(ENCODER_URL.replace(".", "\\.")).strip('"')
    text = text.replace(pattern, encoder_url.replace(".", "\\\\.")).replace(ENCODER_URL, encoder_url)
    return text.replace("ENCODER_TOKEN", token).replace("MODEL_ID", "the-model")


def post_encode(encoder_url: str, body: Mapping[str, Any] | str) -> Any:  # noqa: ANN401  JSON
    data = body if isinstance(body, str) else json.dumps(body)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with urlopen(Request(f"{encoder_url}/v1/encode", data.encode(), headers), timeout=60) as response:
        return json.load(response)


def list_features(encoder_url: str, texts: tuple[str, ...]) -> list[dict[str, float]]:
    return [
        {escape_feature(token): weight for token, weight in each["tokens"].items()}
        for each in post_encode(encoder_url, {"texts": texts})["texts"]
    ]


def search_index(url: str, index: str, query: Mapping[str, Any]) -> list[tuple[str, float]]:
    with Connection(url=url).client() as client:
        hits = client.search(index=index, body={"query": query, "size": HITS})["hits"]["hits"]
    return [(hit["_id"], hit["_score"]) for hit in hits]


def search_by_command(url: str, index: str, text: str) -> list[tuple[str, float]]:
    result = CommandRunner({"STAIR_ES_URL": url}).read_json("search", text, "--index", index, "-k", str(HITS))
    return [(hit["id"], hit["score"]) for hit in result["hits"]]


@pytest.fixture(scope="module")
def connector_file(encoder_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("connector") / "connector.json"
    file.write_text(fill_placeholders("opensearch/connector.json", encoder_url), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trusted_patterns(encoder_url: str) -> list[str]:
    settings = json.loads(fill_placeholders("opensearch/cluster-settings.json", encoder_url))
    patterns: list[str] = settings["persistent"]["plugins.ml_commons.trusted_connector_endpoints_regex"]
    return patterns


def test_opensearch_finds_the_same_by_text(
    plugin_url: str, photo_index: str, encoder_url: str, connector_file: Path, trusted_patterns: list[str]
) -> None:
    texts = (*TEXTS, *STRANGE_TEXTS)
    vectors = run_connector(connector_file, trusted_patterns, texts)
    expected = list_features(encoder_url, texts)
    assert {"dom%2E cat", "100%25"} <= {name for vector in expected for name in vector}
    assert [pytest.approx(vector, rel=1e-6) for vector in vectors] == expected
    for text, vector in zip(TEXTS, vectors, strict=False):
        hits = search_index(plugin_url, photo_index, {"neural_sparse": {"tokens": {"query_tokens": vector}}})
        assert hits == search_by_command(plugin_url, photo_index, text)
        assert hits


def test_opensearch_reports_a_wrong_token(encoder_url: str, trusted_patterns: list[str], tmp_path: Path) -> None:
    file = tmp_path / "connector.json"
    file.write_text(fill_placeholders("opensearch/connector.json", encoder_url, "another token"), encoding="utf-8")
    with pytest.raises(RuntimeError, match="401"):
        run_connector(file, trusted_patterns, TEXTS)


@pytest.mark.parametrize("pattern", ["^https://encoder\\.example\\.org/v1/encode$", "^http://127\\.0\\.0\\.1:\\d+/embed$"])
def test_opensearch_refuses_an_encoder_that_is_not_trusted(connector_file: Path, pattern: str) -> None:
    with pytest.raises(RuntimeError, match="endpoint regex"):
        run_connector(connector_file, [pattern], TEXTS)


@pytest.mark.parametrize(
    ("path", "file", "processor"),
    [
        ("/_ingest/pipeline/test-connectors", "opensearch/ingest-pipeline.json", "sparse_encoding"),
        ("/_search/pipeline/test-connectors", "opensearch/search-pipeline.json", "neural_query_enricher"),
    ],
)
def test_neural_search_accepts_the_pipelines(plugin_url: str, path: str, file: str, processor: str) -> None:
    pipeline = json.loads(fill_placeholders(file, ""))
    with Connection(url=plugin_url).client() as client:
        assert client.transport.perform_request("PUT", path, body=pipeline) == {"acknowledged": True}
        client.transport.perform_request("DELETE", path)
        for processors in (each for each in pipeline.values() if isinstance(each, list)):
            processors[0][processor]["model"] = "another"
        with pytest.raises(RequestError, match="model"):
            client.transport.perform_request("PUT", path, body=pipeline)


def extract_values(value: Any, path: str) -> Any:  # noqa: ANN401  JSON
    """Read a path such as `$.a[*].b` as Elasticsearch's custom service does: each `[*]` gives a list, and lists stay nested."""
    head, _, rest = path.partition("[*]")
    for name in head.removeprefix("$").split("."):
        value = value[name] if name else value
    if not rest and not path.endswith("[*]"):
        return value
    assert isinstance(value, list)
    return [extract_values(item, rest) for item in value]


def test_elasticsearch_finds_the_same_by_text(
    elasticsearch9_url: str,
    encoder_url: str,
    photo_folder: Path,
    policy_file: Path,
    make_index_name: Callable[[str], str],
) -> None:
    index = make_index_name(elasticsearch9_url)
    ingest_photos(elasticsearch9_url, index, photo_folder, policy_file, "--vector", "sparse_vector")
    settings = json.loads(fill_placeholders("elasticsearch/endpoint.json", encoder_url))["service_settings"]
    request = settings["request"].replace("${input}", json.dumps([*TEXTS, *STRANGE_TEXTS]))
    answer, paths = post_encode(encoder_url, request), settings["response"]["json_parser"]
    tokens, weights = (extract_values(answer, paths[name]) for name in ("token_path", "weight_path"))
    vectors = [dict(zip(*each, strict=True)) for each in zip(tokens, weights, strict=True)]
    assert vectors == list_features(encoder_url, (*TEXTS, *STRANGE_TEXTS))
    query = json.loads(fill_placeholders("elasticsearch/query.json", encoder_url))["query"]["sparse_vector"]
    options = {name: value for name, value in query.items() if name not in ("inference_id", "query")}
    for text, vector in zip(TEXTS, vectors, strict=False):
        hits = search_index(elasticsearch9_url, index, {"sparse_vector": {**options, "query_vector": vector}})
        assert hits == search_by_command(elasticsearch9_url, index, text)
        assert hits
