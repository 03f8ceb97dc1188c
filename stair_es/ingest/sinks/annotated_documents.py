"""Documents of other programs: where their image is, which of their fields are ours, and how these are written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson

from stair_es.cluster.bulk.actions import SerializedAction
from stair_es.cluster.documents.document import ANNOTATION_FIELD
from stair_es.errors import UsageError
from stair_es.sources.http.urls import find_credentials_error
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.resolve import ResolvedImage, is_inline_image, resolve_image_reference
from stair_es.sources.io.uris import from_file_uri, get_scheme

REQUIRED_FIELDS = ("tokens", "top_tokens", ANNOTATION_FIELD)
OPTIONAL_FIELDS = ("uri", "sha256", "perceptual_hash", "colors", "thumbnail")
"""Fields for links, copies, conditions on colors and the page, written if the mapping doesn't have them."""
OWN_MAPPING: Mapping[str, Any] = {
    "properties": {
        "model": {"type": "keyword"},
        "annotated_at": {"type": "date"},
        **{
            name: {"type": "keyword", "index": False, "doc_values": False}
            for name in ("image", "sha256", "version", "fingerprint")
        },
    }
}
_WEB = ("http", "https")
_UNKNOWN_VERSION = "unknown"
_WRITE = """
if (!(ctx._source.stair_es instanceof Map)) {
  for (def name : params.names) {
    if (ctx._source.containsKey(name)) { throw new IllegalArgumentException("the document has its own field " + name) }
  }
}
for (def name : params.absent) { ctx._source.remove(name) }
ctx._source.putAll(params.fields)
"""
"""A partial document would be merged into the old one, and keep tokens of an earlier image."""
_WRITE_VERSION = (
    "if (ctx._source.stair_es instanceof Map) { ctx._source.stair_es.version = params.version } else { ctx.op = 'none' }"
)
_CLEAR = """
if (!(ctx._source.stair_es instanceof Map)) { ctx.op = 'none' }
else { for (def name : params.absent) { ctx._source.remove(name) } }
"""


@dataclass(frozen=True)
class ImageBase:
    """Where relative paths begin, and the only place from which files and object stores are read: an index is data of others."""

    folder: Path | None = None
    url: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageBase:
        """Parse a folder or a URL; neither if it is empty.

        Raises:
            UsageError: If a URL contains a login, which would be stored with each failed image.
        """
        scheme = get_scheme(text)
        if scheme in _WEB and (problem := find_credentials_error(text)):
            raise UsageError(problem, "Leave the login out of --image-base.", code="credentials-in-url")
        if scheme not in ("", "file"):
            return cls(url=text.rstrip("/"))
        return cls(folder=(from_file_uri(text) if scheme else Path(text)).expanduser().resolve()) if text else cls()

    def locate(self, value: str) -> ResolvedImage | str:
        """Locate the image that a value names or holds, or return why that isn't possible."""
        try:
            return self._locate(value.strip())
        except (OSError, ValueError, RuntimeError) as error:
            return f"not an image reference: {error}"

    def _locate(self, text: str) -> ResolvedImage | str:
        if is_inline_image(text):
            return resolve_image_reference(text, "")
        if text.startswith("//") and self.folder is None:
            text = f"{get_scheme(self.url) if self._is_web else 'https'}:{text}"
        scheme = get_scheme(text)
        if not scheme and self.url:
            text = urljoin(f"{self.url}/", text) if self._is_web else f"{self.url}/{text.lstrip('/')}"
            scheme = get_scheme(text)
        if scheme in _WEB:
            return resolve_image_reference(text, "")
        if scheme in ("", "file"):
            return self._locate_file(text)
        is_below = bool(self.url) and text.startswith(f"{self.url}/") and ".." not in text.split("/")
        return resolve_image_reference(text, "") if is_below else f"{scheme}:// is read only below --image-base URL"

    def _locate_file(self, text: str) -> ResolvedImage | str:
        resolved = resolve_image_reference(text, self.folder.as_uri()) if self.folder else ""
        if isinstance(resolved, ResolvedImage) and isinstance(resolved.locator, FileLocator) and self.folder:
            if from_file_uri(resolved.locator.uri).resolve().is_relative_to(self.folder):
                return resolved
            resolved = ""
        return resolved or "a local path: files are read only below --image-base FOLDER"

    @property
    def _is_web(self) -> bool:
        return get_scheme(self.url) in _WEB


def choose_fields(mapping: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """Choose the fields of documents that are ours, without `ANNOTATION_FIELD`: those of an earlier run, and those that are free.

    Where documents may have fields that aren't mapped, optional ones aren't free: our mapping could reject the other program's
    documents from then on.

    Raises:
        UsageError: If a required one belongs to the other program, or token weights were written in another way.
    """
    ours = meta.get("annotates", {}).get("fields", [])
    properties = {*mapping.get("properties", {}), *mapping.get("runtime", {})}
    optional = OPTIONAL_FIELDS if str(mapping.get("dynamic", True)).lower() in ("true", "strict") else ()
    if taken := [name for name in REQUIRED_FIELDS if name in properties and not ours]:
        problem = "the documents already have token weights of another program" if meta else "the index has its own"
        raise UsageError(
            f"{problem} in the fields {', '.join(taken)}",
            "Ingest the images into an index of their own: stair-es ingest",
            code="fields-taken",
        )
    free = {name for name in (*REQUIRED_FIELDS, *optional) if name not in properties}.union(ours) - {ANNOTATION_FIELD}
    return [name for name in (*REQUIRED_FIELDS, *OPTIONAL_FIELDS) if name in free]


def build_annotate_action(id_: str, document: Mapping[str, Any], names: Sequence[str]) -> SerializedAction:
    """Build an `update` action that replaces the fields `names` of a document by those of a `build_document`."""
    about = dict(document[ANNOTATION_FIELD])
    routing = about.pop("routing", None)
    values = {**document, "uri": about.pop("uri", document["uri"])}
    own = {
        **about,
        **{name: document[name] for name in ("model", "sha256", "fingerprint")},
        "version": document.get("version") or _UNKNOWN_VERSION,
        "annotated_at": document["ingested_at"],
    }
    fields = {name: values[name] for name in names if name in values}
    absent = [name for name in names if name not in values]
    params = {"fields": {**fields, ANNOTATION_FIELD: own}, "absent": absent, "names": [*names, ANNOTATION_FIELD]}
    return _build_script_action(id_, _WRITE, params, routing)


def build_version_action(id_: str, change: Mapping[str, Any]) -> SerializedAction:
    """Build an `update` action for an image that has another version, but is the same."""
    return _build_script_action(id_, _WRITE_VERSION, {"version": change["version"]}, change[ANNOTATION_FIELD].get("routing"))


def build_clear_action(id_: str, document: Mapping[str, Any], names: Sequence[str]) -> SerializedAction:
    """Build an `update` action that removes our fields from a document."""
    return _build_script_action(id_, _CLEAR, {"absent": [*names, ANNOTATION_FIELD]}, document.get("routing"))


def _build_script_action(id_: str, source: str, params: Mapping[str, Any], routing: str | None) -> SerializedAction:
    action = {"update": {"_id": id_, "retry_on_conflict": 3, **({"routing": routing} if routing else {})}}
    script = {"lang": "painless", "source": source, "params": params}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"script": script}) + b"\n"
