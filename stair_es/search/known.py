"""What a searcher has to know of a cluster and an index before it can ask."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from stair_es.cluster.connect import Connection
from stair_es.cluster.identity import holds_of, refuse_words
from stair_es.cluster.policy_state import state_of
from stair_es.cluster.swap import mappings_of
from stair_es.cluster.token_ids import TokenIds, no_table, tokens_of
from stair_es.errors import IndexMismatch, QueryError
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec, TextTower
from stair_es.policy import WordPolicy
from stair_es.search.filter_fields import FieldUse, list_fields
from stair_es.search.question import Question, Spelling
from stair_es.search.shapes import Fields
from stair_es.types import FITS_ON_DEMAND, Fit

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_FITS: tuple[Fit, ...] = get_args(Fit)
_VECTORS = ("rank_features", "sparse_vector")
_PARTS = ("properties", "runtime")
"""Of a mapping: where it has fields."""
_TEXTUAL = frozenset({"keyword", "text", "wildcard", "constant_keyword"})
_REVISION = re.compile(rf"(@.*|-\d+|(-({'|'.join(_FITS)}))?-[0-9a-f]{{12}})$")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What stands behind a name."""

    fields: Mapping[str, Fields]
    """Index -> its fields."""
    model: str
    model_name: str
    """What to ask for: `--model`."""
    fit: Fit | None = None
    """How its images became squares; None where it doesn't say."""
    text_tower: TextTower | None = None
    """Of an index of texts: what they were encoded with, if it is the same in all indices."""
    holds: str = "images"
    """What its documents are: `images`, `texts`, or `documents` where it stands for indices of both."""
    names: frozenset[str] = frozenset()
    """The fields of all indices together, at the top level."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Of the same fields, those whose type is the same in all indices."""
    ordered: bool = True
    """Whether hits can be put in a total order: `uri` and `sha256` are keywords, as ingest makes them."""
    policy: WordPolicy | None = None
    """The word policy of the index, if all that the name stands for have the same."""
    tokens: tuple[str, ...] | None = None
    """The table of token ids, if all that the name stands for have the same, and the same word policy."""

    @cached_property
    def one(self) -> Fields:
        """The fields, which are the same in all indices.

        Raises:
            IndexMismatch: They aren't.
        """
        if len(set(self.fields.values())) > 1:
            found = ", ".join(f"{name}: {fields.tokens}" for name, fields in sorted(self.fields.items()))
            raise IndexMismatch(
                f"the name stands for indices of several field types ({found}): their queries differ", "Name one of the indices."
            )
        return next(iter(self.fields.values()))

    @cached_property
    def token_ids(self) -> TokenIds:
        """The ids that documents have for tokens.

        Raises:
            IndexMismatch: There is no table of them, or not the same in all indices.
        """
        if self.tokens is None and len(self.fields) > 1:
            raise IndexMismatch(
                f"the name stands for indices that differ in their token ids or word policies: {', '.join(sorted(self.fields))}",
                "Name one of the indices.",
            )
        if self.tokens is None:
            raise no_table(", ".join(sorted(self.fields)))
        return TokenIds.from_tokens(self.tokens).under(self.policy)

    def has_ids_of(self, question: Question) -> bool:
        """Whether the index has an id for each token of the question, as SEISMIC needs them."""
        return self.tokens is not None and not self.token_ids.list_unknown(self.asked_of(question).vector.features)

    def asked_of(self, question: Question) -> Question:
        """The question in the words of the index: they become what its policy made of them in the documents."""
        if self.policy is None:
            return question
        becomes = self.policy.becomes
        return replace(
            question,
            vector=self.policy.asked(question.vector),
            required=[_in_words_of(becomes, word) for word in question.required],
            excluded=[_in_words_of(becomes, word) for word in question.excluded],
        )

    def check_caption(self, question: Question) -> None:
        """Nothing, if the field that BM25 should search is there.

        Raises:
            QueryError: It isn't: the engine would find nothing, and say nothing.
        """
        if question.caption.strip() and question.caption_field.partition(".")[0] not in self.names:
            raise QueryError(
                f"no index that the name stands for has the field {question.caption_field!r}",
                f"Fields: {', '.join(sorted(self.names))}.",
            )

    def check_filters(self, question: Question) -> None:
        """Nothing, if the fields that the filters name are there.

        Raises:
            QueryError: One isn't: the engine would find nothing, and say nothing.
        """
        for use in self._uses(question):
            root = use.name.partition(".")[0]
            if self.names and root not in self.names and not root.startswith("_"):
                near = get_close_matches(root, self.names, n=3)
                meant = f"Did you mean {' or '.join(near)}? " if near else ""
                raise QueryError(
                    f"the filter names the field {use.name!r}, which no index has that the name stands for",
                    f"{meant}Fields: {', '.join(sorted(self.names))}.",
                )

    def list_remarks(self, question: Question) -> list[str]:
        """What a filter does that its writer may not have meant."""
        texts = dict.fromkeys(use.name for use in self._uses(question) if use.is_range and self.types.get(use.name) in _TEXTUAL)
        return [
            f"the filter compares {name!r} letter by letter, since it is a {self.types[name]} field: '3' is greater than '20'; "
            f"an ingest into a new index with --map {name}:float=COLUMN makes it a number"
            for name in texts
        ]

    @staticmethod
    def _uses(question: Question) -> Iterator[FieldUse]:
        for clause in question.filters:
            yield from list_fields(clause)

    def check_model(self, model_id: str) -> None:
        """Nothing, if vectors of this model may be compared with those in the index.

        Raises:
            QueryError: They mustn't.
        """
        if self.model == model_id:
            return
        name = shlex.quote(self.model_name)  # that of a folder can have spaces
        fit = f" --fit {self.fit}" if self.fit in FITS_ON_DEMAND else ""
        if _without_revision(self.model) == _without_revision(model_id):
            told = (
                "The model or its fit has changed since the index was written, or there are two of its name: ingest again, or "
                f"search with --model {name}{fit} as it was then."
            )
        else:
            other_fit = fit if f"-{self.fit}-" in self.model else ""
            told = f"Search with --model {name}{other_fit}, or ingest again with this model."
        raise QueryError(
            f"index {min(self.fields)!r} holds vectors of the model {self.model!r}, the query is a vector of {model_id!r}: "
            "their dot products mean nothing",
            told,
        )


