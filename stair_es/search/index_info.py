"""The metadata of an index that a search requires: model, fields and token policy."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from stair_es.cluster.documents.document import LABELS_FIELD
from stair_es.cluster.index.mappings import get_mappings_by_index
from stair_es.cluster.metadata.index_metadata import (
    check_index_format,
    check_not_token_index,
    get_content_type,
    has_image_sizes,
    has_thumbnails,
)
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, parse_policy_state
from stair_es.config.defaults import DEFAULT_PRICE_FIELD
from stair_es.errors import IndexMismatch, QueryError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.dsl.filters import FilterField, list_filter_fields, split_field_names
from stair_es.search.dsl.mapped_fields import MappedField, list_mapped_fields, suggest_fields
from stair_es.search.dsl.select import IndexFields
from stair_es.search.dsl.understanding import NO_FIELDS, SearchFields
from stair_es.search.query import CaptionWord, SearchQuery
from stair_es.taught_words import TaughtWord
from stair_es.token_policy import TokenPolicy
from stair_es.types import RESIZE_MODE_CHOICES, ResizeMode, SparseVector, TextTower

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster

_FITS: tuple[ResizeMode, ...] = get_args(ResizeMode)
_VECTORS = ("rank_features", "sparse_vector")
_PARTS = ("properties", "runtime")
_TEXTUAL = frozenset({"keyword", "text", "wildcard", "constant_keyword"})
_TEXT_FIELDS, _COLORS_FIELD, _LOCATION_FIELD = ("caption", "title", "text"), "colors", "location"
_REVISION = re.compile(rf"(@.*|-\d+|(-({'|'.join(_FITS)}))?-[0-9a-f]{{12}})$")


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """The metadata of the indices that a name resolves to."""

    fields: Mapping[str, IndexFields]
    """Index -> its searchable fields."""
    model: str
    model_name: str
    """The name for `--model`."""
    fit: ResizeMode | None = None
    """Resize mode of its images; None if unknown."""
    text_tower: TextTower | None = None
    """The text tower of an index of texts, if it is the same in all indices."""
    content_type: str = "images"
    """Kind of its documents: `images`, `texts`, or `documents` if the name resolves to indices of both."""
    field_names: frozenset[str] = frozenset()
    """The top-level fields of all indices together."""
    field_types: Mapping[str, str] = field(default_factory=dict)
    """Field -> type, for fields with the same type in all indices."""
    mapped_fields: Mapping[str, MappedField] = field(default_factory=dict)
    """The fields for conditions and facets, by name."""
    sortable: bool = True
    """Whether hits have a total order: `uri` and `sha256` are keyword fields, as ingest creates them."""
    policy: TokenPolicy | None = None
    """The token policy, if it is the same in all indices."""
    labels_policy: TokenPolicy | None = None
    """The policy of its labels, if it is the same in all indices."""
    has_thumbnails: bool = False
    """Whether documents of any index contain thumbnails."""
    has_image_sizes: bool = True
    """Whether `width` and `height` are those of images in all indices."""

    @property
    def taught_words(self) -> Mapping[str, TaughtWord]:
        """The taught words of its token policy."""
        return self.policy.teach if self.policy else {}

    def remove_taught_words(self, vector: SparseVector) -> SparseVector:
        """Return the vector of a document without taught words: images are compared by what the model finds in them."""
        taught = {word.token for word in self.taught_words.values()}
        return SparseVector.from_pairs(pair for pair in vector if pair[0] not in taught)

    @cached_property
    def common_fields(self) -> IndexFields:
        """The searchable fields, which must be the same in all indices."""
        if len(set(self.fields.values())) > 1:
            found = ", ".join(f"{name}: {fields.tokens}" for name, fields in sorted(self.fields.items()))
            raise IndexMismatch(
                f"the name resolves to indices with different field types ({found}), which need different queries",
                "Specify one of the indices.",
                code="different-field-types",
            )
        return next(iter(self.fields.values()))

    def apply_policy(self, query: SearchQuery) -> SearchQuery:
        """Rewrite a query by the token policy, as the policy rewrote the tokens of the documents."""
        query = replace(
            query,
            caption_words=self._replace_word_tokens(query.caption_words),
            required_words=self._replace_word_tokens(query.required_words),
            excluded_words=self._replace_word_tokens(query.excluded_words),
        )
        if self.policy is None:
            return query
        return replace(
            query,
            vector=self.policy.rewrite_query(query.vector),
            required=list(map(self.policy.replace_tokens, query.required)),
            excluded=list(map(self.policy.replace_tokens, query.excluded)),
            named_words=list(map(self.policy.replace_tokens, query.named_words)),
            rarest_word=query.rarest_word and (query.rarest_word[0], self.policy.replace_tokens(query.rarest_word[1])),
        )

    def _replace_word_tokens(self, words: Sequence[CaptionWord]) -> list[CaptionWord]:
        policy, of_labels = self.policy or TokenPolicy(), self.labels_policy or TokenPolicy()
        return [
            word._replace(tokens=policy.replace_tokens(word.tokens), labels=of_labels.replace_tokens(word.labels))
            for word in words
        ]

    @property
    def caption_fields(self) -> tuple[str, ...]:
        """The text fields of captions, titles and the text in pictures. A document needn't have them."""
        return tuple(name for name in _TEXT_FIELDS if self.field_types.get(name) == "text")

    def list_search_fields(self, price_field: str = DEFAULT_PRICE_FIELD) -> SearchFields:
        """List the fields in which a text is searched besides the token weights: captions, colors, prices, places."""
        if self.content_type != "images":
            return NO_FIELDS
        price = self.mapped_fields.get(price_field)
        return SearchFields(
            text=",".join(self.caption_fields),
            colors=_COLORS_FIELD if self.field_types.get(_COLORS_FIELD) == "keyword" else "",
            price=price_field if price is not None and price.kind in ("integer", "number") else "",
            labels=self.field_types.get(LABELS_FIELD) == "rank_features",
            location=_LOCATION_FIELD if self.field_types.get(_LOCATION_FIELD) == "geo_point" else "",
        )

    def check_caption_field(self, query: SearchQuery) -> None:
        """Check that the caption field exists; the engine would silently find nothing."""
        is_searched = query.caption.strip() or query.required_words or query.excluded_words
        names = split_field_names(query.caption_field) if is_searched else []
        for name in names:
            if name.partition(".")[0] not in self.field_names:
                raise QueryError(
                    f"no index that the name resolves to has the field {name!r}",
                    f"Fields: {', '.join(sorted(self.field_names))}.",
                    code="no-such-caption-field",
                )

    def check_filter_fields(self, clauses: Iterable[Mapping[str, Any]]) -> None:
        """Check that the fields of the filters exist; the engine would silently find nothing."""
        for reference in _list_filter_fields(clauses):
            root = reference.name.partition(".")[0]
            is_known = root in self.field_names or reference.name in self.field_names  # an index may have no objects
            if self.field_names and not is_known and not root.startswith("_"):
                raise QueryError(
                    f"the filter refers to the field {reference.name!r}, which no index that the name resolves to has",
                    suggest_fields(root, sorted(self.field_names)),
                    code="no-such-filter-field",
                )

    def list_remarks(self, query: SearchQuery) -> list[str]:
        """List effects of the filters that may be unintended."""
        names = dict.fromkeys(
            reference.name
            for reference in _list_filter_fields(query.filters)
            if reference.is_range and self.field_types.get(reference.name) in _TEXTUAL
        )
        return [
            f"the filter compares {name!r} as text, since it is a {self.field_types[name]} field: "
            f"'3' is greater than '20'; an ingest into a new index with --field {name}:float=COLUMN makes it a number"
            for name in names
        ]

    def check_model(self, model_id: str) -> None:
        """Check that vectors of a model can be compared with those in the index."""
        if self.model == model_id:
            return
        name = shlex.quote(self.model_name)  # the name of a folder can contain spaces
        fit = f" --fit {self.fit}" if self.fit in RESIZE_MODE_CHOICES else ""
        if _strip_revision(self.model) == _strip_revision(model_id):
            remedy = (
                "The model or its fit has changed since the index was written, or two models have the same name: ingest "
                f"again, or search with --model {name}{fit} as it was then."
            )
        else:
            other_fit = fit if f"-{self.fit}-" in self.model else ""
            remedy = f"Search with --model {name}{other_fit}, or ingest again with this model."
        raise QueryError(
            f"index {min(self.fields)!r} contains vectors of the model {self.model!r}, but the query is a vector of {model_id!r}"
            ": their dot products are meaningless",
            remedy,
            code="other-model",
        )


