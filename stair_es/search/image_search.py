"""Everything in one object: the model of an index, and its cluster."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stair_es.cluster.connect import Connection
from stair_es.config import DEFAULT_INDEX
from stair_es.errors import QueryError
from stair_es.model import catalogue
from stair_es.model.encoder import Encoder, ModelSpec
from stair_es.search.how import How
from stair_es.search.index_model import load_model_of
from stair_es.search.inputs import Inputs, question_of
from stair_es.search.placing import near_miss
from stair_es.search.question import Question
from stair_es.search.searcher import Searcher
from stair_es.sources.item import Reading
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from types import TracebackType

    from stair_es.search.cursor import After
    from stair_es.search.hits import Result
    from stair_es.search.near import NearMiss

Asking: TypeAlias = "str | Path | Inputs | Question | SparseVector"
"""Words with their wishes, the file of an image, both and more (URLs of images, too) as `Inputs`, or what was made of them."""


class ImageSearch:
    """Search an index with the model that wrote it. Close it, or use it in a `with` statement.

    Nothing is asked and no model loaded before the first search. For vectors of your own, take `Searcher`.
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
        """A search; nothing is asked yet.

        Args:
            index: An alias or index.
            url: Of the cluster; logins and certificates come from the environment, as for the command line, and without a URL
                so does that: `STAIR_ES_URL`.
            connection: In place of `url`, with everything in it.
            model: The model; the one that the index names if there is none here.
            reading: The limits of images that are looked for, and which addresses their URLs may lead to.

        Raises:
            UsageError: There is neither a URL nor a connection, or something doesn't go together.
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
        """The model, loaded.

        Raises:
            QueryError: There is no such index.
            IndexMismatch: The index is not one of ours.
            ModelNotFetched: Its model isn't on this machine: name it by `model`, and it is fetched.
            ModelError: Its model is broken.
        """
        if self._model is not None:
            return catalogue.load(self._model)
        return load_model_of(self._connection, self._index)

    @cached_property
    def searcher(self) -> Searcher:
        """What asks the cluster."""
        return Searcher(self._connection, self._index, self.encoder.model_id)

    def question(self, asking: Asking) -> Question:
        """What is asked for: change it with `dataclasses.replace`, look at its words, send it.

        Raises:
            QueryError: Nothing is looked for, the model knows none of it, or it is nothing of that kind.
            DecodeError: An image can't be read.
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
                f"can't look for a {type(asking).__name__}", "Give words, a Path, Inputs, a Question or a SparseVector."
            )
        return question_of(self.encoder, asking, self._reading)

    def search(self, asking: Asking, k: int = 10, *, after: After | None = None, how: How | None = None) -> Result:
        """The `k` best documents.

        Args:
            asking: What is looked for.
            k: How many hits.
            after: `Result.after` of the page before.
            how: How to ask.

        Raises:
            QueryError: As for `question` and `Searcher.search`.
            ClusterError: As for `Searcher.search`.
        """
        return self.searcher.search(self.question(asking), k, after=after, how=how)

    def explain(self, document: str, asking: Asking, k: int = 10, *, how: How | None = None) -> NearMiss:
        """Why a document, by its id or URI, is found or isn't.

        Raises:
            QueryError: There is no such document, or as for `search`.
            ClusterError: As for `search`.
        """
        return near_miss(self.searcher, self.question(asking), document, k=k, how=how)
