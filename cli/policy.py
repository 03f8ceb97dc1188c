"""`stair-es policy`: token policies of an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX

from . import connections, options
from .bars import visible
from .output import emit_json, note, stdout
from .policy_report import counts_json, print_counts, print_plan, print_policy

if TYPE_CHECKING:
    from stair_es.cluster.steer import Counts, Steering
    from stair_es.cluster.steer_plan import Change

SOME_FAILED = 3
"""Exit code of a run that completed, but failed for some documents."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Change the words of an index: mute, cap, rename and merge them, with a preview and a rollback.

A policy is a JSON file: `{"stair_es_policy": 1, "mute": ["egyptian"], "cap": {"dog": 0.5}, "rename": {"automobile": "car"},
"merge": {"dog": ["dogs", "puppy"]}}`. Use `stair-es ingest --policy FILE` for a new index.""",
)
_File = typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The policy, as JSON.")
_Rate = Annotated[
    float,
    typer.Option(
        "--requests-per-second", min=0.0, help="Maximum documents per second, to limit the load of the cluster; 0 for no limit."
    ),
]
_Slices = Annotated[int, typer.Option("--slices", min=0, max=1024, help="Number of parallel slices; 0 for one per shard.")]


@app.command(name="show")
@connections.connected
def show(index: options.Index = DEFAULT_INDEX, url: options.Url = None, as_json: options.Json = False) -> None:
    """Print the policy of an index, how many documents it changed, and whether it was applied to all of them.

    **Example**: `stair-es policy show --index photos`
    """
    with _steering(index, url) as steering:
        places = steering.places()
        facts = [
            {
                "index": place.name,
                **(place.state.to_json() or {"digest": None}),
                "documents": steering.carrying(place),
                "emptied": steering.emptied(place),
            }
            for place in places
        ]
        states = [place.state for place in places]
    if as_json:
        emit_json(facts)
        return
    for fact, state in zip(facts, states, strict=True):
        has = f"policy {visible(state.policy.label)}" if state.policy else "no policy"
        stdout.print(f"{fact['index']}: {has}", markup=False, emoji=False, style="bold")
        if state.policy:
            print_policy(state.policy)
        for digest, count in fact["documents"].items():
            stdout.print(f"{count:,} documents changed by {visible(digest)}", markup=False, emoji=False)
        if fact["emptied"]:
            stdout.print(f"{fact['emptied']:,} documents have no word left", markup=False)
        if state.under_way:
            stdout.print(f"{state.under_way} did not complete: run it again", style="yellow", markup=False)


@app.command(name="plan")
@connections.connected
def plan(
    file: Annotated[Path, _File],
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Number of documents to show before and after: those that change most.")
    ] = 3,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", dir_okay=False, help="JSONL file for id, URI and rules of each document that would change."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Plan a policy: count the documents that each rule would change, show those that change most, and change nothing.

    Reads the words of all documents that the policy may change.

    **Examples**

    `stair-es policy plan no-breeds.json --index photos`

    `stair-es policy plan no-breeds.json --index photos --ids changing.jsonl --samples 10`
    """
    from stair_es.cluster.steer_plan import Change, Plan, add_sample, changes
    from stair_es.policy import read

    from .progress import show_document_progress

    policy, counted, shown = read(file), Plan(), list[Change]()
    opened = ids.open("w", encoding="utf-8") if ids else nullcontext()
    with _steering(index, url) as steering, show_document_progress() as progress, opened as out:
        place = steering.places()[0]
        for change in changes(steering.client, steering.connection, place, policy, counted, progress):
            add_sample(shown, change, samples)
            if out:
                _write_id(out, change)
    if as_json:
        emit_json(
            {
                "index": place.name,
                "policy": policy.digest,
                "examined": counted.examined,
                "changed": counted.changed,
                "emptied": counted.emptied,
                "losing": counted.losing,
                "rules": {rule: counted.rules[rule] for rule in policy.rules},
                "samples": [{"id": c.id, "uri": c.uri, "words": c.words} for c in shown],
            }
        )
    else:
        print_plan(policy, counted, shown)


@app.command(name="apply")
@connections.connected
def apply(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help="The policy, as JSON. [default: the policy of the index]"
        ),
    ] = None,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    requests_per_second: _Rate = 0.0,
    slices: _Slices = 0,
    as_json: options.Json = False,
) -> None:
    """Apply a policy to the documents of an index, and to those that will be added.

    The update runs in the cluster: the original vector of each document is restored, then changed. Run it again after an
    interruption, or after a concurrent ingest: it resumes with what is missing.

    **Examples**

    `stair-es policy apply no-breeds.json --index photos`

    `stair-es policy apply --index photos --requests-per-second 500`

    **Exit code**: 0, 3 if some documents failed, 1 if the run failed, 2 on wrong usage.
    """
    from stair_es.policy import read

    policy = read(file) if file else None
    with _steering(index, url) as steering:
        _run(lambda *how: steering.apply(policy, *how), "applied", (requests_per_second, slices), as_json)


@app.command(name="rollback")
@connections.connected
def rollback(
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    requests_per_second: _Rate = 0.0,
    slices: _Slices = 0,
    as_json: options.Json = False,
) -> None:
    """Remove the policy, and restore the exact original vector of every document.

    **Example**: `stair-es policy rollback --index photos`

    **Exit code**: 0, 3 if some documents failed, 1 if the run failed, 2 on wrong usage.
    """
    with _steering(index, url) as steering:
        _run(steering.rollback, "rolled back", (requests_per_second, slices), as_json)


@contextmanager
def _steering(index: str, url: str | None) -> Iterator[Steering]:
    from stair_es.cluster.steer import Steering

    connection = connections.connection(url)
    with closing(connection.client()) as client:
        yield Steering(client, connection, index)


def _run(call: Callable[..., dict[str, Counts]], said: str, how: tuple[float, int], as_json: bool) -> None:
    from stair_es.cluster.steer_task import Speed

    from .progress import show_document_progress

    speed = Speed(requests_per_second=how[0] or -1.0, slices=how[1])
    with show_document_progress() as progress:
        done = call(speed, note, lambda now: progress(now.done, now.total))
    if as_json:
        emit_json(counts_json(done))
    else:
        print_counts(said, done)
    if any(counts.failed or (counts.words and counts.words.failed) for counts in done.values()):
        raise typer.Exit(SOME_FAILED)


def _write_id(out: IO[str], change: Change) -> None:
    import json

    out.write(json.dumps({"id": change.id, "uri": change.uri, "rules": change.rules}, ensure_ascii=False) + "\n")
