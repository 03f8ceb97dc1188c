"""`stair-es forget`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, ClusterError, IngestError, OptionConflict, UsageError
from stair_es.types import is_utf8

from ...options import config_file, shared
from ...options.connections import ConnectionArguments, open_cluster
from ...output.bars import escape_control
from ...output.console import emit_json, print_error, stdout

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.ingest.sinks.forgotten import ForgetManager, ForgottenImage

MAX_REFERENCE_BYTES = 64 * 1024
"""A longer line of a list is no URI."""
_POSITION = re.compile(r"(.*?)(#(?:page|row|line)=\d+)?", re.DOTALL)
_ID = re.compile(r"[0-9a-f]{32}")

_References = Annotated[
    list[str] | None, typer.Argument(metavar="IMAGE", help="URIs or paths of images, as `search` prints them; - for stdin.")
]
_SameContent = Annotated[bool, typer.Option("--same-content", help="Forget images with the same content at other URIs, too.")]
_FromFile = Annotated[
    Path | None,
    typer.Option("--from-file", metavar="FILE", help="File with one URI or path per line.", exists=True, dir_okay=False),
]
_DeadLetters = Annotated[
    list[Path] | None,
    typer.Option(
        "--dead-letters",
        metavar="FILE",
        help="Dead-letter file to remove the images from, in addition to those in STAIR_ES_HOME/dead-letters (repeatable).",
        exists=True,
        dir_okay=False,
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, without changing anything.")]
_Undo = Annotated[bool, typer.Option("--undo", help="Take the images off the list: the next ingest takes them in again.")]
_Again = Annotated[
    bool, typer.Option("--again", help="Remove all images on the list again, for example after a snapshot was restored.")
]


def forget_command(
    references: _References = None,
    from_file: _FromFile = None,
    same_content: _SameContent = False,
    dead_letters: _DeadLetters = None,
    dry_run: _DryRun = False,
    undo: _Undo = False,
    again: _Again = False,
    as_json: shared.JsonOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
) -> None:
    """Erase images from an index, and keep later ingests from taking them in again.

    **Examples**

    ```text
    stair-es forget photos/tabby-cat.jpg --dry-run
    stair-es forget https://example.com/a.jpg s3://bucket/b.jpg --index photos --json
    stair-es forget scans/letter.pdf
    stair-es forget --from-file uris.txt --same-content
    stair-es forget photos/tabby-cat.jpg --undo
    stair-es forget --again
    ```

    The documents are removed from the index, its retired indices and unfinished builds, its token index, and the dead letters of
    this machine. The URI of a document stands for all of its pages. The receipt names what can't be reached, such as snapshots.
    The file itself isn't touched. If the command is killed, run it again.

    An image that isn't in the index is put on the list all the same.

    **Exit codes**: 0 if nothing of the images is left in the indices, also if nothing was stored; 3 if dead letters could not be
    removed; 1 if the command failed; 2 for a usage error.
    """
    from stair_es.ingest.sinks.forgotten import ForgetManager

    if sum((dry_run or same_content, undo, again)) > 1:
        raise OptionConflict("--undo, --again, and --dry-run or --same-content are mutually exclusive", "Leave all but one out.")
    uris = list(dict.fromkeys(map(resolve_reference, _read_references(references or [], from_file))))
    if bool(uris) == again:
        raise UsageError(
            "no image given" if not again else "--again is for all images on the list",
            "Give a URI or a path: stair-es forget photos/cat.jpg" if not again else "Leave the images out.",
            code="images-or-again",
        )
    with open_cluster(connection) as cluster:
        manager = ForgetManager(cluster, index)
        if undo:
            _print_restored(manager.restore(uris), as_json=as_json)
        elif again:
            _print_repeated(manager.repeat(), as_json=as_json)
        else:
            _forget(manager, uris, dead_letters or [], same_content=same_content, dry_run=dry_run, as_json=as_json)


def resolve_reference(reference: str) -> str:
    """Return the URI of an image that is named by a URI or a path; the file may be gone.

    Raises:
        UsageError: If it is an id, which can't be kept as a URI, or no text that a URI may have.
    """
    from stair_es.sources.io.uris import STDIN_URI, find_file, from_file_uri, to_file_uri

    if not is_utf8(reference) or "\0" in reference or len(reference.encode()) > MAX_REFERENCE_BYTES:
        raise UsageError(
            f"not a URI or a path: {reference[:100]!r}",
            f"It must be valid Unicode of at most {MAX_REFERENCE_BYTES:,} bytes.",
            code="invalid-image-reference",
        )
    if _ID.fullmatch(reference) and find_file(reference) is None:
        raise UsageError(
            f"{reference!r} is the id of a document",
            f"Give its URI, which this prints: stair-es inspect {reference}",
            code="id-instead-of-uri",
        )
    if "://" not in reference.partition("#")[0] and not reference.startswith(STDIN_URI):
        found = _POSITION.fullmatch(reference)
        path, position = (found[1], found[2] or "") if found and find_file(reference) is None else (reference, "")
        return to_file_uri(path) + position
    if reference.startswith("file:") and "#" not in reference:
        return to_file_uri(from_file_uri(reference))
    return reference


def _read_references(references: Sequence[str], from_file: Path | None) -> Iterator[str]:
    for reference in references:
        yield from _read_lines(sys.stdin.buffer) if reference == "-" else [reference]
    if from_file:
        with from_file.open("rb") as file:
            yield from _read_lines(file)


def _read_lines(file: Any) -> Iterator[str]:  # noqa: ANN401  a binary file
    from stair_es.sources.io.lines import read_numbered_lines

    for number, line in read_numbered_lines(file, MAX_REFERENCE_BYTES):
        try:
            yield (line or b"\xff").decode().strip()
        except UnicodeDecodeError:
            raise UsageError(
                f"line {number} of the list is longer than {MAX_REFERENCE_BYTES:,} bytes, or not UTF-8",
                "Write one URI or path per line.",
                code="invalid-image-reference",
            ) from None


def _forget(
    manager: ForgetManager, uris: list[str], files: Sequence[Path], *, same_content: bool, dry_run: bool, as_json: bool
) -> None:
    images = manager.forget(uris, same_content=same_content, dry_run=dry_run)
    letters, failures = ({}, []) if dry_run else _remove_letters(manager.alias, [image.uri for image in images], files)
    receipt = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cluster": manager.cluster.connection.safe_url,
        "index": manager.alias,
        "dry_run": dry_run,
        "images": [asdict(image) for image in images],
        "documents": sum(count for image in images for count in image.documents.values()),
        "dead_letters": letters,
        "dead_letter_failures": [f"{error.message}. {error.remedy}" for error in failures],
        "not_reached": list_unreached(
            _list_repositories(manager.cluster), sorted({name for image in images for name in image.documents})
        ),
    }
    if as_json:
        emit_json(receipt)
    else:
        _print_receipt(receipt, images)
    for error in failures:
        print_error(error)
    if failures:
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _remove_letters(alias: str, uris: Iterable[str], files: Sequence[Path]) -> tuple[dict[str, int], list[IngestError]]:
    """Remove the images from the dead letters of this machine; return the number of letters by file, and what failed."""
    from stair_es.config.settings import resolve_settings
    from stair_es.ingest.accounting.dead_letters import DeadLetters, list_dead_letter_files
    from stair_es.ingest.sinks.base import get_parent_uri

    home, names = resolve_settings(config_file.get_config().settings).home, frozenset(uris)
    removed, failures = dict[str, int](), list[IngestError]()
    for path in dict.fromkeys([*list_dead_letter_files(alias, home), *files]):
        try:
            count = DeadLetters(path, alias, home).remove_images(lambda uri: not names.isdisjoint((uri, get_parent_uri(uri))))
        except IngestError as error:
            failures.append(error)
        else:
            removed |= {str(path): count} if count else {}
    return removed, failures


def _list_repositories(cluster: Cluster) -> list[str] | None:
    """List the cluster's repositories for snapshots; None if the user may not read them."""
    try:
        return sorted(cluster.call(cluster.client.snapshot.get_repository))
    except ClusterError:
        return None


