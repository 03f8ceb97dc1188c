"""`stair-es policy`: token policies of an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, OptionConflict, UsageError

from ...options import shared
from ...options.connections import ConnectionArguments, open_cluster
from ...options.decorator import prepare_command
from ...output.bars import escape_control
from ...output.console import emit_json, print_notice, stdout

if TYPE_CHECKING:
    from stair_es.cluster.metadata.policy_state import PolicyState
    from stair_es.cluster.policy.manager import PolicyManager, PolicyRunResult
    from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview
    from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
    from stair_es.labels.policy import LabelPolicyManager
    from stair_es.token_policy import TokenPolicy

    RunUpdate: TypeAlias = Callable[[UpdateLimits, Callable[[UpdateProgress], None]], dict[str, PolicyRunResult]]

_MAX_RULES = 20
_MAX_REASONS = 5

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Mute, cap, rename and merge the words of an index, with a preview and a rollback.

**Examples**

```text
stair-es policy plan no-breeds.json --index photos
stair-es policy apply no-breeds.json --index photos
stair-es policy rollback --index photos
```

A policy is a JSON file: `{"stair_es_policy": 1, "mute": ["egyptian"], "floor": {"sky": 0.2}, "cap": {"dog": 0.5}, "rename":
{"automobile": "car"}, "merge": {"dog": ["dogs", "puppy"]}}`.
To apply a policy to a new index, run `stair-es ingest --policy FILE`.""",
)
_FileArgument = typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Policy file (JSON).")
RateOption = Annotated[
    float,
    typer.Option(
        "--requests-per-second",
        metavar="X",
        min=0.0,
        help="Maximum number of documents to update per second, to limit the load on the cluster; 0 for no limit.",
    ),
]
_Labels = Annotated[
    bool, typer.Option("--labels", help="Of the labels of `stair-es ingest-labels`, instead of the words of the model.")
]
SlicesOption = Annotated[
    int, typer.Option("--slices", metavar="N", min=0, max=1024, help="Number of parallel slices; 0 uses one per shard.")
]


