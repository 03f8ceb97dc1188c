"""Enrichers by their specs, and one bad image among good ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput, EnricherSpec, Enrichment, get_enricher
from stair_es.ingest.enrichers.run import run_enricher


def build_input(uri: str) -> EnricherInput:
    pixels_HWC = np.zeros((4, 4, 3), np.uint8)
    return EnricherInput(uri=uri, data=b"", pixels_HWC=pixels_HWC, box=(0, 0, 4, 4), thumbnail=None, fields={})


class _LengthEnricher:
    """Returns the length of the URI; fails for each batch with an image called `bad`."""

    version = "1"

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        self.batch_sizes.append(len(images))
        if any(image.uri == "bad" for image in images):
            raise ValueError("no such picture")
        return [Enrichment(fields={"length": len(image.uri)}) for image in images]


class _IncompleteEnricher:
    """Returns one enrichment too few for a batch, and the right number for an image alone."""

    version = "1"

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [Enrichment(fields={"uri": image.uri}) for image in images[: max(1, len(images) - 1)]]


class _ConstantEnricher:
    """Returns the same enrichment for each image."""

    version = "1"

    def __init__(self, enrichment: Enrichment) -> None:
        self._enrichment = enrichment

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [self._enrichment for _ in images]


def read_fields(results: Sequence[Enrichment | str]) -> list[Mapping[str, object] | None]:
    """Return the fields of each image, None for a failed one."""
    return [None if isinstance(result, str) else dict(result.fields) for result in results]


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("blur", "blur", ()),
        ("blur:", "blur", ()),
        ("blur:a=1", "blur", (("a", "1"),)),
        ("blur:a=1,b=x y", "blur", (("a", "1"), ("b", "x y"))),
        ("blur:a=", "blur", (("a", ""),)),
        ("blur:a=1=2", "blur", (("a", "1=2"),)),
        ("sink:folder=C:/x", "sink", (("folder", "C:/x"),)),
    ],
)
def test_spec_has_name_and_options(text: str, name: str, options: tuple[tuple[str, str], ...]) -> None:
    assert EnricherSpec.parse(text) == EnricherSpec(name, options)


@pytest.mark.parametrize("text", ["", ":a=1", "blur:a", "blur:=1", "blur:a=1,b"])
def test_an_invalid_spec_is_a_usage_error(text: str) -> None:
    with expect_error("invalid-plugin-options", UsageError):
        EnricherSpec.parse(text)


def test_unknown_enricher_lists_known_ones() -> None:
    with expect_error("unknown-enricher", UsageError) as caught:
        EnricherSpec("no-such-enricher").load_kind()
    assert "no-such-enricher" in caught.value.message
    assert "filename" in caught.value.remedy


def test_built_in_enricher_is_an_entry_point() -> None:
    enricher = get_enricher(EnricherSpec.parse("filename:field=name"))
    [result] = enricher.enrich([build_input("file:///holiday/redBus_2.jpg")])
    assert result.fields == {"name": "red Bus 2"}
    assert get_enricher(EnricherSpec.parse("filename:field=name")) is enricher
    with expect_error("unknown-enricher-option", UsageError) as caught:
        get_enricher(EnricherSpec.parse("filename:color=red"))
    assert "color" in caught.value.message


def test_failing_images_affect_no_others() -> None:
    enricher = _LengthEnricher()
    results = run_enricher(enricher, "lengths", [build_input(uri) for uri in ("a", "bad", "ccc")])
    assert read_fields(results) == [{"length": 1}, None, {"length": 3}]
    assert all(fact in str(results[1]) for fact in ("lengths", "ValueError", "no such picture"))
    assert enricher.batch_sizes == [3, 1, 1, 1]


def test_a_batch_without_failures_is_one_call() -> None:
    enricher = _LengthEnricher()
    assert read_fields(run_enricher(enricher, "lengths", [build_input("a"), build_input("bb")])) == [{"length": 1}, {"length": 2}]
    assert enricher.batch_sizes == [2]


def test_wrong_counts_are_run_again_alone() -> None:
    results = run_enricher(_IncompleteEnricher(), "forgets", [build_input(uri) for uri in ("a", "b", "c")])
    assert read_fields(results) == [{"uri": "a"}, {"uri": "b"}, {"uri": "c"}]


@pytest.mark.parametrize("shape", [(2, 4, 3), (4, 4)], ids=["another size", "no colors"])
def test_pixels_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    enricher = _ConstantEnricher(Enrichment(pixels_HWC=np.zeros(shape, np.uint8)))
    [result] = run_enricher(enricher, "crop", [build_input("a")])
    assert isinstance(result, str)
    assert all(fact in result for fact in ("crop", "(4, 4, 3)"))


def test_pixels_of_the_same_shape_pass() -> None:
    pixels_HWC = np.full((4, 4, 3), 7, np.uint8)
    [result] = run_enricher(_ConstantEnricher(Enrichment(pixels_HWC=pixels_HWC)), "paint", [build_input("a")])
    assert isinstance(result, Enrichment)
    assert result.pixels_HWC is pixels_HWC
