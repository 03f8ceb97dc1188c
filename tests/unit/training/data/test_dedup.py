"""Images of a test set are found in a training set: by their bytes and by likeness."""

from __future__ import annotations

import io
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


def build_pair(path: Path) -> TrainingPair:
    return TrainingPair(path.name, FileLocator(to_file_uri(path)), (path.stem,))


def build_fingerprints(hashes: list[int], color: int = 7) -> FingerprintTable:
    rng = np.random.default_rng(len(hashes))
    return FingerprintTable(
        rows=np.arange(len(hashes)),
        sha256=rng.integers(0, 1 << 62, (len(hashes), 4)).astype(np.uint64),
        perceptual=np.array(hashes, dtype=np.uint64),
        colors=np.full((len(hashes), COLOR_BYTES), color, dtype=np.uint8),
        unreadable={},
    )


def save_image(image: Image.Image, path: Path, quality: int = 75) -> Path:
    image.save(path, quality=quality)
    return path


def count_different_bits(one: int, other: int) -> int:
    return bin(one ^ other).count("1")


def test_copies_of_photos_are_found(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    images = [Image.open(path).convert("RGB") for path in PHOTOS[:6]]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    training = [
        save_image(images[0], tmp_path / "compressed.jpg", quality=60),
        save_image(images[1].resize((images[1].width // 3, images[1].height // 3)), tmp_path / "small.png"),
        broken,
        save_image(images[3].transpose(Image.Transpose.ROTATE_180), tmp_path / "rotated.jpg"),
        PHOTOS[4],
        save_image(images[5].crop((8, 8, images[5].width - 8, images[5].height - 8)), tmp_path / "cropped.jpg"),
        *PHOTOS[8:],
    ]
    reports: list[tuple[str, int, int]] = []
    pairs = TrainingSet.from_pairs(map(build_pair, training))
    held_out = {"val": [build_pair(PHOTOS[0])], "test": [build_pair(path) for path in (broken, *PHOTOS[1:8])]}
    kept = remove_duplicates(pairs, held_out, progress=lambda *report: reports.append(report))
    assert [each.name for each in kept] == ["rotated.jpg", *(path.name for path in PHOTOS[8:])]
    assert sorted(kept.problems.counts.values()) == [1, 1, 3]
    examples = [
        (example.split(":")[0], "bits" in example, example.split()[-1]) for example in kept.problems.examples["in test too"]
    ]
    assert examples == [
        ("small.png", True, PHOTOS[1].name),
        (PHOTOS[4].name, False, PHOTOS[4].name),
        ("cropped.jpg", True, PHOTOS[5].name),
    ]
    [example] = kept.problems.examples["in val too"]
    assert (example.split(":")[0], example.split()[-1]) == ("compressed.jpg", PHOTOS[0].name)
    assert reports == [("training", 10, 10), ("val", 1, 1), ("test", 8, 8)]


def test_other_photos_are_different() -> None:
    pytest.importorskip("imagehash")
    training = TrainingSet.from_pairs(map(build_pair, PHOTOS[:6]))
    assert len(remove_duplicates(training, {"test": [build_pair(path) for path in PHOTOS[6:]]})) == 6


def test_the_same_shape_in_another_color_is_another_picture(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")

    def draw_shape(color: tuple[int, int, int], size: int) -> bytes:
        image = Image.new("RGB", (40, 40), "white")
        image.paste(color, (10, 5, 30, 20))
        image.paste(color, (15, 20, 25, 35))
        buffer = io.BytesIO()
        image.resize((size, size)).save(buffer, "PNG")
        return buffer.getvalue()

    shapes = {"red": draw_shape((200, 0, 0), 40), "green": draw_shape((0, 102, 0), 40), "large": draw_shape((200, 0, 0), 80)}
    for name, data in shapes.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    red, green, large = (build_pair(tmp_path / f"{name}.png") for name in shapes)
    red_hash, green_hash = (compute_image_fingerprint(shapes[name]).perceptual for name in ("red", "green"))
    assert count_different_bits(red_hash, green_hash) <= 4
    kept = remove_duplicates(TrainingSet.from_pairs([green, large]), {"test": [red]})
    assert [each.name for each in kept] == ["green.png"]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_index_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    test_hashes = [int(value) for value in rng.integers(0, 1 << 63, 300)] + [0, 0, (1 << 64) - 1]
    hashes = [int(value) for value in rng.integers(0, 1 << 63, 300)] + [0, (1 << 64) - 1]
    for value in test_hashes[:200]:
        for bit in rng.choice(64, size=int(rng.integers(0, 12)), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    nearest = [min(count_different_bits(value, test_hash) for test_hash in test_hashes) for value in hashes]
    matches = find_duplicates(build_fingerprints(hashes), build_fingerprints(test_hashes))
    assert {match.row: match.bits for match in matches} == {row: bits for row, bits in enumerate(nearest) if bits <= MAX_BITS}
    assert all(count_different_bits(hashes[match.row], test_hashes[match.other]) == match.bits for match in matches)
    assert find_duplicates(build_fingerprints(hashes), build_fingerprints(test_hashes, color=90)) == []


def test_rows_omit_unreadable_images(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    (tmp_path / "bad.jpg").write_bytes(b"")
    pairs = [build_pair(path) for path in (tmp_path / "bad.jpg", PHOTOS[0], tmp_path / "none.jpg", PHOTOS[1])]
    result = compute_fingerprints(pairs)
    assert (result.rows.tolist(), sorted(result.unreadable)) == ([1, 3], [0, 2])
    matches = find_duplicates(result, compute_fingerprints([build_pair(PHOTOS[1])]))
    assert [(match.row, match.other) for match in matches] == [(3, 0)]
    threaded = compute_fingerprints(pairs * 40, workers=3)
    assert threaded.rows.tolist() == [row for row in range(160) if row % 2]
    np.testing.assert_array_equal(threaded.perceptual, np.tile(result.perceptual, 40))
    assert find_duplicates(result, compute_fingerprints([])) == []
    assert find_duplicates(compute_fingerprints([]), result) == []


def test_cost_grows_with_the_sets_and_not_with_their_product() -> None:
    rng = np.random.default_rng(0)
    training, test = (build_fingerprints(rng.integers(0, 1 << 63, size).tolist()) for size in (100_000, 5_000))
    assert len(find_duplicates(training, test)) < 5
    training, test = build_fingerprints([5] * 8_000), build_fingerprints([5] * 5_000)  # blank images are all alike
    test.colors[:] = rng.integers(0, 15, test.colors.shape)
    assert len(find_duplicates(training, test)) == 8_000
