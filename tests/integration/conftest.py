"""Photos on the embedded node and the page that shows them, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.corpora.web_corpus import Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection


@pytest.fixture(scope="module")
def corpus(request: pytest.FixtureRequest, node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Photos with captions, in an index that is named after the file of the tests."""
    alias = request.path.stem.replace("_", "-")
    with ingest_corpus(node_url, alias, tmp_path_factory.mktemp("photos")) as photos:
        yield photos


@pytest.fixture(scope="module")
def page(corpus: Corpus) -> Iterator[PageClient]:
    """The page over these photos, with originals."""
    with serve_page(Connection(url=corpus.url), corpus.alias, roots=(corpus.folder,)) as client:
        yield client