@app.command(name="show")
@prepare_command
def show_policy_command(
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    labels: _Labels = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Print the policy of an index and how many documents it changed.

    **Example**

    ```text
    stair-es policy show --index photos
    ```

    Also prints whether the policy was applied to all documents.
    """
    if labels:
        with _open_label_run(index, connection) as of_labels:
            name, state = of_labels.get_state()
        facts, states = [{"index": name, **(state.to_json() or {"digest": None})}], [state]
        _print_states(facts, states, as_json=as_json)
        return
    with _open_policy_run(index, connection) as manager:
        targets = manager.list_targets()
        facts = [
            {
                "index": target.name,
                **(target.state.to_json() or {"digest": None}),
                "documents": manager.count_by_policy(target),
                "emptied": manager.count_emptied(target),
            }
            for target in targets
        ]
        states = [target.state for target in targets]
    _print_states(facts, states, as_json=as_json)


def _print_states(facts: Sequence[Mapping[str, Any]], states: Sequence[PolicyState], *, as_json: bool) -> None:
    if as_json:
        emit_json(facts)
        return
    for fact, state in zip(facts, states, strict=True):
        label = f"policy {escape_control(state.policy.label)}" if state.policy else "no policy"
        stdout.print(f"{fact['index']}: {label}", markup=False, emoji=False, style="bold")
        if state.policy:
            _print_rules(state.policy)
        for digest, count in fact.get("documents", {}).items():
            stdout.print(f"{count:,} documents changed by {escape_control(digest)}", markup=False, emoji=False)
        if fact.get("emptied"):
            stdout.print(f"{fact['emptied']:,} documents have no word left", markup=False)
        if state.pending_operation:
            stdout.print(f"{state.pending_operation} did not complete: run it again", style="yellow", markup=False)


@app.command(name="plan")
@prepare_command
def plan_policy_command(
    file: Annotated[Path, _FileArgument],
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=0, help="Number of most changed documents to show, before and after.")
    ] = 3,
    ids: Annotated[
        Path | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            dir_okay=False,
            help="JSONL file for the id, URI and rules of each document that would change.",
        ),
    ] = None,
    labels: _Labels = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Preview a policy: count the documents that each rule would change, and show those that change most.

    **Examples**

    ```text
    stair-es policy plan no-breeds.json --index photos
    stair-es policy plan no-breeds.json --index photos --ids changing.jsonl --samples 10
    stair-es policy plan rejected.json --index photos --labels
    ```

    Reads the words of all documents that the policy may change, and changes nothing.
    """
    from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview, add_change_sample, preview_changes
    from stair_es.config.policy_file import load_policy

    from ...output.progress import show_document_progress

    policy, preview, changes = load_policy(file), PolicyPreview(), list[DocumentChange]()
    ids_file = ids.open("w", encoding="utf-8") if ids else nullcontext()
    with ExitStack() as stack, show_document_progress() as progress, ids_file as output:
        if labels:
            of_labels = stack.enter_context(_open_label_run(index, connection))
            name, found = of_labels.get_state()[0], of_labels.preview_changes(policy, preview, progress)
        else:
            manager = stack.enter_context(_open_policy_run(index, connection))
            target = manager.list_targets()[0]
            policy = policy.keep_words(target.state.policy)
            name, found = target.name, preview_changes(manager.cluster, target, policy, preview, progress)
        for change in found:
            add_change_sample(changes, change, samples)
            if output:
                _write_change(output, change)
    if as_json:
        counts = {**vars(preview), "rules": {rule: preview.rules[rule] for rule in policy.rules}}
        shown = [{"id": c.id, "uri": c.uri, "tokens": c.token_changes} for c in changes]
        emit_json({"index": name, "policy": policy.digest, **counts, "samples": shown})
    else:
        _print_plan(policy, preview, changes)


@app.command(name="apply")
@prepare_command
def apply_policy_command(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help="Policy file (JSON). [default: the policy of the index]"
        ),
    ] = None,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    requests_per_second: RateOption = 0.0,
    slices: SlicesOption = 0,
    labels: _Labels = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Apply a policy to all documents of an index, including those added later.

    **Examples**

    ```text
    stair-es policy apply no-breeds.json --index photos
    stair-es policy apply --index photos --requests-per-second 500
    stair-es policy apply rejected.json --index photos --labels
    ```

    The update runs in the cluster. It restores the original vector of each document, then applies the policy. Run the command
    again after an interruption or a concurrent ingest: it updates only the documents that still need it.

    **Exit codes**: 0 on success; 3 if some documents failed; 1 if the run failed; 2 for a usage error.
    """
    from stair_es.config.policy_file import load_policy

    policy = load_policy(file) if file else None
    if labels:
        _check_label_options(requests_per_second, slices)
        _update_labels(index, connection, "applied", policy, as_json=as_json)
        return
    with _open_policy_run(index, connection) as manager:
        run_update(partial(manager.apply_policy, policy), "applied", requests_per_second, slices, as_json)


@app.command(name="rollback")
@prepare_command
def rollback_policy_command(
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    taught_words: Annotated[
        bool, typer.Option("--taught-words", help="Take taught words back as well; `stair-es teach --export` saves them.")
    ] = False,
    requests_per_second: RateOption = 0.0,
    slices: SlicesOption = 0,
    labels: _Labels = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Remove the policy of an index, and restore the exact original vector of every document.

    **Example**

    ```text
    stair-es policy rollback --index photos
    ```

    Taught words stay: `stair-es teach WORD --forget` takes one back, and --taught-words takes all.

    **Exit codes**: 0 on success; 3 if some documents failed; 1 if the run failed; 2 for a usage error.
    """
    if labels:
        _check_label_options(requests_per_second, slices, taught_words=taught_words)
        _update_labels(index, connection, "rolled back", None, as_json=as_json)
        return
    with _open_policy_run(index, connection) as manager:
        policy = manager.list_targets()[0].state.policy
        if policy and policy.teach and not taught_words:
            print_notice(f"{len(policy.teach):,} taught words stay; --taught-words takes them back as well")
        run_update(
            partial(manager.rollback_policy, taught_words=taught_words), "rolled back", requests_per_second, slices, as_json
        )


@contextmanager
def _open_policy_run(index: str, connection: ConnectionArguments) -> Iterator[PolicyManager]:
    from stair_es.cluster.policy.manager import PolicyManager

    with open_cluster(connection) as cluster:
        yield PolicyManager(cluster, index)


@contextmanager
def _open_label_run(index: str, connection: ConnectionArguments) -> Iterator[LabelPolicyManager]:
    from stair_es.labels.policy import LabelPolicyManager

    with open_cluster(connection) as cluster:
        yield LabelPolicyManager(cluster, index)


def _check_label_options(requests_per_second: float, slices: int, *, taught_words: bool = False) -> None:
    if requests_per_second or slices or taught_words:
        raise OptionConflict(
            "--labels excludes --requests-per-second, --slices and --taught-words",
            "They are about updates of the words, which run in the cluster.",
        )


def _update_labels(index: str, connection: ConnectionArguments, verb: str, policy: TokenPolicy | None, *, as_json: bool) -> None:
    """Apply a policy to labels, or roll theirs back (None). Without a file, the policy of the labels is applied again."""
    with _open_label_run(index, connection) as manager:
        if policy is None and verb == "applied":
            policy = manager.get_state()[1].policy
            if policy is None:
                raise UsageError(
                    f"the labels of {index!r} have no policy", "Specify one: policy apply FILE --labels", code="no-policy"
                )
        run_update(lambda _, __: manager.apply_policy(policy), verb, 0.0, 0, as_json)