def list_unreached(repositories: Sequence[str] | None, indices: Sequence[str]) -> list[dict[str, str]]:
    """List what a receipt has to say about other places, each with what to do there. Pure."""
    if repositories is None:
        snapshots = "this user may not read the cluster's repositories for snapshots"
    else:
        snapshots = (
            f"repositories of this cluster: {', '.join(repositories)}" if repositories else "this cluster has no repository"
        )
    pattern = ",".join(indices) or "INDEX"
    places = (
        (
            "snapshots",
            snapshots,
            "Delete the snapshots from before. After a restore without the list of forgotten images (ALIAS.forgotten), run"
            " `stair-es forget --again`; if the list was restored or lost, run this command again first.",
        ),
        (
            "deleted documents on the disks of the cluster",
            "they stay in the files of the index until its segments are merged",
            f'PUT /{pattern}/_settings {{"index.merge.policy.expunge_deletes_allowed": 0}}, then POST'
            f" /{pattern}/_forcemerge?only_expunge_deletes=true&flush=true, then set it to null",
        ),
        ("dead letters on other machines", "files of each machine that ingests", "Run this command there, too."),
        ("the file itself", "stair-es never changes an image's file or its row in a table", "Delete it where it is."),
        (
            "other indices, copies and logs",
            "other aliases and clusters, backups, logs of proxies",
            "Run this command for each alias.",
        ),
        (
            "pages that are open or cached",
            "`stair-es serve` keeps thumbnails in its memory, and browsers in their caches",
            "Restart `stair-es serve`, and clear the caches of browsers.",
        ),
        (
            "files for training, and taught words",
            "caption files, feature caches and checkpoints; a taught word keeps the id of each marked image",
            "Delete them or train again; teach the word again without the image.",
        ),
    )
    return [{"place": place, "detail": detail, "remedy": remedy} for place, detail, remedy in places]


