"""Enrichers by their specs, and one bad image among good ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import Enricher, EnricherInput, EnricherSpec, Enrichment, get_enricher, run_enricher
from stair_es.types import Json


def _candidate(uri: str, **fields: Json) -> EnricherInput:
    pixels_HWC = np.zeros((4, 4, 3), np.uint8)
    return EnricherInput(uri=uri, data=b"", pixels_HWC=pixels_HWC, box=(0, 0, 4, 4), thumbnail=None, fields=fields)


class _LengthEnricher:
    """Answers with the length of the URI; takes down any batch with an image called `bad`."""

    version = "1"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        self.calls.append(len(images))
        if any(image.uri == "bad" for image in images):
            raise ValueError("no such picture")
        return [Enrichment(fields={"length": len(image.uri)}) for image in images]


class _IncompleteEnricher:
    """One enrichment too few in a batch, the right number for an image alone."""

    version = "1"

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [Enrichment(fields={"uri": image.uri}) for image in images[: max(1, len(images) - 1)]]


class _ConstantEnricher:
    """The same enrichment for each image."""

    version = "1"

    def __init__(self, answer: Enrichment) -> None:
        self._answer = answer

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [self._answer for _ in images]


def _fields(results: Sequence[Enrichment | str]) -> list[object]:
    return [result if isinstance(result, str) else dict(result.fields) for result in results]


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
    with pytest.raises(UsageError, match="not the name of an enricher"):
        EnricherSpec.parse(text)


def test_unknown_enricher_lists_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        EnricherSpec("no-such-enricher").load_kind()
    assert "no-such-enricher" in caught.value.message
    assert "filename" in caught.value.remedy


def test_built_in_enricher_is_an_entry_point() -> None:
    enricher = get_enricher(EnricherSpec.parse("filename:field=name"))
    [result] = enricher.enrich([_candidate("file:///holiday/redBus_2.jpg")])
    assert result.fields == {"name": "red Bus 2"}
    assert get_enricher(EnricherSpec.parse("filename:field=name")) is enricher
    with pytest.raises(UsageError, match="color"):
        get_enricher(EnricherSpec.parse("filename:color=red"))


def test_failing_images_affect_no_others() -> None:
    enricher = _LengthEnricher()
    results = run_enricher(enricher, "lengths", [_candidate(uri) for uri in ("a", "bad", "ccc")])
    assert _fields(results) == [{"length": 1}, "lengths: ValueError: no such picture", {"length": 3}]
    assert enricher.calls == [3, 1, 1, 1]


def test_a_batch_without_trouble_is_one_call() -> None:
    enricher = _LengthEnricher()
    assert _fields(run_enricher(enricher, "lengths", [_candidate("a"), _candidate("bb")])) == [{"length": 1}, {"length": 2}]
    assert enricher.calls == [2]


def test_wrong_counts_are_run_again_alone() -> None:
    results = run_enricher(_IncompleteEnricher(), "forgets", [_candidate(uri) for uri in ("a", "b", "c")])
    assert _fields(results) == [{"uri": "a"}, {"uri": "b"}, {"uri": "c"}]


@pytest.mark.parametrize(
    "enricher",
    [
        _ConstantEnricher(Enrichment(pixels_HWC=np.zeros((2, 4, 3), np.uint8))),
        _ConstantEnricher(Enrichment(pixels_HWC=np.zeros((4, 4), np.uint8))),
    ],
    ids=["another size", "no colors"],
)
def test_pixels_of_another_shape_are_rejected(enricher: Enricher) -> None:
    [result] = run_enricher(enricher, "crop", [_candidate("a")])
    assert isinstance(result, str)
    assert "crop" in result
    assert "(4, 4, 3)" in result


def test_pixels_of_the_same_shape_pass() -> None:
    pixels_HWC = np.full((4, 4, 3), 7, np.uint8)
    [result] = run_enricher(_ConstantEnricher(Enrichment(pixels_HWC=pixels_HWC)), "paint", [_candidate("a")])
    assert isinstance(result, Enrichment)
    assert result.pixels_HWC is pixels_HWC
