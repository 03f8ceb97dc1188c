"""Search parameters -> query query, with a toy encoder."""

from collections.abc import Sequence

import pytest
from support.errors import expect_error

from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.errors import QueryError
from stair_es.model.base import Encoder, ModelCard
from stair_es.search.dsl.mapped_fields import MappedField
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_cache import IndexState
from stair_es.search.index_info import IndexInfo
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import build_search_query
from stair_es.token_policy import TokenPolicy
from stair_es.types import ImageSpec, Pixels, SparseVector
from stair_es.web.search.params import Condition, SearchParams, build_filters, build_query_inputs
from stair_es.web.search.service import build_browsing_query

STORED = SparseVector.from_mapping({"cat": 0.5, "doggo": 0.25})
FIELDS = {"top_tokens": MappedField(name="top_tokens", type="keyword", kind="keyword", path="top_tokens")}
PIECES = {"kittens": ("kit", "##tens"), "the": ()}


class LengthEncoder(Encoder):
    """Toy encoder: the weight of a word is its length; `kittens` has two tokens, `the` has none."""

    card = ModelCard(name="letters", model_id="letters-1", image_spec=ImageSpec(size_px=8), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [
            SparseVector.from_mapping({p: float(len(p)) for w in text.split() for p in self.tokenize_word(w)}) for text in texts
        ]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        return PIECES.get(word, (word,) if word.isalpha() or word.startswith("##") else ())


POLICY = TokenPolicy(rename={"dog": "doggo"}, merge={"cat": ("kit",)}, mute=("car",))


def build_query(policy: TokenPolicy | None = None, stored: SparseVector | None = None, **fields: object) -> SearchQuery:
    params = SearchParams(**fields)  # type: ignore[arg-type]
    inputs = build_query_inputs(params, stored, build_filters(params.filters, params.filter, FIELDS))
    return build_search_query(LengthEncoder(), inputs, policy=policy)


def list_words(query: SearchQuery) -> list[tuple[str, float, float, bool]]:
    return [(word.token, word.weight, word.factor, word.added) for word in query.tokens]


def test_words_are_heaviest_first_and_sent_with_their_factors() -> None:
    query = build_query(text="red house", factors={"house": 0.5})
    assert list_words(query) == [("house", 5.0, 0.5, False), ("red", 3.0, 1.0, False)]
    assert query.vector.to_dict() == {"red": 3.0, "house": 2.5}


def test_muted_words_are_shown_but_not_sent() -> None:
    query = build_query(text="red house", factors={"house": 0})
    assert list_words(query)[0] == ("house", 5.0, 0.0, False)
    assert query.vector.to_dict() == {"red": 3.0}


def test_factors_add_missing_words_with_their_weight() -> None:
    query = build_query(text="red", factors={"kittens": 0.5})
    assert list_words(query)[1:] == [("##tens", 1.0, 0.5, True), ("kit", 1.0, 0.5, True)]
    assert query.vector.to_dict() == {"red": 3.0, "kit": 0.5, "##tens": 0.5}


def test_added_words_alone_are_a_query() -> None:
    assert build_query(factors={"dog": 2}).vector.to_dict() == {"dog": 2.0}


def test_a_word_resolves_to_its_pieces_in_the_query() -> None:
    query = build_query(text="kittens", factors={"kittens": 0.5, "kit": 2})
    assert query.vector.to_dict() == {"kit": 6.0, "##tens": 3.0}


def test_boosts_multiply_weights_and_0_mutes() -> None:
    query = build_query(text="red^2 house^0")
    assert list_words(query) == [("red", 6.0, 1.0, False), ("house", 5.0, 0.0, False)]
    assert build_query(text="red^2 house^0", factors={"house": 1}).vector.to_dict() == {"red": 6.0, "house": 5.0}


def test_text_image_and_vector_add_up_with_equal_weight() -> None:
    query = build_query(text="cat", stored=STORED, vector={"cat": 1.0, "sun": 2.0})
    assert query.vector.to_dict() == {"cat": 4.5, "sun": 2.0, "doggo": 0.25}


def test_typed_and_given_conditions_combine() -> None:
    params = SearchParams(text="red +dog -cat", require=("dog", "sun"), exclude=("kittens",))
    inputs = build_query_inputs(params)
    assert (inputs.required_words, inputs.excluded_words) == (("dog", "sun"), ("cat", "kittens"))
    query = build_search_query(LengthEncoder(), inputs)
    assert list(query.required) == [("dog",), ("sun",)]
    assert list(query.excluded) == [("cat",), ("kit", "##tens")]


def test_query_words_are_mapped_and_stored_vectors_are_kept() -> None:
    query = build_query(POLICY, STORED, text="dog kittens", require=("dog",), exclude=("doggo", "kittens"))
    assert query.vector.to_dict() == {"##tens": 6.0, "cat": 3.5, "doggo": 3.25}
    assert list(query.required) == [("doggo",)]
    assert list(query.excluded) == [("doggo",), ("cat", "##tens")]


def test_factors_accept_index_and_model_words() -> None:
    for name in ("dog", "doggo"):
        assert build_query(POLICY, text="dog sun", factors={name: 2}).vector.to_dict() == {"doggo": 6.0, "sun": 3.0}
        assert list_words(build_query(POLICY, text="sun", factors={name: 2}))[1] == ("doggo", 1.0, 2.0, True)


def test_bm25_needs_and_keeps_text() -> None:
    query = build_query(text="the kittens -dog", method="text", factors={"kit": 2})
    assert (query.caption, len(query.vector), query.tokens) == ("the kittens", 0, ())
    assert list(query.excluded) == [("dog",)]
    with expect_error("text-method-without-text", QueryError):
        build_query(similar_to="x", stored=STORED, method="text")


def test_the_filters_are_conditions_and_a_query_string() -> None:
    query = build_query(text="red", filters=(Condition(field="top_tokens", all=("cat", "a.b")),), filter=" width:>8 ")
    assert list(query.filters) == [
        {"term": {"top_tokens": "cat"}},
        {"term": {"top_tokens": "a.b"}},
        {"query_string": {"query": "width:>8", "default_field": "caption"}},
    ]


@pytest.mark.parametrize(
    ("filter_text", "sent"),
    [
        ("/((a{1,100}){1,100}){1,100}/", r"\/((a{1,100}){1,100}){1,100}\/"),
        ("uri:a/b*", r"uri:a\/b*"),
        ('uri:"file:///a.jpg"', r'uri:"file:\/\/\/a.jpg"'),
        (r"\/a", r"\/a"),
        (r"\\/a/", r"\\\/a\/"),
        (r"\\\/a", r"\\\/a"),
        (r"x:[a\ TO b\]/a/", r"x:[a\ TO b\]\/a\/"),
        (r'x:[a"b TO c] OR /a/ OR x:"', r'x:[a"b TO c] OR \/a\/ OR x:"'),
    ],
)
def test_slashes_in_filters_are_literal(filter_text: str, sent: str) -> None:
    [clause] = build_query(text="red", filter=filter_text).filters
    assert clause["query_string"]["query"] == sent


@pytest.mark.parametrize("text", ['{"script": {"script": "1"}}', ' {"terms": {"uri": {"index": "secrets"}}}', "[1]"])
def test_a_filter_is_never_a_clause(text: str) -> None:
    with expect_error("filter-not-a-string", QueryError):
        build_query(text="red", filter=text)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "no-input"),
        ({"text": "  "}, "no-input"),
        ({"text": "red", "factors": {"red": 0}}, "all-tokens-muted"),
        ({"text": "red", "factors": {"the": 1}}, "word-not-in-vocabulary"),
        ({"text": "red", "require": ("the",)}, "word-not-in-vocabulary"),
        ({"text": "red the^2"}, "word-not-in-vocabulary"),
        ({"text": "red^1e308", "factors": {"red": 1e6}}, "boost-too-large"),
        ({"text": "red^1e308 red^1e309"}, "invalid-boost"),
        ({"vector": {"red": 1e308}, "stored": SparseVector.from_mapping({"red": 1e308})}, "weights-too-large"),
    ],
)
def test_invalid_queries_are_rejected(fields: dict[str, object], code: str) -> None:
    with expect_error(code, QueryError):
        build_query(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"text": "-cat"}, {"exclude": ("cat",)}])