def add_fit(spec: ModelSpec, info: IndexInfo) -> ModelSpec:
    """Add the fit of the index to a spec that names the model of the index without a fit."""
    if spec.fit is not None:
        return spec
    # The name is compared first: no access to a path that only an index names.
    is_index_model = spec.name == info.model_name or registry.locate_model(spec.name).portable_name == info.model_name
    return replace(spec, fit=info.fit) if is_index_model else spec


def fetch_index_info(cluster: Cluster, index: str) -> IndexInfo:
    """Fetch the metadata of an alias, an index, or a pattern.

    Raises:
        QueryError: If no index matches.
        IndexMismatch: If an index was not written by stair-es or has another format, or if the indices have several models.
    """
    mappings = get_mappings_by_index(cluster, index)
    if not mappings:
        remedy = f"Write one with: stair-es ingest FOLDER --index {index or 'images'}"
        raise QueryError(
            f"there is no index or alias {index!r} at {cluster.connection.safe_url}",
            "Each of the names must exist." if any(mark in index for mark in ",*") else remedy,
            code="index-not-found",
        )
    metadata = {name: _read_index_metadata(name, body["mappings"]) for name, body in mappings.items()}
    metas = [meta for meta, _ in metadata.values()]
    models = {(str(meta.get("model")), str(meta.get("model_name", meta.get("model")))) for meta in metas}
    if len({model for model, _ in models}) > 1:
        raise IndexMismatch(
            f"{index!r} resolves to indices of several models: {', '.join(sorted(model for model, _ in models))}",
            "Specify one of the indices: dot products of different models can't be compared.",
            code="several-models",
        )
    model, name = min(models)
    content_types = set(map(get_content_type, metas))
    field_types = _collect_types(mappings)
    policies = [parse_policy_state(body, name).policy for name, body in mappings.items()]
    label_policies = [parse_policy_state(body, name, LABELS_POLICY).policy for name, body in mappings.items()]
    return IndexInfo(
        fields={index: fields for index, (_, fields) in metadata.items()},
        model=model,
        model_name=name,
        fit=_find_common_fit(metas),
        text_tower=_find_common_text_tower(metas),
        content_type=content_types.pop() if len(content_types) == 1 else "documents",
        field_names=frozenset(field_types),
        field_types={name: next(iter(kinds)) for name, kinds in field_types.items() if len(kinds) == 1},
        mapped_fields=list_mapped_fields(mappings),
        sortable=all(_is_sortable(body["mappings"]) for body in mappings.values()),
        policy=_find_common_policy(policies),
        labels_policy=_find_common_policy(label_policies),
        has_thumbnails=any(map(has_thumbnails, mappings.values())),
        has_image_sizes=all(map(has_image_sizes, mappings.values())),
    )