def _print_receipt(receipt: dict[str, Any], images: Sequence[ForgottenImage]) -> None:
    verb = "would be removed" if receipt["dry_run"] else "removed"
    total = _count(receipt["documents"], "document")
    _print_line(f"{receipt['at']}: {total} {verb} from {receipt['index']} on {receipt['cluster']}", "bold")
    for image in images:
        _print_line(image.uri)
        for index, count in image.documents.items():
            _print_line(f"  {_count(count, 'document')} {verb} from {index}")
        if not image.documents:
            _print_line("  nothing was stored", "yellow")
        if image.copy_count:
            others = _count(image.copy_count, "other image")
            _print_line(f"  not removed (see --same-content): {others} with the same content", "yellow")
            for uri in image.copies:
                _print_line(f"    {uri}", "yellow")
    for path, count in receipt["dead_letters"].items():
        _print_line(f"{_count(count, 'dead letter')} removed from {path}")
    if not receipt["dry_run"]:
        _print_line("A search for these URIs finds nothing, and ingests leave them out (--undo takes them off the list).")
    _print_line("Not reached:", "bold")
    for place in receipt["not_reached"]:
        _print_line(f"  {place['place']}: {place['detail']}")
        _print_line(f"    {place['remedy']}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _print_restored(restored: dict[str, bool], *, as_json: bool) -> None:
    if as_json:
        emit_json({"restored": [{"uri": uri, "was_listed": was_listed} for uri, was_listed in restored.items()]})
        return
    for uri, was_listed in restored.items():
        _print_line(f"{uri}: {'the next ingest takes it in again' if was_listed else 'was not on the list'}")


def _print_repeated(counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        emit_json({"documents": counts})
        return
    for index, count in counts.items():
        _print_line(f"{_count(count, 'document')} removed from {index}")


def _print_line(text: str, style: str = "") -> None:
    stdout.print(escape_control(text), markup=False, emoji=False, style=style)
