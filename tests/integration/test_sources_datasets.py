"""Local data sets through the `datasets` library, as it writes them. The hub itself can't be reached from tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.sources.base import ReadLimits, SourceItem, SourceOptions
from stair_es.sources.kinds.hf_datasets import HfDatasetAddress
from stair_es.sources.registry import open_source


def _build_png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), grey).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def saved_dataset(tmp_path: Path) -> Path:
    import datasets  # type: ignore[import-untyped]

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows: dict[str, Any] = {
        "image": [{"bytes": _build_png(i), "path": None} for i in range(3)],
        "text": [f"text {i}" for i in range(3)],
    }
    dataset = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})
    dataset.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def _list_items(argument: str, **options: Any) -> list[SourceItem]:  # noqa: ANN401
    return [each for each in open_source(argument, SourceOptions(**options)).list_items() if isinstance(each, SourceItem)]


def test_saved_datasets_keep_bytes(saved_dataset: Path) -> None:
    for items in (
        _list_items(f"hf-dataset://{saved_dataset}?split=train"),
        _list_items(str(saved_dataset), format="huggingface"),
    ):
        assert [item.uri for item in items] == [f"hf-dataset://{saved_dataset}?split=train#row={i}" for i in range(3)]
        reads = [item.locator.read(ReadLimits()) for item in items]
        assert [read.data for read in reads if read] == [_build_png(i) for i in range(3)]
        assert [item.fields for item in items] == [{"caption": f"text {i}"} for i in range(3)]
        assert len({item.version for item in items} - {None}) == 3


def test_a_folder_of_images_is_read_in_place(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(_build_png(len(name)))
    items = _list_items(f"hf-dataset://{tmp_path}")
    assert sorted(item.uri for item in items) == [(tmp_path / name / "x.png").as_uri() for name in ("cat", "dog")]


def test_missing_splits_and_columns_list_existing_ones(saved_dataset: Path) -> None:
    with expect_error("no-such-split", UsageError) as caught:
        _list_items(f"hf-dataset://{saved_dataset}?split=nope")
    assert "'nope'" in caught.value.message
    assert "train" in caught.value.remedy
    for options in ({"columns": {"caption": "nope"}}, {"image_column": "nope"}):
        with expect_error("no-such-column", UsageError) as caught:
            _list_items(f"hf-dataset://{saved_dataset}", **options)
        assert "'nope'" in caught.value.message


def test_a_missing_dataset_is_a_usage_error(saved_dataset: Path) -> None:
    for argument in (f"hf-dataset://{saved_dataset}?split=nope", f"hf-dataset://{saved_dataset}/none", "hf-dataset://"):
        with pytest.raises(UsageError):
            _list_items(argument)


def test_addresses_of_the_hub() -> None:
    assert HfDatasetAddress.parse_argument("hf-dataset://user/name/config?split=test&revision=abc") == HfDatasetAddress(
        name="user/name", config="config", split="test", revision="abc"
    )
    assert HfDatasetAddress.parse_argument("hf-dataset://mnist").uri == "hf-dataset://mnist?split=train"
