"""Rounds in which the alias is moved while documents are written."""

from __future__ import annotations

from .base import FOREIGN, Disturbance, Testbed
from .cluster_state import Action
from .command import run_in_process
from .corpus import OTHER_MODEL


def move_alias(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Move the alias to an index of another program, remove it, or add a second index to it, in rotation."""
    cluster, foreign = testbed.cluster, f"{FOREIGN}-{index}"
    cluster.request_json("PUT", f"/{foreign}/_doc/1?refresh=true", {"uri": "file:///theirs", "title": "not ours"})
    live = _prepare_index(testbed, index)
    [properties] = cluster.get_alias_targets(index).values()
    moves: tuple[tuple[Action, ...], ...] = (
        (("remove", live, index, {}), ("add", foreign, index, {})),
        (("remove", live, index, {}),),
        (("add", foreign, index, {}),),
    )
    chosen = moves[number % len(moves)]

    def repair() -> None:
        strangers: list[Action] = [("remove", name, index, {}) for name in cluster.get_alias_targets(index) if name != live]
        cluster.update_aliases(*strangers, ("add", live, index, properties))

    plan = testbed.trigger_at_bulk(lambda: cluster.update_aliases(*chosen))
    with testbed.start_proxies(plan) as url:
        ended = testbed.start_run(url, index).wait()
    is_wrong = plan.done.is_set() and ended.code == 0  # a run with fewer bulk requests than the drawn number isn't disturbed
    wrong = ("exit code 0, though its index isn't the only alias target",) if is_wrong else ()
    return Disturbance(ended, wrong, repair, foreign)


def swap_by_other_model(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Let a run with another model build its index and take the alias."""
    live = _prepare_index(testbed, index)

    def swap() -> None:
        other = testbed.scratch / f"{index}-other.jsonl"
        run_in_process([testbed.corpus.subset], testbed.cluster.url, index, other, model=OTHER_MODEL, swap="always")

    plan = testbed.trigger_at_bulk(swap)
    with testbed.start_proxies(plan) as url:
        ended = testbed.start_run(url, index).wait()
    wrong = []
    if plan.done.is_set() and ended.code == 0:
        wrong.append("exit code 0, though its index lost the alias")
    if plan.done.is_set() and list(testbed.cluster.get_alias_targets(index)) == [live]:
        wrong.append("the alias went back to the first index")
    return Disturbance(ended, tuple(wrong))


def _prepare_index(testbed: Testbed, index: str) -> str:
    """Build a live index with some of the images; return its name."""
    letters = testbed.scratch / f"{index}-prepared.jsonl"
    return run_in_process([testbed.corpus.subset], testbed.cluster.url, index, letters).index
