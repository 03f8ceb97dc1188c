"""Pictures of a test set are found in a training set: by bytes, by likeness, and by nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import to_file_uri
from stair_es.training.data.dataset import TrainingPair, TrainingSet
from stair_es.training.data.dedup import (
    COLOR_BYTES,
    MAX_BITS,
    FingerprintTable,
    compute_fingerprints,
    compute_image_fingerprint,
    find_duplicates,
    remove_duplicates,
)

PHOTOS = sorted((Path(__file__).parents[4] / "examples" / "photos").glob("*.jpg"))[:12]


def pair(path: Path) -> TrainingPair:
    return TrainingPair(path.name, FileLocator(to_file_uri(path)), (path.stem,))


def of_hashes(values: Mapping[int, int] | list[int], colors: int = 7) -> FingerprintTable:
    numbers = list(values.values() if isinstance(values, Mapping) else values)
    rng = np.random.default_rng(len(numbers))
    return FingerprintTable(
        rows=np.arange(len(numbers)),
        sha256=rng.integers(0, 1 << 62, (len(numbers), 4)).astype(np.uint64),
        perceptual=np.array(numbers, dtype=np.uint64),
        colors=np.full((len(numbers), COLOR_BYTES), colors, dtype=np.uint8),
        unreadable={},
    )


def saved(image: Image.Image, path: Path, **more: int) -> Path:
    image.save(path, **more)  # type: ignore[arg-type]
    return path


def test_copies_of_photos_are_found(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    first = [Image.open(path).convert("RGB") for path in PHOTOS]
    training = [
        saved(first[0], tmp_path / "smaller.jpg", quality=60).rename(tmp_path / "again.jpg"),
        saved(first[1].resize((first[1].width // 3, first[1].height // 3)), tmp_path / "small.png"),
        saved(first[2], tmp_path / "gone.jpg", quality=30),
        saved(first[3].transpose(Image.Transpose.ROTATE_180), tmp_path / "turned.jpg"),
        PHOTOS[4],
        saved(first[5].crop((8, 8, first[5].width - 8, first[5].height - 8)), tmp_path / "cropped.jpg"),
        *PHOTOS[8:],
    ]
    (tmp_path / "gone.jpg").write_bytes(b"no image")
    told: list[tuple[str, int, int]] = []
    pairs = TrainingSet.from_pairs(map(pair, training))
    broken = TrainingPair("broken", FileLocator(to_file_uri(tmp_path / "gone.jpg")), ("x",))
    against = {"val": [pair(PHOTOS[0])], "test": [broken, *map(pair, PHOTOS[1:8])]}
    kept = remove_duplicates(pairs, against, progress=lambda *each: told.append(each))
    assert [each.name for each in kept] == ["turned.jpg", *(path.name for path in PHOTOS[8:])]
    assert kept.problems.counts == {"not an image in a known format": 1, "in val too": 1, "in test too": 3}
    assert f"bits from {PHOTOS[0].name}" in kept.problems.examples["in val too"][0]
    small, same, cropped = kept.problems.examples["in test too"]
    assert (small.partition(":")[0], small.endswith(f"bits from {PHOTOS[1].name}")) == ("small.png", True)
    assert (same.partition(":")[0], same.endswith(f"the same bytes as {PHOTOS[4].name}")) == (PHOTOS[4].name, True)
    assert (cropped.partition(":")[0], cropped.endswith(f"bits from {PHOTOS[5].name}")) == ("cropped.jpg", True)
    assert told == [("training", 10, 10), ("val", 1, 1), ("test", 8, 8)]


def test_other_photos_are_different() -> None:
    pytest.importorskip("imagehash")
    training = TrainingSet.from_pairs(map(pair, PHOTOS[:6]))
    assert len(remove_duplicates(training, {"test": [pair(path) for path in PHOTOS[6:]]})) == 6


def test_the_same_shape_in_another_color_is_another_picture(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")

    def heart(color: tuple[int, int, int], size: int) -> bytes:
        image = Image.new("RGB", (40, 40), "white")
        image.paste(color, (10, 5, 30, 20))
        image.paste(color, (15, 20, 25, 35))
        buffer = io.BytesIO()
        image.resize((size, size)).save(buffer, "PNG")
        return buffer.getvalue()

    data = {"red": heart((200, 0, 0), 40), "green": heart((0, 102, 0), 40), "red2": heart((200, 0, 0), 80)}
    for name, each in data.items():
        (tmp_path / f"{name}.png").write_bytes(each)
    red, green, second = (pair(tmp_path / f"{name}.png") for name in data)
    assert (
        bin(compute_image_fingerprint(data["red"]).perceptual ^ compute_image_fingerprint(data["green"]).perceptual).count("1")
        <= 4
    )
    kept = remove_duplicates(TrainingSet.from_pairs([green, second]), {"test": [red]})
    assert [each.name for each in kept] == ["green.png"]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_index_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = [int(value) for value in rng.integers(0, 1 << 63, 300)] + [0, 0, (1 << 64) - 1]
    one = [int(value) for value in rng.integers(0, 1 << 63, 300)] + [0, (1 << 64) - 1]
    for value in other[:200]:
        for bit in rng.choice(64, size=int(rng.integers(0, 12)), replace=False):
            value ^= 1 << int(bit)
        one.append(value)
    expected = {}
    for number, value in enumerate(one):
        nearest = min(bin(value ^ each).count("1") for each in other)
        if nearest <= MAX_BITS:
            expected[number] = nearest
    result = find_duplicates(of_hashes(one), of_hashes(other))
    assert {match.row: match.bits for match in result} == expected
    assert all(bin(one[match.row] ^ other[match.other]).count("1") == match.bits for match in result)
    assert find_duplicates(of_hashes(one), of_hashes(other, colors=90)) == []


def test_rows_omit_unreadable_sets(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    (tmp_path / "bad.jpg").write_bytes(b"")
    pictures = [pair(tmp_path / "bad.jpg"), pair(PHOTOS[0]), pair(tmp_path / "none.jpg"), pair(PHOTOS[1])]
    result = compute_fingerprints(pictures)
    assert (result.rows.tolist(), sorted(result.unreadable)) == ([1, 3], [0, 2])
    assert [(match.row, match.other) for match in find_duplicates(result, compute_fingerprints([pair(PHOTOS[1])]))] == [(3, 0)]
    threaded = compute_fingerprints(pictures * 40, workers=3)
    assert threaded.rows.tolist() == [row for row in range(160) if row % 2]
    np.testing.assert_array_equal(threaded.perceptual, np.tile(result.perceptual, 40))
    assert find_duplicates(result, compute_fingerprints([])) == []
    assert find_duplicates(compute_fingerprints([]), result) == []


def test_cost_grows_with_the_sets_and_not_with_their_product() -> None:
    rng = np.random.default_rng(0)
    one, other = (of_hashes([int(value) for value in rng.integers(0, 1 << 63, size)]) for size in (100_000, 5_000))
    assert len(find_duplicates(one, other)) < 5
    many, more = of_hashes([5] * 8_000), of_hashes([5] * 5_000)  # blank pictures are all alike
    more.colors[:] = rng.integers(0, 15, more.colors.shape)
    assert len(find_duplicates(many, more)) == 8_000
