"""What an enricher is: a caption model, OCR, a face blur. It runs on the CPU workers, between decoding and encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from stair_es import plugins
from stair_es.errors import PluginError, UsageError

if TYPE_CHECKING:
    from stair_es.types import Json, Pixels


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One image as an enricher gets it."""

    uri: str
    data: bytes
    """The original file."""
    pixels_HWC: Pixels
    """What the encoder will see: the picture on a square."""
    box: tuple[int, int, int, int]
    """Where on the square the picture is: left, upper, right, lower."""
    thumbnail: str | None
    """A data URI, as it will be stored."""
    fields: Mapping[str, Json]
    """From the source and from the enrichers before."""


@dataclass(frozen=True, kw_only=True)
class Enrichment:
    """What an enricher makes of one image; what it leaves out stays as it is."""

    fields: Mapping[str, Json] = field(default_factory=dict)
    """Added to the document, in place of fields of the same name."""
    pixels_HWC: Pixels | None = None
    """Seen by the encoder in place of the candidate's: same shape."""
    thumbnail: str | None = None
    """A data URI in place of the one that decoding made; empty for none."""


class Enricher(Protocol):
    """A loaded enricher; called from one thread at a time per instance's batch, maybe from several threads."""

    @property
    def version(self) -> str:
        """Goes into each fingerprint: another version means that documents are made anew."""

    def enrich(self, images: Sequence[Candidate]) -> Sequence[Enrichment]:
        """One enrichment an image, in order. What it raises for one image alone makes that image dead."""


class EnricherKind(Protocol):
    """What an entry point of the group `stair_es.enrichers` names."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def build(self, options: Mapping[str, str]) -> Enricher:
        """The enricher, in the process that will use it.

        Raises:
            UsageError: An option is unknown or has no sense.
        """


@dataclass(frozen=True)
class EnricherSpec:
    """How to build an enricher. Picklable."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> EnricherSpec:
        """The spec of `NAME` or `NAME:key=value,key=value`.

        Raises:
            UsageError: It isn't of that form.
        """
        name, options = named_options("an enricher", text)
        return cls(name, tuple(options.items()))

    def kind(self) -> EnricherKind:
        """The kind that it names.

        Raises:
            UsageError: There is none.
            PluginError: It can't be loaded.
        """
        plugin = plugins.named("enrichers", self.name)
        if plugin is None:
            known = ", ".join(plugins.names("enrichers")) or "none"
            raise UsageError(f"unknown enricher {self.name!r}", f"Known enrichers: {known} (see stair-es plugins).")
        kind: EnricherKind = plugin.load()
        return kind


def named_options(what: str, text: str) -> tuple[str, dict[str, str]]:
    """Name and options of `NAME` or `NAME:key=value,key=value`; `what` it names, with its article, is for the error.

    Raises:
        UsageError: It isn't of that form.
    """
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not name or any(not equals or not key for key, equals, _ in pairs):
        raise UsageError(f"not the name of {what} with options: {text!r}", "Write NAME, or NAME:key=value,key=value.")
    return name, {key: value for key, _, value in pairs}


@lru_cache
def build(spec: EnricherSpec) -> Enricher:
    """The enricher of a spec, one a process."""
    return spec.kind().build(dict(spec.options))


def enriched(enricher: Enricher, name: str, images: Sequence[Candidate]) -> list[Enrichment | str]:
    """One enrichment an image, or the reason why there is none: a failing image is tried alone, so that only it fails."""
    try:
        return list(_checked(enricher, name, images))
    except Exception as error:  # noqa: BLE001  third-party code: one image of a batch must not take the others with it
        if len(images) == 1:
            return [f"{name}: {type(error).__name__}: {error}"]
    return [result for image in images for result in enriched(enricher, name, [image])]


def _checked(enricher: Enricher, name: str, images: Sequence[Candidate]) -> Sequence[Enrichment]:
    results = enricher.enrich(images)
    if len(results) != len(images):
        raise PluginError(f"enricher {name!r} answered {len(results)} enrichments for {len(images)} images")
    for image, result in zip(images, results, strict=True):
        if result.pixels_HWC is not None and result.pixels_HWC.shape != image.pixels_HWC.shape:
            raise PluginError(f"enricher {name!r} made pixels of shape {result.pixels_HWC.shape} of {image.pixels_HWC.shape}")
    return results
