"""Run enrichers on the decoded images of a batch: one that fails for an image must not take others with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stair_es.errors import PluginError
from stair_es.ingest.enrichers.base import Enricher, EnricherInput, EnricherSpec, Enrichment, get_enricher
from stair_es.ingest.state import Batch, Outcome, Prepared


def run_enricher(enricher: Enricher, name: str, images: Sequence[EnricherInput]) -> list[Enrichment | str]:
    """Return one enrichment per image, or the reason of its failure.

    If the enricher fails for several images, each is tried alone, so that only the failing ones are lost.
    """
    try:
        return list(_run_checked(enricher, name, images))
    except Exception as error:  # noqa: BLE001  third-party code: one image of a batch must not take the others with it
        if len(images) == 1:
            return [f"{name}: {type(error).__name__}: {error}"]
    return [result for image in images for result in run_enricher(enricher, name, [image])]


def _run_checked(enricher: Enricher, name: str, images: Sequence[EnricherInput]) -> Sequence[Enrichment]:
    results = enricher.enrich(images)
    if len(results) != len(images):
        raise PluginError(
            f"enricher {name!r} returned {len(results)} enrichments for {len(images)} images", code="enricher-lost-images"
        )
    for image, result in zip(images, results, strict=True):
        if result.pixels_HWC is not None and result.pixels_HWC.shape != image.pixels_HWC.shape:
            raise PluginError(
                f"enricher {name!r} returned pixels of shape {result.pixels_HWC.shape}, not {image.pixels_HWC.shape}",
                code="enricher-changed-shape",
            )
    return results


def enrich_batch(batch: Batch, spec: EnricherSpec) -> None:
    """Enrich the decoded images of a batch."""
    images = batch.enumerate_state(Prepared)
    inputs = [
        EnricherInput(
            uri=prepared.fetched.item.uri,
            data=prepared.fetched.data,
            pixels_HWC=prepared.decoded.pixels_HWC,
            box=prepared.decoded.box,
            thumbnail=prepared.decoded.thumbnail,
            fields=prepared.fields,
            size=(prepared.decoded.width, prepared.decoded.height),
            exif=prepared.decoded.exif,
        )
        for _, prepared in images
    ]
    results = run_enricher(get_enricher(spec), spec.name, inputs) if inputs else []
    for (i, prepared), result in zip(images, results, strict=True):
        if isinstance(result, str):
            batch.images[i] = Outcome(prepared.fetched.item, "failed", "enrich", result)
        else:
            batch.images[i] = _apply_enrichment(prepared, result)


def _apply_enrichment(prepared: Prepared, enrichment: Enrichment) -> Prepared:
    decoded = prepared.decoded
    if enrichment.pixels_HWC is not None:
        decoded = replace(decoded, pixels_HWC=enrichment.pixels_HWC)
    if enrichment.thumbnail is not None:
        decoded = replace(decoded, thumbnail=enrichment.thumbnail or None)
    labels = {**prepared.labels, **enrichment.labels}
    return replace(prepared, decoded=decoded, fields={**prepared.fields, **enrichment.fields}, labels=labels)
