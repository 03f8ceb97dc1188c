"""`stair-es policy`: steer an index by words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX

from . import options
from .bars import visible
from .options import connected
from .output import emit_json, note, stdout
from .policy_report import counts_json, print_counts, print_plan, print_policy

if TYPE_CHECKING:
    from stair_es.cluster.steer import Counts, Steering
    from stair_es.cluster.steer_plan import Change

SOME_FAILED = 3
"""Exit code of a run that went through, but left some documents as they were."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Steer an index by words: mute, cap, rename and merge them, look first, and take it back.

A policy is a JSON file: `{"stair_es_policy": 1, "mute": ["egyptian"], "cap": {"dog": 0.5}, "rename": {"automobile": "car"},
"merge": {"dog": ["dogs", "puppy"]}}`. A new index gets it by `stair-es ingest --policy FILE`.""",
)
_File = typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The policy, as JSON.")
_Rate = Annotated[
    float,
    typer.Option("--requests-per-second", min=0.0, help="Documents a second at most, to spare a busy cluster; 0 for no limit."),
]
_Slices = Annotated[int, typer.Option("--slices", min=0, max=1024, help="Parts that go at once; 0 for one a shard.")]


@app.command(name="show")
@connected
def show(index: options.Index = DEFAULT_INDEX, url: options.Url = None, as_json: options.Json = False) -> None:
    """Say which policy an index has, how many documents it changed, and whether all of them have it.

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
            stdout.print(f"{fact['emptied']:,} documents without a word left", markup=False)
        if state.under_way:
            stdout.print(f"{state.under_way} has not ended: run it again", style="yellow", markup=False)


@app.command(name="plan")
@connected
def plan(
    file: Annotated[Path, _File],
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="How many documents to show before and after: those that change most.")
    ] = 3,
    ids: Annotated[
        Path | None, typer.Option("--ids", dir_okay=False, help="JSONL for the id, URI and rules of each document that changes.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say what a policy would change, and change nothing: how many documents by each rule, and those that change most.

    It reads the words of every document that the policy may change.

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
@connected
def apply(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help="The policy, as JSON; without it the one that the index has."
        ),
    ] = None,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    requests_per_second: _Rate = 0.0,
    slices: _Slices = 0,
    as_json: options.Json = False,
) -> None:
    """Give an index a policy: the documents that are there and those that come.

    The cluster changes them by itself; vectors are restored from what each document keeps, then steered anew. Run it again
    after an interruption, or after an ingest that ran meanwhile: it does what is missing.

    **Examples**

    `stair-es policy apply no-breeds.json --index photos`

    `stair-es policy apply --index photos --requests-per-second 500`

    **Exit code**: 0, 3 when some documents failed, 1 when the run failed, 2 on wrong usage.
    """
    from stair_es.policy import read

    policy = read(file) if file else None
    with _steering(index, url) as steering:
        _run(lambda *how: steering.apply(policy, *how), "applied", (requests_per_second, slices), as_json)


@app.command(name="rollback")
@connected
def rollback(
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    requests_per_second: _Rate = 0.0,
    slices: _Slices = 0,
    as_json: options.Json = False,
) -> None:
    """Take the policy away: every document gets its original vector back, exactly.

    **Example**: `stair-es policy rollback --index photos`

    **Exit code**: 0, 3 when some documents failed, 1 when the run failed, 2 on wrong usage.
    """
    with _steering(index, url) as steering:
        _run(steering.rollback, "rolled back", (requests_per_second, slices), as_json)


@contextmanager
def _steering(index: str, url: str | None) -> Iterator[Steering]:
    from stair_es.cluster.steer import Steering

    connection = options.connection(url)
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
