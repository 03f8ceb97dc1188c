"""`ImageSearch`: search an index with the model that wrote it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stair_es.cluster.connect import Connection
from stair_es.config import DEFAULT_INDEX
from stair_es.errors import QueryError
from stair_es.model import catalogue
from stair_es.model.encoder import Encoder, ModelSpec
from stair_es.search.index_model import load_model_of
from stair_es.search.inputs import Inputs, question_of
from stair_es.search.placing import near_miss
from stair_es.search.prune import How
from stair_es.search.question import Question
from stair_es.search.searcher import Searcher
from stair_es.sources.item import Reading
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from types import TracebackType

    from stair_es.search.cursor import After
    from stair_es.search.hits import Result
    from stair_es.search.placing import NearMiss

Asking: TypeAlias = "str | Path | Inputs | Question | SparseVector"
"""A query string, an image file, a combination as `QueryInputs` (image URLs as well), a built query, or a vector."""


class ImageSearch:
    """Search client for an index and the model that wrote it. Close it, or use it in a `with` statement.

    Connects and loads the model lazily, at the first search. For your own vectors, use `Searcher`.
    """

    def __init__(
        self,
        index: str = DEFAULT_INDEX,
        *,
        url: str | None = None,
        connection: Connection | None = None,
        model: ModelSpec | None = None,
        reading: Reading | None = None,
    ) -> None:
        """Configure the client.

        Args:
            index: An alias or index.
            url: The URL of the cluster; by default `STAIR_ES_URL`. Credentials and certificates come from the environment, as
                for the command line.
            connection: A complete connection, instead of `url`.
            model: The model; by default the one that the index names.
            reading: Limits for query images, and the addresses that their URLs may lead to.

        Raises:
            UsageError: If there is neither a URL nor a connection, or if settings contradict each other.
        """
        self._index = index
        self._connection = connection or Connection.from_env(url)
        self._model = model
        self._reading = reading

    def __enter__(self) -> ImageSearch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        if "searcher" in self.__dict__:
            self.searcher.close()

    @cached_property
    def encoder(self) -> Encoder:
        """The loaded model.

        Raises:
            QueryError: If the index doesn't exist.
            IndexMismatch: If the index was not written by stair-es.
            ModelNotFetched: If its model is not on this machine; pass it as `model` to fetch it.
            ModelError: If its model can't be loaded.
        """
        if self._model is not None:
            return catalogue.load(self._model)
        return load_model_of(self._connection, self._index)

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher of the index."""
        return Searcher(self._connection, self._index, self.encoder.model_id)

    def question(self, asking: Asking) -> Question:
        """Build the query, to inspect it, change it with `dataclasses.replace`, or send it.

        Raises:
            QueryError: If the query is empty, the model knows none of its tokens, or `asking` has an unsupported type.
            DecodeError: If an image can't be read.
        """
        if isinstance(asking, Question):
            return asking
        if isinstance(asking, SparseVector):
            return Question(vector=asking)
        if isinstance(asking, Path):
            asking = Inputs(images=[asking])
        if isinstance(asking, str):
            asking = Inputs(words=asking)
        if not isinstance(asking, Inputs):
            raise QueryError(
                f"can't search for a {type(asking).__name__}", "Pass words, a Path, Inputs, a Question or a SparseVector."
            )
        return question_of(self.encoder, asking, self._reading)

    def search(self, asking: Asking, k: int = 10, *, after: After | None = None, how: How | None = None) -> Result:
        """Search for the `k` best documents.

        Args:
            asking: The query.
            k: Number of hits.
            after: `SearchResult.after` of the previous page.
            how: The search options.

        Raises:
            QueryError: As for `build_query` and `Searcher.search`.
            ClusterError: As for `Searcher.search`.
        """
        return self.searcher.search(self.question(asking), k, after=after, how=how)

    def explain(self, document: str, asking: Asking, k: int = 10, *, how: How | None = None) -> NearMiss:
        """Explain why a document is found or not.

        Args:
            document: The id or URI of the document.
            asking: The query.
            k: Number of hits among which the document is expected.
            how: The search options.

        Raises:
            QueryError: If there is no such document, or as for `search`.
            ClusterError: As for `search`.
        """
        return near_miss(self.searcher, self.question(asking), document, k=k, how=how)
