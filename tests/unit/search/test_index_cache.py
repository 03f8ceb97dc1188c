"""Repetition of a search after the alias has moved."""

import time

import pytest

from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError, StairError
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_cache import IndexCache, SearchTarget
from stair_es.search.index_info import IndexInfo


def make_target(index: str) -> SearchTarget:
    info = IndexInfo(fields={index: IndexFields(tokens="rank_features")}, model="m@1", model_name="m")
    return SearchTarget(cluster_info=ClusterInfo(distribution="opensearch", version=(3,), max_clauses=1024), info=info)


class CachedAlias:
    """An alias with a cache in front of it, and the targets that were searched."""

    def __init__(self, max_age_s: float = 60.0) -> None:
        self.now = "photos-1"
        self.fetched = 0
        self.cache = IndexCache(self.fetch_target, max_age_s)
        self.searched: list[str] = []

    def fetch_target(self, previous: SearchTarget | None) -> SearchTarget:
        self.fetched += 1
        target = make_target(self.now)
        return previous if previous == target else target

    def search_alias(self, hits_of: set[str] | None, error: StairError | None = None) -> str:
        """Search: the first target gives `hits_of` or raises `error`, the second one is searched without either."""

        def search_target(target: SearchTarget) -> tuple[str, set[str] | None]:
            [index] = target.info.fields
            self.searched.append(index)
            if error is not None and len(self.searched) == 1:
                raise error
            return index, hits_of

        return self.cache.search_with_refresh(search_target)


def test_hits_of_known_indices_are_returned() -> None:
    alias = CachedAlias()
    assert alias.search_alias({"photos-1"}) == "photos-1"
    assert (alias.searched, alias.fetched) == (["photos-1"], 1)


@pytest.mark.parametrize("hits_of", [{"photos-2"}, {"photos-1", "photos-2"}, set[str]()])
def test_searches_repeat_after_the_alias_has_moved(hits_of: set[str]) -> None:
    alias = CachedAlias()
    alias.cache.get()
    alias.now = "photos-2"
    assert alias.search_alias(hits_of) == "photos-2"
    assert alias.searched == ["photos-1", "photos-2"]


def test_the_first_result_is_kept_if_the_alias_has_not_moved() -> None:
    alias = CachedAlias()
    assert alias.search_alias(set()) == "photos-1"
    assert (alias.searched, alias.fetched) == (["photos-1"], 2)


def test_a_count_is_not_repeated() -> None:
    alias = CachedAlias()
    alias.cache.get()
    alias.now = "photos-2"
    assert alias.search_alias(None) == "photos-1"


@pytest.mark.parametrize("error", [QueryError("no such token", ""), ClusterError("no such field", "")])
def test_an_error_counts_only_on_the_present_index(error: StairError) -> None:
    alias = CachedAlias()
    with pytest.raises(type(error)):
        alias.search_alias({"photos-1"}, error)
    alias.now, alias.searched = "photos-2", []
    assert alias.search_alias({"photos-2"}, error) == "photos-2"


def test_an_unreachable_cluster_is_not_retried() -> None:
    alias = CachedAlias()
    with pytest.raises(ClusterUnreachable):
        alias.search_alias(set(), ClusterUnreachable("away", ""))
    assert alias.fetched == 1


def test_a_target_is_fetched_again_when_it_is_old() -> None:
    alias = CachedAlias(max_age_s=0.0)
    first = alias.cache.get()
    time.sleep(0.001)
    assert alias.cache.get() is first
    alias.now = "photos-2"
    time.sleep(0.001)
    assert alias.cache.get().info.fields.keys() == {"photos-2"}
