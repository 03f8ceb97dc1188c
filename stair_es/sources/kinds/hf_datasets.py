"""The source kind `huggingface`: streamed datasets of the Hugging Face hub, and local ones, through the `datasets` library."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from stair_es.errors import SourceError, StairError, UsageError
from stair_es.optional import import_optional
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.io.remote import RERUN_REMEDY, describe_store_error
from stair_es.sources.io.resolve import resolve_image_reference
from stair_es.sources.io.uris import get_scheme
from stair_es.sources.kinds.fields import describe_row_error, select_fields
from stair_es.sources.kinds.table import build_missing_column_error, find_image_column
from stair_es.sources.limits import join_names

_SCHEME = "hf-dataset"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class HfDatasetAddress:
    """A parsed `hf-dataset://` argument."""

    name: str
    """Name on the hub, or a local folder."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Return whether it is a local folder."""
        return self.name.startswith("/")

    @property
    def uri(self) -> str:
        """Return the URI without the revision: an image keeps its identity when the dataset is updated."""
        path = "/".join([self.name, *([self.config] if self.config else [])])
        return f"{_SCHEME}://{path}?split={self.split}"

    @classmethod
    def parse_argument(cls, argument: str) -> HfDatasetAddress:
        """Parse `hf-dataset://NAME[/CONFIG]?split=...&revision=...`, `hf-dataset:///folder?split=...` or a local path."""
        if get_scheme(argument) != _SCHEME:
            return cls(name=os.path.abspath(os.path.expanduser(argument)))  # noqa: PTH100, PTH111
        parts = urlsplit(argument)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        unknown = set(query) - {"split", "revision", "config"}
        names = [unquote(name) for name in (parts.netloc, *parts.path.split("/")) if name]
        if unknown or not names or (parts.netloc and len(names) > 3):
            raise UsageError(
                f"not the address of a dataset: {argument!r}",
                "Write hf-dataset://user/name/config?split=train",
                code="not-a-dataset-address",
            )
        split, revision = query.get("split", "train"), query.get("revision")
        if not parts.netloc:
            return cls(name="/" + "/".join(names), config=query.get("config"), split=split, revision=revision)
        config = query.get("config", names[2] if len(names) > 2 else None)
        return cls(name="/".join(names[:2]), config=config, split=split, revision=revision)


@dataclass(frozen=True)
class HfDatasetSource:
    """The rows of one split."""

    address: HfDatasetAddress
    options: SourceOptions
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Return the `source` of its items."""
        return self.address.uri

    @property
    def can_reread(self) -> bool:
        """Return whether its URI has all that is needed to read it again."""
        return self.address.revision is None

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per row."""
        rows, version = self._open_rows()
        base = Path(self.address.name).as_uri() if self.address.is_local else f"hf://datasets/{self.address.name}"
        names = rows.column_names or []
        requested = [name for name in (*self.options.columns.values(), self.options.image_column) if name and name != "*"]
        if names and (missing := [name for name in requested if name not in names]):
            raise build_missing_column_error(self.uri, missing[0], names)
        column = find_image_column(names, self.options.image_column)
        for number, row in self._iterate_rows(rows):
            uri = f"{self.uri}#row={number}"
            row_version = f"{version}#{number}" if version else None
            try:
                yield self._build_item(row, column or find_image_column(row, self.options.image_column), base, uri, row_version)
            except Exception as error:  # noqa: BLE001  the following rows must be read
                yield ListingFailure(uri, self.uri, describe_row_error(error))

    def _build_item(
        self, row: Mapping[str, Any], column: str | None, base: str, uri: str, version: str | None
    ) -> SourceItem | ListingFailure:
        resolved = (
            resolve_image_reference(row.get(column), base) if column else f"no column with an image; there are: {join_names(row)}"
        )
        if isinstance(resolved, str):
            return ListingFailure(uri, self.uri, resolved)
        return resolved.to_item(uri, self.uri, version, select_fields(row, self.options.columns, column))

    def _iterate_rows(self, rows: Any) -> Iterator[tuple[int, dict[str, Any]]]:  # noqa: ANN401
        try:
            yield from enumerate(rows)
        except StairError:
            raise
        except Exception as error:
            raise SourceError(
                f"{self.uri} can't be read to its end: {describe_store_error(error)}", RERUN_REMEDY, code="table-not-read-to-end"
            ) from error

    def _open_rows(self) -> tuple[Any, str | None]:
        """Open the rows with their images undecoded; return them with the version of the dataset."""
        datasets = import_optional("datasets", "datasets")
        address = self.address
        version: str | None
        try:
            if address.is_local and any((Path(address.name) / name).exists() for name in ("state.json", "dataset_dict.json")):
                loaded = datasets.load_from_disk(address.name)
                if isinstance(loaded, dict) and address.split not in loaded:
                    raise UsageError(
                        f"{address.name} has no split {address.split!r}", f"It has: {join_names(loaded)}.", code="no-such-split"
                    )
                rows = loaded[address.split] if isinstance(loaded, dict) else loaded
                version = str(rows._fingerprint)
            else:
                rows = datasets.load_dataset(
                    address.name, address.config, split=address.split, revision=address.revision, streaming=True
                )
                version = address.revision if address.revision and _COMMIT.fullmatch(address.revision) else None
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self.uri} can't be opened: {describe_store_error(error)}",
                "Check name, config and split.",
                code="table-not-opened",
            ) from error
        for name, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows, version


class HuggingFaceKind:
    """Opens `huggingface` sources."""

    name = "huggingface"
    description = "hf-dataset://NAME[/CONFIG]?split=train&revision=..., hf-dataset:///FOLDER for a local dataset"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument has the scheme `hf-dataset`."""
        return get_scheme(argument) == _SCHEME

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        import_optional("datasets", "datasets")
        address = HfDatasetAddress.parse_argument(argument)
        if address.is_local and not Path(address.name).is_dir():
            raise UsageError(
                f"no such folder: {address.name!r}",
                "SOURCE is a folder that `save_to_disk` wrote, or one with images.",
                code="no-such-folder",
            )
        return HfDatasetSource(address, options)


KIND = HuggingFaceKind()
