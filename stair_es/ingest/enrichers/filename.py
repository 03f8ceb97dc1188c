"""The built-in enricher `filename`: the words of an image's file name become a searchable field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput, Enrichment

_BREAKS = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")


class _FilenameEnricher:
    def __init__(self, field: str) -> None:
        self._field = field
        self.version = f"1:{field}"

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [Enrichment(fields={self._field: split_file_name(image.uri)}) for image in images]


def split_file_name(uri: str) -> str:
    """Return the words of a URI's last part, without its suffix: `red bus 2` for `file:///a/redBus_2.jpg`."""
    stem = PurePosixPath(unquote(urlsplit(uri).path)).stem
    return " ".join(part for part in _BREAKS.split(stem) if part)


class FilenameKind:
    """The enricher kind `filename`."""

    name = "filename"
    description = "the words of the file name as a text field (option: field=NAME, by default `filename`)"

    def build(self, options: Mapping[str, str]) -> _FilenameEnricher:
        """Build the enricher; the option `field` names the target field."""
        unknown = set(options) - {"field"}
        if unknown:
            raise UsageError(
                f"enricher 'filename' has no option {', '.join(sorted(unknown))}",
                "Its only option is: field.",
                code="unknown-enricher-option",
            )
        return _FilenameEnricher(options.get("field", "filename"))


KIND = FilenameKind()