def add_fit(spec: ModelSpec, known: Known) -> ModelSpec:
    """Return the spec with the fit that the index was written with, if it is of the index's model and names none."""
    if spec.fit is not None:
        return spec
    own = spec.name == known.model_name  # compared first: the disk isn't asked for what only an index names
    return replace(spec, fit=known.fit) if own or catalogue.absolute(spec.name) == known.model_name else spec


def look(client: OpenSearch, connection: Connection, index: str) -> Known:
    """What stands behind an alias, an index, or a pattern.

    Raises:
        QueryError: Nothing does.
        IndexMismatch: Something that stair-es didn't write, or indices of several models.
        ClusterError: The cluster fails the request.
    """
    one = not any(sign in index for sign in ",*")
    missing = QueryError(
        f"there is no index or alias {index!r} at {connection.safe_url}",
        f"Write one with: stair-es ingest FOLDER --index {index or 'images'}" if one else "Each of the names must be there.",
    )
    answer = mappings_of(client, connection, index)
    if not answer:
        raise missing
    tables = {name: tokens_of(found) for name, found in answer.items()}
    about = {name: _about(name, found["mappings"], has_ids=tables[name] is not None) for name, found in answer.items()}
    models = {(str(meta.get("model")), str(meta.get("model_name", meta.get("model")))) for meta, _ in about.values()}
    if len({model for model, _ in models}) > 1:
        raise IndexMismatch(
            f"{index!r} stands for indices of several models: {', '.join(sorted(model for model, _ in models))}",
            "Name one of the indices: the dot products of two models can't be compared.",
        )
    model, name = min(models)
    holds = {holds_of(meta) for meta, _ in about.values()}
    types = _collect_types(answer)
    policies = [state_of(found, name).policy for name, found in answer.items()]
    alike = len({policy and policy.digest for policy in policies}) == 1
    return Known(
        fields={index: fields for index, (_, fields) in about.items()},
        model=model,
        model_name=name,
        fit=_fit([meta for meta, _ in about.values()]),
        text_tower=_text_tower([meta for meta, _ in about.values()]),
        holds=holds.pop() if len(holds) == 1 else "documents",
        names=frozenset(types),
        types={name: next(iter(several)) for name, several in types.items() if len(several) == 1},
        ordered=all(_sortable(found["mappings"]) for found in answer.values()),
        policy=policies[0] if alike else None,  # where they differ, each token is looked for as it is
        tokens=next(iter(tables.values())) if alike and len(set(tables.values())) == 1 else None,  # an id would mean two tokens
    )


def _about(name: str, mapping: Mapping[str, Any], *, has_ids: bool) -> tuple[Mapping[str, Any], Fields]:
    refuse_words(name, {"mappings": mapping})
    meta = mapping.get("_meta", {}).get("stair_es")
    fields = Fields.from_mapping(mapping.get("properties", {}))
    if fields.seismic and not has_ids:
        fields = replace(fields, seismic=None)  # nobody can tell its ids
    if not isinstance(meta, dict) or not (fields.tokens in _VECTORS or fields.seismic or fields.impacts):
        raise IndexMismatch(
            f"index {name!r} was not written by stair-es: no `_meta.stair_es`, or no field of word weights (`tokens`)",
            "Choose another one with --index / STAIR_ES_INDEX.",
        )
    return meta, fields


def _collect_types(answer: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return the types of each field of all indices together."""
    found = defaultdict[str, set[str]](set)
    for index in answer.values():
        for part in _PARTS:
            for name, about in index["mappings"].get(part, {}).items():
                found[name].add(str(about.get("type", "object")))
    return found


def _fit(abouts: Sequence[Mapping[str, Any]]) -> Fit | None:
    """Of indices of one model; None from before there was one."""
    return next((fit for fit in _FITS if all(about.get("fit") == fit for about in abouts)), None)


def _text_tower(abouts: Iterable[Mapping[str, Any]]) -> TextTower | None:
    """What the texts of all indices were encoded with; None for images, or where they differ."""
    towers = set()
    for about in abouts:
        settings = about.get("settings")
        texts = settings.get("texts") if isinstance(settings, Mapping) else None
        towers.add(texts.get("text_tower") if isinstance(texts, Mapping) else None)
    found = towers.pop() if len(towers) == 1 else None
    return found if found in get_args(TextTower) else None


def _without_revision(model_id: str) -> str:
    """What stays of an id when the model changes: `stair-mini` of `stair-mini-2`, `run` of `run-0c61e1f0a2b3` and
    `run-pad-0c61e1f0a2b3`, `mine` of `mine@2`.
    """
    return _REVISION.sub("", model_id)


def _sortable(mapping: Mapping[str, Any]) -> bool:
    fields = mapping.get("properties", {})
    return all(fields.get(name, {}).get("type", "keyword") == "keyword" for name in ("uri", "sha256"))


def _in_words_of(becomes: Mapping[str, str], spelling: Spelling) -> Spelling:
    return tuple(dict.fromkeys(becomes.get(feature, feature) for feature in spelling))
