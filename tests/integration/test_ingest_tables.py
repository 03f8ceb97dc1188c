"""Tables and tars, from the file to the answer."""

from __future__ import annotations

import tarfile
from pathlib import Path

from opensearchpy import OpenSearch
from support.corpora.hostile_files import build_deep_object, build_tar_member

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.index_info import fetch_index_info
from stair_es.search.query import SearchQuery
from stair_es.sources.base import SourceOptions
from stair_es.sources.registry import open_source
from stair_es.types import SparseVector

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:3]


def test_runs_continue_after_deeply_nested_members(node_url: str, index_name: str, client: OpenSearch, tmp_path: Path) -> None:
    first, second, third = (photo.read_bytes() for photo in PHOTOS)
    deep = build_tar_member("b.json", b'{"code": ' + build_deep_object() + b"}")
    parts = [
        build_tar_member("a.jpg", first),
        build_tar_member("a.json", b'{"code": "A"}'),
        build_tar_member("b.jpg", second),
        deep,
        build_tar_member("c.jpg", third),
    ]
    (tmp_path / "x.tar").write_bytes(b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE))
    rows = [f"{photo},{price},0{price}" for photo, price in zip(PHOTOS, ("3", "20.5", "100"), strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(["path,cost,code", *rows]))
    of_tar = SourceOptions(columns={"code": "code"})
    of_csv = SourceOptions(columns={"price:float": "cost", "code": "code"})
    sources = [open_source(str(tmp_path / "x.tar"), of_tar), open_source(str(tmp_path / "x.csv"), of_csv)]
    options = IngestOptions(alias=index_name, model=ModelSpec(name="stair-mini"), dead_letters=tmp_path / "failed.jsonl")
    report = run_ingest(sources, Connection(url=node_url), options, progress=lambda _: None)
    assert (report.seen, report.written, report.failed) == (6, 5, 1)
    assert '"list"' in (tmp_path / "failed.jsonl").read_text()

    def asked(text: str) -> SearchQuery:
        return SearchQuery(vector=SparseVector.from_pairs([("dog", 1.0)]), filters=[parse_filter(text)])

    known = fetch_index_info(Cluster(Connection(url=node_url), client), index_name)
    assert known.list_remarks(asked("price:>20")) == []
    found = client.search(index=index_name, body={"query": parse_filter("price:>20"), "sort": ["price"]})["hits"]["hits"]
    assert [hit["_source"]["price"] for hit in found] == [20.5, 100.0]
    [remark] = known.list_remarks(asked("code:>20"))
    assert "'code' as text" in remark