def _read_index_metadata(name: str, mapping: Mapping[str, Any]) -> tuple[Mapping[str, Any], IndexFields]:
    check_not_token_index(name, {"mappings": mapping})
    check_index_format(name, {"mappings": mapping})
    meta = mapping.get("_meta", {}).get("stair_es")
    fields = IndexFields.from_mapping(mapping.get("properties", {}))
    is_searchable = fields.tokens in _VECTORS or fields.impacts
    if isinstance(meta, dict) and fields.tokens is None and not is_searchable:
        raise IndexMismatch(
            f"index {name!r} was written by stair-es, but your user doesn't see its field `tokens`",
            "Field-level security probably hides it: let the role see `tokens` and `uri` (docs/howto/secure.md#opensearch).",
            code="tokens-hidden",
        )
    if not isinstance(meta, dict) or not is_searchable:
        raise IndexMismatch(
            f"index {name!r} was not written by stair-es: no `_meta.stair_es`, or no field of token weights (`tokens`)",
            "Choose another index with --index / STAIR_ES_INDEX.",
            code="foreign-index",
        )
    return meta, fields


def _list_filter_fields(clauses: Iterable[Mapping[str, Any]]) -> Iterator[FilterField]:
    for clause in clauses:
        yield from list_filter_fields(clause)


def _collect_types(mappings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    types = defaultdict[str, set[str]](set)
    for index in mappings.values():
        for part in _PARTS:
            for name, definition in index["mappings"].get(part, {}).items():
                types[name].add(str(definition.get("type", "object")))
    return types


def _find_common_policy(policies: Sequence[TokenPolicy | None]) -> TokenPolicy | None:
    """Return the policy of all indices; None if they differ: then tokens are searched for unchanged."""
    return policies[0] if len({policy and policy.digest for policy in policies}) == 1 else None


def _find_common_fit(metadata: Sequence[Mapping[str, Any]]) -> ResizeMode | None:
    """Return the fit that all indices have; None if they differ, or were written before fits were recorded."""
    return next((fit for fit in _FITS if all(meta.get("fit") == fit for meta in metadata)), None)


def _find_common_text_tower(metadata: Iterable[Mapping[str, Any]]) -> TextTower | None:
    """Return the text tower of all indices; None for images, or if they differ."""
    towers = set()
    for meta in metadata:
        settings = meta.get("settings")
        texts = settings.get("texts") if isinstance(settings, Mapping) else None
        towers.add(texts.get("text_tower") if isinstance(texts, Mapping) else None)
    tower = towers.pop() if len(towers) == 1 else None
    return tower if tower in get_args(TextTower) else None


def _strip_revision(model_id: str) -> str:
    """Strip the revision from a model id.

    `stair-mini-3` becomes `stair-mini`, `run-0c61e1f0a2b3` and `run-pad-0c61e1f0a2b3` become `run`, `mine@2` becomes `mine`.
    """
    return _REVISION.sub("", model_id)


def _is_sortable(mapping: Mapping[str, Any]) -> bool:
    fields = mapping.get("properties", {})
    return all(fields.get(name, {}).get("type", "keyword") == "keyword" for name in ("uri", "sha256"))
