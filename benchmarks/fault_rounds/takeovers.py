"""Rounds in which somebody moves the alias while documents are written."""

from __future__ import annotations

from .base import FOREIGN, Disturbed, Place
from .command import run_within
from .corpus import OTHER_MODEL
from .truth import Action


def move_alias(place: Place, index: str, turn: int) -> Disturbed:
    """By hand, to somebody else's index; or it is removed; or a second index is added to it: by turns."""
    cluster, foreign = place.cluster, f"{FOREIGN}-{index}"
    cluster.ask("PUT", f"/{foreign}/_doc/1?refresh=true", {"uri": "file:///theirs", "title": "not ours"})
    live = _prepare(place, index)
    [properties] = cluster.behind(index).values()
    moves: tuple[tuple[Action, ...], ...] = (
        (("remove", live, index, {}), ("add", foreign, index, {})),
        (("remove", live, index, {}),),
        (("add", foreign, index, {}),),
    )
    chosen = moves[turn % len(moves)]

    def repair() -> None:
        strangers: list[Action] = [("remove", name, index, {}) for name in cluster.behind(index) if name != live]
        cluster.move(*strangers, ("add", live, index, properties))

    plan = place.at_any_bulk(lambda: cluster.move(*chosen))
    with place.between(plan) as url:
        ended = place.start(url, index).wait()
    is_wrong = plan.done.is_set() and ended.code == 0  # a run of fewer bulk requests than were drawn is left alone
    wrong = ("exit code 0, though the alias doesn't stand for its index alone",) if is_wrong else ()
    return Disturbed(ended, wrong, repair, foreign)


def swap_by_another(place: Place, index: str, turn: int) -> Disturbed:
    """A run with another model builds its index, which takes the alias."""
    live = _prepare(place, index)

    def swap() -> None:
        other = place.scratch / f"{index}-other.jsonl"
        run_within([place.corpus.some], place.cluster.url, index, other, model=OTHER_MODEL, swap="always")

    plan = place.at_any_bulk(swap)
    with place.between(plan) as url:
        ended = place.start(url, index).wait()
    wrong = []
    if plan.done.is_set() and ended.code == 0:
        wrong.append("exit code 0, though its index lost the alias")
    if plan.done.is_set() and list(place.cluster.behind(index)) == [live]:
        wrong.append("the alias went back to the first index")
    return Disturbed(ended, tuple(wrong))


def _prepare(place: Place, index: str) -> str:
    """A live index that has some of the images; returns its name."""
    letters = place.scratch / f"{index}-prepared.jsonl"
    return run_within([place.corpus.some], place.cluster.url, index, letters).index
