"""What a dashboard is built for: an index, and what is known of it. Values only."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from stair_es.cluster.identity import check_alias
from stair_es.cluster.words_index import words_alias

Product = Literal["opensearch-dashboards", "kibana"]
TimeField = Literal["taken_at", "ingested_at"]
Interval = Literal["d", "M", "y"]

LABELS: dict[Product, str] = {"opensearch-dashboards": "OpenSearch Dashboards", "kibana": "Kibana"}
"""For people."""

_LONGEST_SLUG = 40


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """An index of images, as far as its dashboard depends on it.

    Raises:
        UsageError: On construction, for what is no name of an index.
    """

    name: str
    """The alias that people search."""
    companion: bool = True
    """Whether there is `<name>-words`, the index with a document for each image and word."""
    companion_word: Literal["top_tokens", "token"] = "top_tokens"
    """The companion's field of words. With `top_tokens`, the name that the main index uses, one filter reaches both."""
    time_field: TimeField = "ingested_at"
    """What `Words over time` goes by."""
    interval: Interval = "M"
    """Width of its bars."""
    captions: bool = False
    """Whether documents have a `caption`."""
    thumbnails: bool = True
    """Whether documents have a `thumbnail`."""
    colours: bool = True
    """Whether documents have `colours`, those of the companion too."""

    def __post_init__(self) -> None:
        check_alias(self.name)  # no pattern either: the companion and the ids of the objects are named after it

    @property
    def words_name(self) -> str:
        """The companion's alias."""
        return words_alias(self.name)

    def id(self, kind: str) -> str:
        """The id of an object: the same each time, and another one for every other index."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name)[:_LONGEST_SLUG].strip("-")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]  # two names may have the same slug
        return "-".join(part for part in ("stair", slug, digest, kind) if part)

    def title(self, text: str) -> str:
        """What an object is called in lists, where those of several indices stand side by side."""
        return f"{text} [{self.name}]"
