"""Reference of the public Python API: documented by autodoc on the site, as tables in the repository."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from figures import ROOT
from sphinx.pycode import ModuleAnalyzer

SECTIONS: dict[str, tuple[str, ...]] = {
    "documents": (
        "stair_es.cluster.index.mappings.build_mapping",
        "stair_es.cluster.documents.document.build_document",
        "stair_es.cluster.documents.document.ImageMetadata",
        "stair_es.cluster.documents.document.make_document_id",
    ),
    "ingest": (
        "stair_es.ingest.pipeline.run_ingest",
        "stair_es.ingest.options.IngestOptions",
        "stair_es.ingest.accounting.report.IngestReport",
        "stair_es.cluster.documents.document.DocumentSettings",
        "stair_es.sources.registry.open_source",
    ),
    "search": (
        "stair_es.search.image_search.ImageSearch",
        "stair_es.search.image_search.AsyncImageSearch",
        "stair_es.search.query_encoder.QueryInputs",
        "stair_es.search.options.SearchOptions",
        "stair_es.search.query.SearchQuery",
        "stair_es.search.searcher.Searcher",
        "stair_es.search.results.SearchResult",
        "stair_es.search.results.Hit",
        "stair_es.search.results.TokenContribution",
        "stair_es.search.diagnose.RankExplanation",
        "stair_es.search.request.build_search_request",
        "stair_es.search.request.SearchRequest",
        "stair_es.search.dsl.select.build_sparse_query",
        "stair_es.types.QueryType",
    ),
    "vectors": (
        "stair_es.types.SparseVector",
        "stair_es.types.ImageSpec",
    ),
    "cluster": (
        "stair_es.cluster.client.connection.Connection",
        "stair_es.cluster.client.cluster.Cluster",
        "stair_es.cluster.client.auth.SecuritySettings",
        "stair_es.embedded_node.lifecycle.ensure_running",
    ),
    "models": (
        "stair_es.model.registry.load_encoder",
        "stair_es.model.registry.resolve_model",
        "stair_es.model.registry.Model",
        "stair_es.sentence_transformers.StairModule",
    ),
    "plugins": ("stair_es.api",),
    "sources": (
        "stair_es.sources.base.SourceKind",
        "stair_es.sources.base.Source",
        "stair_es.sources.base.SourceOptions",
        "stair_es.sources.base.SourceItem",
        "stair_es.sources.base.ListingFailure",
        "stair_es.sources.base.Locator",
        "stair_es.sources.base.ReadLimits",
        "stair_es.sources.base.ReadResult",
    ),
    "encoders": (
        "stair_es.model.base.EncoderPlugin",
        "stair_es.model.base.Encoder",
        "stair_es.model.base.ModelCard",
        "stair_es.model.base.ModelSpec",
        "stair_es.model.base.MatchThresholds",
        "stair_es.model.base.ReadText",
    ),
    "enrichers": (
        "stair_es.ingest.enrichers.base.EnricherKind",
        "stair_es.ingest.enrichers.base.Enricher",
        "stair_es.ingest.enrichers.base.EnricherInput",
        "stair_es.ingest.enrichers.base.Enrichment",
    ),
    "sinks": (
        "stair_es.ingest.sinks.base.SinkKind",
        "stair_es.ingest.sinks.base.SinkPlan",
        "stair_es.ingest.sinks.base.SinkSession",
        "stair_es.ingest.sinks.base.SinkWriter",
        "stair_es.ingest.sinks.base.RunCoverage",
        "stair_es.ingest.sinks.base.SinkResult",
        "stair_es.store.BulkResult",
        "stair_es.store.BulkRequestStats",
        "stair_es.store.StoredVersion",
        "stair_es.store.IndexedDocument",
    ),
    "metrics": ("stair_es.eval.metrics",),
}
"""Section of the page -> its modules, classes, functions and values."""
_PAGE = ROOT / "docs" / "reference"


def build_section(section: str, *, directives: bool = True) -> str:
    """Return a section.

    Args:
        section: Key of `SECTIONS`.
        directives: Whether to use Sphinx's directives, which document each name in full. Without them the section is a table of
            the names with their files and the first paragraph of their docstrings.
    """
    if directives:
        return "\n".join(["```{eval-rst}", *map(_write_directive, SECTIONS[section]), "```"])
    rows = (row for name in SECTIONS[section] for row in _list_rows(name))
    return "\n".join(["| name | description |", "|---|---|", *rows])


def _write_directive(path: str) -> str:
    value = _load(path)
    if inspect.ismodule(value):
        return f".. automodule:: {path}" + ("\n   :no-members:" if path == "stair_es.api" else "")
    if inspect.isclass(value):
        return f".. autoclass:: {path}"
    return f".. autofunction:: {path}" if inspect.isfunction(value) else f".. autodata:: {path}\n   :no-value:"


def _list_rows(path: str) -> Iterator[str]:
    """Yield the row of a name; those of its functions for a module."""
    value = _load(path)
    module, _, name = path.rpartition(".")
    if not inspect.ismodule(value):
        is_documented = inspect.isclass(value) or inspect.isfunction(value)
        yield _write_row(module, name, inspect.getdoc(value) if is_documented else _read_attribute_doc(module, name))
    elif path == "stair_es.api":
        yield _write_row(path, path, inspect.getdoc(value))
    else:
        for name, function in inspect.getmembers(value, inspect.isfunction):
            if function.__module__ == path and not name.startswith("_"):
                yield _write_row(path, name, inspect.getdoc(function))


def _load(path: str) -> Any:  # noqa: ANN401  a module, class, function or value
    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)


def _read_attribute_doc(module: str, name: str) -> str:
    """Return the docstring below a value of a module."""
    return "\n".join(ModuleAnalyzer.for_module(module).find_attr_docs()["", name])


def _write_row(module: str, name: str, doc: str | None) -> str:
    file = os.path.relpath(str(import_module(module).__file__), _PAGE)
    summary = (doc or "").strip().partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    return f"| [`{name}`]({file}) | {summary} |"
