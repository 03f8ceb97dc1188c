"""Enrichers (caption model, OCR, face blur ...): they run on the CPU workers, between decoding and encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from stair_es import plugins
from stair_es.errors import UsageError
from stair_es.types import Json, Pixels


@dataclass(frozen=True, kw_only=True)
class EnricherInput:
    """One image as passed to an enricher."""

    uri: str
    data: bytes
    """The original file."""
    pixels_HWC: Pixels
    """The encoder's input: the picture on a square."""
    box: tuple[int, int, int, int]
    """Position of the picture on the square: left, upper, right, lower."""
    thumbnail: str | None
    """A data URI, as it will be stored."""
    fields: Mapping[str, Json]
    """Fields of the source and of the previous enrichers."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright original."""
    exif: bytes = b""
    """The EXIF block of the file, untrusted; empty if it has none."""


@dataclass(frozen=True, kw_only=True)
class Enrichment:
    """The result of an enricher for one image. Omitted values stay unchanged."""

    fields: Mapping[str, Json] = field(default_factory=dict)
    """Added to the document, replacing fields of the same name."""
    labels: Mapping[str, float] = field(default_factory=dict)
    """Labels as `normalize_label` returns them, with confidences above 0 and at most 1: added to those of the image."""
    pixels_HWC: Pixels | None = None
    """Replaces the encoder's input; same shape."""
    thumbnail: str | None = None
    """A data URI that replaces the thumbnail; "" for none."""


class Enricher(Protocol):
    """A loaded enricher. One instance may be called from several threads.

    It may have `field_types`, for fields whose types in a new index don't follow from their values: field -> type, or definition.
    """

    @property
    def version(self) -> str:
        """Part of each fingerprint: documents are rebuilt when it changes."""

    def enrich(self, images: Sequence[EnricherInput]) -> Sequence[Enrichment]:
        """Return one enrichment per image, in order. An exception for a single image marks that image as failed."""


class EnricherKind(Protocol):
    """The interface of an entry point in the group `stair_es.enrichers`."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def build(self, options: Mapping[str, str]) -> Enricher:
        """Build the enricher, in the process that will use it.

        Raises:
            UsageError: If an option is unknown or invalid.
        """


@dataclass(frozen=True)
class EnricherSpec:
    """How to build an enricher. Picklable."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> EnricherSpec:
        """Parse `NAME` or `NAME:key=value,key=value`."""
        name, options = parse_named_options("an enricher", text)
        return cls(name, tuple(options.items()))

    def load_kind(self) -> EnricherKind:
        """Load the enricher kind of this name."""
        plugin = plugins.get_plugin("enrichers", self.name)
        if plugin is None:
            known = ", ".join(plugins.list_plugin_names("enrichers")) or "none"
            raise UsageError(
                f"unknown enricher {self.name!r}", f"Known enrichers: {known} (see stair-es plugins).", code="unknown-enricher"
            )
        kind: EnricherKind = plugin.load()
        return kind


def parse_named_options(what: str, text: str) -> tuple[str, dict[str, str]]:
    """Parse `NAME` or `NAME:key=value,key=value` into name and options.

    `what` names the plugin in the error, with its article.

    Raises:
        UsageError: If the text has another form.
    """
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not name or any(not equals or not key for key, equals, _ in pairs):
        raise UsageError(
            f"not the name of {what} with options: {text!r}",
            "Write NAME, or NAME:key=value,key=value.",
            code="invalid-plugin-options",
        )
    return name, {key: value for key, _, value in pairs}


@lru_cache
def get_enricher(spec: EnricherSpec) -> Enricher:
    """Return the enricher of a spec; one instance per process."""
    return spec.load_kind().build(dict(spec.options))
