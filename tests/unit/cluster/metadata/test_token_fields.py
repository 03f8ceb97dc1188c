"""Token ids: the table of an index, policies, and documents with both."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from stair_es.cluster.documents.document import DocumentSettings, add_token_ids
from stair_es.cluster.metadata.index_metadata import IndexSpec, add_index_meta, build_index_meta
from stair_es.cluster.metadata.token_fields import MAX_IDS, TokenIds, parse_token_table
from stair_es.errors import ModelError, UsageError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.plan import ModelTokens, build_sink_plan, find_model_tokens
from stair_es.ingest.stages import EMPTIED_BY_POLICY, NO_TOKEN_ID, describe_loss, describe_losses
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

IDS = TokenIds.from_tokens(("cat", "kitten", "a.b", "dog"))
SEISMIC = DocumentSettings(vector="seismic")
MINI = ModelSpec(name="stair-mini")


def described(tokens: object) -> dict[str, Any]:
    """An index as the cluster describes it."""
    return {"mappings": {"_meta": {"stair_es": {"model": "m", "token_ids": tokens}}}}


def test_token_table_is_parsed() -> None:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={}, tokens=("cat", "", "犬", "a.b"))
    made = json.loads(json.dumps(add_index_meta({"mappings": {}}, build_index_meta(index_spec, "photos"))))
    assert parse_token_table(made) == index_spec.tokens
    assert index_spec.digest == replace(index_spec, tokens=()).digest  # the model's id says it already
    assert "token_ids" not in build_index_meta(replace(index_spec, tokens=()), "photos")


@pytest.mark.parametrize("tokens", [None, "cat", {"cat": 0}, ["cat", 1], ["cat", "cat"], [str(i) for i in range(MAX_IDS + 1)]])
def test_invalid_tables_are_none(tokens: object) -> None:
    assert parse_token_table(described(tokens)) is None
    assert parse_token_table({}) is None


def test_the_largest_table_has_ids_below_the_limit_of_the_plugin() -> None:
    tokens = parse_token_table(described([str(i) for i in range(MAX_IDS)]))
    assert tokens is not None
    assert max(TokenIds.from_tokens(tokens).ids.values()) == 2**15 - 1


def test_merged_tokens_use_the_lowest_id() -> None:
    policy = TokenPolicy(rename={"dog": "cat"}, merge={"pet": ("kitten", "a.b"), "ghost": ("unknown",)}, mute=("fish",))
    assert IDS.extend_for_policy(policy).ids == {**IDS.ids, "pet": 1}
    assert IDS.extend_for_policy(None) is IDS
    assert IDS.extend_for_policy(TokenPolicy(rename={"dog": "cat"})) is IDS


def test_two_new_names_never_share_an_id() -> None:
    policy = TokenPolicy(merge={"x": ("cat", "dog"), "y": ("kitten",), "z": ("a.b",)})
    ids = IDS.extend_for_policy(policy).ids
    assert (ids["x"], ids["y"], ids["z"]) == (0, 1, 2)


def test_document_weights_by_token_id() -> None:
    document = {"tokens": {"dog": 0.5, "a%2Eb": 0.25, "strange": 0.1}, "uri": "u"}
    assert add_token_ids(document, IDS) == {**document, "token_ids": {"3": 0.5, "2": 0.25}}
    assert add_token_ids(document, None) == document
    for empty in ({}, {"strange": 0.1}):  # `{}` in one document makes the plugin refuse all others
        assert "token_ids" not in add_token_ids({"tokens": empty}, IDS)


def test_documents_that_searches_will_not_find_are_counted_and_reported() -> None:
    vector = SparseVector.from_mapping({"dog": 0.5, "strange": 0.1})
    whole = add_token_ids({"tokens": {"dog": 0.5}}, IDS)
    partly = add_token_ids({"tokens": vector.to_dict()}, IDS)
    losses = [describe_loss(vector, made, IDS) for made in (whole, partly, add_token_ids({"tokens": {}}, IDS))]
    assert losses == ["", NO_TOKEN_ID, EMPTIED_BY_POLICY]
    assert describe_loss(vector, partly, None) == ""
    emptied, no_id = describe_losses(Counter({EMPTIED_BY_POLICY: 1, NO_TOKEN_ID: 2000}), "image")
    assert emptied == "the token policy leaves 1 image without tokens: it is stored, but no query finds it"
    assert no_id.startswith("the index has no id for tokens of 2,000 images: SEISMIC doesn't find them by those")


def test_tokens_are_returned_only_on_request() -> None:
    assert find_model_tokens(ModelSpec(name="no such model"), DocumentSettings()) == ModelTokens()
    known = find_model_tokens(MINI, SEISMIC)
    assert known.tokens[:1]
    assert len(known.tokens) <= MAX_IDS
    assert known.largest_weight == 1  # its vectors have length 1


@pytest.mark.parametrize(("features", "said"), [(None, "doesn't expose"), (range(MAX_IDS + 1), "32,769 tokens")])
def test_a_model_whose_tokens_cannot_have_ids_is_rejected(
    monkeypatch: pytest.MonkeyPatch, features: range | None, said: str
) -> None:
    class Model:
        pass

    if features is not None:
        Model.tokens = [str(i) for i in features]  # type: ignore[attr-defined]
    monkeypatch.setattr(registry, "load_encoder", lambda _: Model())
    with pytest.raises(ModelError, match=said) as caught:
        find_model_tokens(MINI, SEISMIC)
    assert "--vector seismic" in caught.value.remedy


def test_another_sink_keeps_no_ids() -> None:
    with pytest.raises(UsageError, match="'other' keeps no token ids"):
        build_sink_plan(IngestOptions(alias="photos", model=MINI, document=SEISMIC, sink="other"), None)


def test_a_plan_has_the_tokens_of_the_model() -> None:
    made = build_sink_plan(IngestOptions(alias="photos", model=MINI, document=SEISMIC), None)
    assert made.index_spec.tokens == find_model_tokens(MINI, SEISMIC).tokens
    assert made.largest_weight == 1
    assert build_sink_plan(IngestOptions(alias="photos", model=MINI), None).index_spec.tokens == ()


def test_ids_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(IDS)) == IDS