def test_queries_that_only_exclude_are_told_from_empty_ones(fields: dict[str, object]) -> None:
    with expect_error("no-input", QueryError) as caught:
        build_query(**fields)  # type: ignore[arg-type]
    assert "exclude" in caught.value.message


def test_browsing_keeps_the_conditions_without_scores() -> None:
    params = SearchParams(require=("dog",), exclude=("kittens",), filter="format:JPEG")
    assert params.is_browsing
    info = IndexInfo(
        fields={"x": IndexFields(tokens="rank_features")},
        model="letters-1",
        model_name="letters",
        policy=POLICY,
        field_names=frozenset({"format"}),
    )
    cluster_info = ClusterInfo(distribution="opensearch", version=(3,), max_clauses=1024)
    state = IndexState(cluster_info=cluster_info, info=info, encoder=LengthEncoder())
    query = build_browsing_query(params, state)["bool"]
    assert query["filter"][0]["query_string"]["query"] == "format:JPEG"
    assert "tokens.doggo" in str(query["filter"][1:])
    assert all(feature in str(query["must_not"]) for feature in ("tokens.cat", "tokens.##tens"))
    for fields in ({"text": "a"}, {"similar_to": "x"}, {"vector": {"a": 1.0}}, {"factors": {"a": 0.0}}):
        assert not SearchParams(**fields).is_browsing
    assert SearchParams(text="  ", filter="width:>8").is_browsing
    with expect_error("no-such-filter-field", QueryError) as caught:
        build_browsing_query(SearchParams(filter="width:>8"), state)
    assert "'width'" in caught.value.message
