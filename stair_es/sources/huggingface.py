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
from stair_es.extras import need
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.paths import scheme_of
from stair_es.sources.references import refer
from stair_es.sources.remote import AGAIN, reason_of
from stair_es.sources.tables import image_column, no_column
from stair_es.sources.values import chosen, explain

_SCHEME = "hf-dataset"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed `hf-dataset://` argument."""

    name: str
    """Name on the hub, or a local folder."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def local(self) -> bool:
        """Return whether it is a local folder."""
        return self.name.startswith("/")

    @property
    def uri(self) -> str:
        """Return the URI without the revision: an image keeps its identity when the dataset is updated."""
        path = "/".join([self.name, *([self.config] if self.config else [])])
        return f"{_SCHEME}://{path}?split={self.split}"

    @classmethod
    def parse(cls, argument: str) -> Address:
        """Parse `hf-dataset://NAME[/CONFIG]?split=...&revision=...`, `hf-dataset:///folder?split=...` or a local path.

        Raises:
            UsageError: If the argument has another form.
        """
        if scheme_of(argument) != _SCHEME:
            return cls(name=os.path.abspath(os.path.expanduser(argument)))  # noqa: PTH100, PTH111
        parts = urlsplit(argument)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        unknown = set(query) - {"split", "revision", "config"}
        names = [unquote(name) for name in (parts.netloc, *parts.path.split("/")) if name]
        if unknown or not names or (parts.netloc and len(names) > 3):
            raise UsageError(f"not the address of a dataset: {argument!r}", "Write hf-dataset://user/name/config?split=train")
        split, revision = query.get("split", "train"), query.get("revision")
        if not parts.netloc:
            return cls(name="/" + "/".join(names), config=query.get("config"), split=split, revision=revision)
        config = query.get("config", names[2] if len(names) > 2 else None)
        return cls(name="/".join(names[:2]), config=config, split=split, revision=revision)


@dataclass(frozen=True)
class Rows:
    """The rows of one split."""

    address: Address
    options: SourceOptions
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Return the `source` of its items."""
        return self.address.uri

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield one item per row."""
        rows, version = self._opened()
        base = Path(self.address.name).as_uri() if self.address.local else f"hf://datasets/{self.address.name}"
        names = rows.column_names or []
        named = [name for name in (*self.options.columns.values(), self.options.image_column) if name and name != "*"]
        if names and (missing := [name for name in named if name not in names]):
            raise no_column(self.uri, missing[0], names)
        column = image_column(names, self.options.image_column)
        for number, row in self._iterated(rows):
            where = f"{self.uri}#row={number}"
            own = f"{version}#{number}" if version else None
            try:
                yield self._item(row, column or image_column(row, self.options.image_column), base, where, own)
            except Exception as error:  # noqa: BLE001  the following rows must be read
                yield Unlisted(where, self.uri, explain(error))

    def _item(self, row: Mapping[str, Any], column: str | None, base: str, where: str, version: str | None) -> Item | Unlisted:
        referred = refer(row.get(column), base) if column else f"no column with an image; there are: {', '.join(row)[:300]}"
        if isinstance(referred, str):
            return Unlisted(where, self.uri, referred)
        fields = chosen(row, self.options.columns, column)
        if referred.uri is None:
            return Item(where, self.uri, referred.place, version, fields)
        return Item(referred.uri, self.uri, referred.place, referred.version, fields)

    def _iterated(self, rows: Any) -> Iterator[tuple[int, dict[str, Any]]]:  # noqa: ANN401
        try:
            yield from enumerate(rows)
        except StairError:
            raise
        except Exception as error:
            raise SourceError(f"{self.uri} can't be read to its end: {reason_of(error)}", AGAIN) from error

    def _opened(self) -> tuple[Any, str | None]:
        """Open the rows with their images undecoded; return them with the version of the dataset."""
        datasets = need("datasets", "datasets")
        address = self.address
        version: str | None
        try:
            if address.local and any((Path(address.name) / name).exists() for name in ("state.json", "dataset_dict.json")):
                loaded = datasets.load_from_disk(address.name)
                if isinstance(loaded, dict) and address.split not in loaded:
                    raise UsageError(f"{address.name} has no split {address.split!r}", f"It has: {', '.join(loaded)}.")
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
            raise UsageError(f"{self.uri} can't be opened: {reason_of(error)}", "Check name, config and split.") from error
        for name, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows, version


@dataclass(frozen=True)
class HuggingFaceKind:
    """Opens `huggingface` sources."""

    name: str = "huggingface"
    description: str = "hf-dataset://NAME[/CONFIG]?split=train&revision=..., hf-dataset:///FOLDER for a local dataset"

    def claims(self, argument: str) -> bool:
        """Return whether the argument has the scheme `hf-dataset`."""
        return scheme_of(argument) == _SCHEME

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            MissingExtra: If the `datasets` library is not installed.
            UsageError: If the address is malformed or the folder does not exist.
        """
        need("datasets", "datasets")
        address = Address.parse(argument)
        if address.local and not Path(address.name).is_dir():
            raise UsageError(
                f"no such folder: {address.name!r}", "SOURCE is a folder that `save_to_disk` wrote, or one with images."
            )
        return Rows(address, options)


KIND = HuggingFaceKind()
