"""XMP sidecars: the words of images as keywords in files next to them, which photo managers read.

A sidecar of `a.jpg` is `a.jpg.xmp`. One that another program wrote is never changed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from xml.sax.saxutils import escape

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABELS_FIELD, parse_token_vector
from stair_es.cluster.documents.read import paginate_hits
from stair_es.model.vocabularies.readable import CONTINUATION_PREFIX
from stair_es.sources.io.uris import from_file_uri, get_scheme, split_page_uri
from stair_es.taught_words import TAUGHT_PREFIX
from stair_es.types import ProgressCallback

CREATOR = "stair-es"
_SUFFIX = ".xmp"
_PAGE_SIZE = 500
_MAX_SIDECAR_BYTES = 1 << 20
_MARK = f'xmp:CreatorTool="{CREATOR}"'.encode()
_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmp:CreatorTool="{creator}">
   <dc:subject>
    <rdf:Bag>
{items}
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""

SidecarKind: TypeAlias = Literal["written", "unchanged", "kept", "without", "skipped", "failed"]
"""`kept`: another program's; `without`: the image has no such word; `skipped`: not a local file."""


@dataclass(frozen=True, kw_only=True)
class SidecarOptions:
    """What is written, and where."""

    min_weight: float = 0.25
    max_words: int = 10
    labels: bool = False
    """Whether labels from elsewhere are written, too."""
    prefix: str = ""
    """Begins each keyword, to tell them from those of people."""
    folder: Path | None = None
    """Where the sidecars go, with the folders of the images below it; next to the images by default."""
    dry_run: bool = False


class SidecarOutcome(NamedTuple):
    """What became of the sidecar of an image."""

    uri: str
    kind: SidecarKind
    reason: str = ""


def write_sidecars(
    cluster: Cluster, index: str, options: SidecarOptions, progress: ProgressCallback = lambda done, total: None
) -> Iterator[SidecarOutcome]:
    """Write the sidecars of all images of an index, and yield an outcome for each.

    Raises:
        ClusterError: If the cluster fails.
    """
    done = 0
    body = {"query": {"exists": {"field": "uri"}}, "_source": ["uri", "tokens", LABELS_FIELD]}
    for hits in paginate_hits(cluster, index, body, size=_PAGE_SIZE):
        for hit in hits:
            yield _write_sidecar(hit["_source"], options)
        done += len(hits)
        progress(done, 0)


def select_keywords(source: dict[str, Any], options: SidecarOptions) -> list[str]:
    """Select the keywords of a document: its heaviest readable words, and its labels."""
    words = [
        token.removeprefix(TAUGHT_PREFIX)
        for token, weight in parse_token_vector(source.get("tokens"))
        if weight >= options.min_weight and _is_word(token)
    ][: options.max_words]
    labels = parse_token_vector(source.get(LABELS_FIELD)).tokens if options.labels else ()
    return [options.prefix + keyword for keyword in dict.fromkeys((*words, *labels))]


def build_sidecar(keywords: Sequence[str]) -> bytes:
    """Build an XMP packet with keywords in `dc:subject` (XMP specification, parts 1 and 3)."""
    items = "\n".join(f"     <rdf:li>{escape(_drop_controls(keyword))}</rdf:li>" for keyword in keywords)
    return _TEMPLATE.format(creator=CREATOR, items=items).encode()


def _write_sidecar(source: dict[str, Any], options: SidecarOptions) -> SidecarOutcome:
    uri = str(source["uri"])
    document, page = split_page_uri(uri)
    if get_scheme(uri) != "file" or page is not None:
        return SidecarOutcome(uri, "skipped")
    keywords = select_keywords(source, options)
    try:
        path = _choose_path(from_file_uri(document), options.folder)
        stored = _read_sidecar(path)
        if stored is not None and _MARK not in stored:
            return SidecarOutcome(uri, "kept")
        if not keywords:
            return SidecarOutcome(uri, "without")
        data = build_sidecar(keywords)
        if stored == data:
            return SidecarOutcome(uri, "unchanged")
        if not options.dry_run:
            _replace_file(path, data, make_folders=options.folder is not None)
    except (OSError, ValueError) as error:  # a NUL character
        return SidecarOutcome(uri, "failed", (isinstance(error, OSError) and error.strerror) or str(error))
    return SidecarOutcome(uri, "written")


def _choose_path(image: Path, folder: Path | None) -> Path:
    path = image.with_name(image.name + _SUFFIX)
    return path if folder is None else folder / path.relative_to(path.anchor)


def _read_sidecar(path: Path) -> bytes | None:
    """Read the beginning of a sidecar; None if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SIDECAR_BYTES)
    except FileNotFoundError:
        return None


def _replace_file(path: Path, data: bytes, *, make_folders: bool) -> None:
    """Write a file whole or not at all."""
    if make_folders:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _is_word(token: str) -> bool:
    return not token.startswith(CONTINUATION_PREFIX) and any(map(str.isalpha, token))


def _drop_controls(text: str) -> str:
    """Drop what XML 1.0 can't have."""
    return "".join(char for char in text if char in "\t\n\r" or (char >= " " and char not in "\ufffe\uffff"))
