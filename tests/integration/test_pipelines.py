from typing import TYPE_CHECKING

from stair_es import SparseVector, resources, vocab

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def test_top_tokens_pipeline_derives_what_ingest_writes(client: "OpenSearch", index_name: str) -> None:
    words = {f"word{i:02}": 1.0 - i / 100 for i in range(20)} | {".": 0.995, "##ing": 0.985, "100%": 0.975}
    tokens = {vocab.escape(word): weight for word, weight in words.items()}
    client.ingest.put_pipeline(id=index_name, body=resources.load("pipelines", "top-tokens"))
    try:
        client.indices.create(index=index_name, body=resources.load("mappings", "image"))
        client.index(index=index_name, id="1", body={"tokens": tokens}, params={"pipeline": index_name})
        client.index(index=index_name, id="2", body={"tokens": tokens, "top_tokens": ["own"]}, params={"pipeline": index_name})
        client.index(index=index_name, id="3", body={"caption": "no vector"}, params={"pipeline": index_name})
        stored = {id_: client.get(index=index_name, id=id_)["_source"] for id_ in "123"}
    finally:
        client.ingest.delete_pipeline(id=index_name)
    assert stored["1"]["top_tokens"] == list(SparseVector.from_mapping(words).top(16).features)
    assert stored["2"]["top_tokens"] == ["own"]
    assert "top_tokens" not in stored["3"]