def run_update(run: RunUpdate, verb: str, requests_per_second: float, slices: int, as_json: bool) -> None:
    """Run an update of the documents with progress, and print its counts.

    Raises:
        typer.Exit: If documents failed.
    """
    from stair_es.cluster.policy.update_by_query import UpdateLimits

    from ...output.progress import show_document_progress

    limits = UpdateLimits(requests_per_second=requests_per_second or -1.0, slices=slices)
    with show_document_progress() as progress:
        results = run(limits, lambda state: progress(state.processed, state.total))
    if as_json:
        emit_json(_build_counts_json(results))
    else:
        _print_counts(verb, results)
    if any(counts.failed or (counts.token_index and counts.token_index.failed) for counts in results.values()):
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _write_change(file: IO[str], change: DocumentChange) -> None:
    import json

    file.write(json.dumps({"id": change.id, "uri": change.uri, "rules": change.rules}, ensure_ascii=False) + "\n")


def _print_rules(policy: TokenPolicy) -> None:
    """Print the rules of a policy, one line per kind."""
    replacements = [f"{source} -> {target}" for source, target in policy.replacements.items()]
    caps = [f"{token} {limit:g}" for token, limit in policy.cap.items()]
    floors = [f"{token} {limit:g}" for token, limit in policy.floor.items()]
    teach = [*policy.teach]
    kinds = (("become", replacements), ("mute", [*policy.mute]), ("floor", floors), ("cap", caps), ("teach", teach))
    for kind, rules in kinds:
        if rules:
            more = f", {len(rules) - _MAX_RULES:,} more" if len(rules) > _MAX_RULES else ""
            _print_line(f"  {kind:<7}{', '.join(map(escape_control, rules[:_MAX_RULES]))}{more}")


def _print_plan(policy: TokenPolicy, plan: PolicyPreview, samples: list[DocumentChange]) -> None:
    """Print how many documents would change, by which rules, and some of them."""
    examined = f"{plan.examined:,} documents with words of the policy" + (" or another policy" if plan.only_reverted else "")
    _print_line(f"policy {escape_control(policy.label)}: {plan.changed:,} of {examined} would change", "bold")
    counts = sorted(((rule, plan.rules[rule]) for rule in policy.rules), key=lambda pair: -pair[1])
    for rule, count in counts[:_MAX_RULES]:
        _print_line(f"  {count:>9,}  {escape_control(rule)}")
    if len(counts) > _MAX_RULES:
        _print_line(f"  and {len(counts) - _MAX_RULES:,} more rules (--json lists them)")
    if plan.only_reverted:
        _print_line(f"  {plan.only_reverted:>9,}  only lose the changes of another policy")
    if plan.emptied:
        _print_line(f"{plan.emptied:,} documents would have no word left: they are kept, but no such word finds them", "yellow")
    for change in samples:
        _print_line(escape_control(change.uri or change.id))
        for token, (before, after) in change.token_changes.items():
            _print_line(f"  {escape_control(token):<14}{_format_weight(before)} -> {_format_weight(after)}")


def _format_weight(weight: float | None) -> str:
    return f"{'-':>6}" if weight is None else f"{weight:6.4f}"


def _print_counts(verb: str, results: Mapping[str, PolicyRunResult]) -> None:
    """Print what was done, one line per index, and what failed."""
    for name, result in results.items():
        _print_line(
            f"{verb}: {result.changed:,} changed, {result.unchanged:,} unchanged, {len(result.failed):,} failed"
            f" of {result.examined:,} documents in {name}",
            "bold",
        )
        for id_, reason in list(result.failed.items())[:_MAX_REASONS]:
            _print_line(f"  failed, {escape_control(id_)}: {escape_control(reason)}", "yellow")
        if len(result.failed) > _MAX_REASONS:
            _print_line(f"  and {len(result.failed) - _MAX_REASONS:,} more (--json lists them)", "yellow")


def _build_counts_json(results: Mapping[str, PolicyRunResult]) -> list[dict[str, Any]]:
    """Return the counts for JSON."""
    return [
        {
            "index": name,
            "examined": result.examined,
            "changed": result.changed,
            "unchanged": result.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in result.failed.items()],
            "token_index": result.token_index.to_json() if result.token_index else None,
        }
        for name, result in results.items()
    ]


def _print_line(text: str, style: str = "") -> None:
    stdout.print(text, markup=False, emoji=False, style=style)
