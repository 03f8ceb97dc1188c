"""The builder of the small caption set: names, splits without leaks, package contents."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from support.benchmarks import import_benchmark

clipart = import_benchmark("small_sets.clipart")
emoji = import_benchmark("small_sets.emoji")
fetch = import_benchmark("small_sets.fetch")
items = import_benchmark("small_sets.items")
likeness = import_benchmark("small_sets.likeness")
names = import_benchmark("small_sets.names")
splits = import_benchmark("small_sets.splits")
stamps = import_benchmark("small_sets.stamps")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The Red Apples.", "red apple"),
        ("a red apple", "red apple"),
        ("Cherries!", "cherry"),
        ("glasses", "glass"),
        ("man’s shoe", "man shoe"),
        ("Piñata", "pinata"),
        ("bus", "bus"),
        ("A", "a"),
        ("", ""),
    ],
)
def test_the_same_thing_has_one_key(text: str, key: str) -> None:
    assert names.make_concept(text) == key


def test_shares_are_the_same_on_every_machine_and_even() -> None:
    expected = int(hashlib.sha256(b"concept\0dog").hexdigest()[:16], 16) / 2**64
    assert names.hash_share("dog", "concept") == pytest.approx(expected, abs=1e-12)
    assert names.hash_share("dog", "concept") != names.hash_share("dog", "art")
    tenths = Counter(int(names.hash_share(f"thing {n}", "concept") * 10) for n in range(5000))
    assert min(tenths.values()) > 400
    assert max(tenths.values()) < 600


GROUPS = {"0": "animal-mammal", "1": "country-flag", "2": "time", "3": "person-role", "4": "keycap", "5": "clothing"}


def build_row(label: str, code: str, subgroup: int | None, *tags: str) -> dict[str, object]:
    """A line of emojibase-data, as it is there."""
    row: dict[str, object] = {"label": label, "hexcode": code, "tags": list(tags), "order": int(code.split("-")[0], 16)}
    return row if subgroup is None else {**row, "subgroup": subgroup}


def test_emoji_variants_are_dropped_and_tags_are_used() -> None:
    data = [
        build_row("dog face", "1F436", 0, "dog", "Pet", "puppies", "pet"),
        build_row("flag: Iraq", "1F1EE-1F1F6", 1, "flag"),
        build_row("three o’clock", "1F552", 2, "clock"),
        build_row("man teacher", "1F468-200D-1F3EB", 3, "man"),
        build_row("deaf woman", "1F9CF-200D-2640-FE0F", 3, "ear"),
        build_row("man’s shoe", "1F45E", 5, "brown"),
        build_row("keycap: 1", "0031-FE0F-20E3", 4, "keycap"),
        build_row("regional indicator A", "1F1E6", None),
    ]
    concepts = emoji.parse_concepts(data, GROUPS)
    assert [(concept.label, concept.tags, concept.code) for concept in concepts] == [
        ("dog face", ("pet", "puppies"), "1f436"),
        ("man’s shoe", ("brown",), "1f45e"),
    ]
    assert concepts[0].group == "dog"


def test_drawings_are_found_in_files_of_any_vendor(tmp_path: Path) -> None:
    concepts = emoji.parse_concepts(
        [build_row("sun", "2600-FE0F", 0), build_row("copyright", "00A9-FE0F", 0), build_row("orca", "1FACD", 0)], GROUPS
    )
    for vendor, stems in (("google", ("2600-fe0f", "00a9-fe0f")), ("openmoji", ("2600", "00A9"))):
        folder, suffix = emoji.FILES[vendor]
        (tmp_path / vendor / folder).mkdir(parents=True)
        for stem in stems:
            (tmp_path / vendor / folder / (stem + suffix)).touch()
        found = emoji.list_drawings(vendor, tmp_path / vendor, concepts)
        assert [item.image for item in found] == [f"images/{vendor}/a9.png", f"images/{vendor}/2600.png"]


def read_view_box(file: Path) -> str:
    box: str = re.findall(r'viewBox="(.+?)"', file.read_text(encoding="utf-8"))[0]
    return box


def extract_icons(folder: Path, vendor: str, icons: Mapping[str, object], *rows: dict[str, object]) -> Any:  # noqa: ANN401
    (folder / "icons.json").write_text(json.dumps(icons), encoding="utf-8")
    return emoji.extract_iconify(vendor, folder, emoji.parse_concepts(list(rows), GROUPS), folder)


def test_drawings_known_by_name_only(tmp_path: Path) -> None:
    rows = [build_row("eggplant", "1F346", 0), build_row("alarm clock", "23F0", 2), build_row("fox", "1F98A", 0)]
    icons = {"width": 32, "height": 32, "icons": {"alarmclock": {"body": "<path/>"}, "aubergine": {"body": "<g/>", "width": 40}}}
    found = extract_icons(tmp_path, "fxemoji", icons, *rows)
    assert [item.captions for item in found] == [("alarm clock",), ("eggplant",)]
    assert read_view_box(found[1].file) == "0 0 40 32"


def test_several_drawings_of_the_same_name(tmp_path: Path) -> None:
    icons = {"icons": {name: {"body": f"<{name}/>"} for name in ("alarm-clock-2", "alarm-clock-1", "clock")}}
    found = extract_icons(tmp_path, "streamline", icons, build_row("alarm clock", "23F0", 2))
    assert [item.image for item in found] == ["images/streamline/23f0.png", "images/streamline/23f0_1.png"]
    assert "<alarm-clock-2/>" in found[1].file.read_text(encoding="utf-8")
    assert read_view_box(found[1].file) == "0 0 16 16"


DESCRIPTION = "A flask with bubbles."
SVG = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><metadata><rdf:RDF>
<cc:Work rdf:about=""><dc:title>{title}</dc:title><dc:description>A flask
 with bubbles.</dc:description><dc:subject><rdf:Bag><rdf:li>Chemistry</rdf:li><rdf:li>hash(0x8a0a39c)</rdf:li><rdf:li/>
<rdf:li>hash</rdf:li><rdf:li>science</rdf:li><rdf:li>flasks</rdf:li></rdf:Bag></dc:subject>
<dc:publisher><cc:Agent><dc:title>Open Clip Art Library</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>Matthew Wardrop</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF></metadata></svg>"""


def test_titles_and_keywords_of_clip_art() -> None:
    work = clipart.read_work(SVG.format(title="Chemistry_Flask-02").encode())
    assert (work.title, work.creator, work.description) == ("Chemistry_Flask-02", "Matthew Wardrop", DESCRIPTION)
    name = clipart.choose_name("science/x.svg", work, Counter())
    assert name == "chemistry flask"
    assert clipart.select_tags(name, work) == ("science",)
    assert clipart.build_captions(name, work) == ("chemistry flask", DESCRIPTION)
    assert clipart.read_work(b"<svg") is None
    assert clipart.read_work(b"<svg/>") is None


@pytest.mark.parametrize(
    ("title", "path", "name"),
    [
        ("RedCar", "x", "red car"),
        ("horse#1", "x", "horse"),
        ("Coffee (B and W)", "x", "coffee"),
        ("Clipart by Nicu Buculei - book_01", "office/calculator", "calculator"),
        ("Various Cliparts", "tools/chemistry_flask_matthew__02", "chemistry flask"),
        ("Matthew Wardrop", "tools/big_wrench_matthew_war_01", "big wrench"),
        ("everywhere", "tools/saw_01", "saw"),
        ("Apfel für alle", "x/apfel", ""),
        ("12", "x/7", ""),
    ],
)
def test_clip_art_is_called_by_its_title_or_its_file(title: str, path: str, name: str) -> None:
    work = clipart.read_work(SVG.format(title=title).encode())
    assert clipart.choose_name(path, work, Counter({"everywhere": 9})) == name


def test_stamps_are_photographs_or_drawings(tmp_path: Path) -> None:
    root = tmp_path / stamps.FOLDER
    for name, caption in (
        ("animals/cartoon/cat", "A cat.\nde.utf8=Eine Katze"),
        ("animals/dog", "A dog."),
        ("symbols/math/1", "One."),
        ("a", ""),
    ):
        file = root / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(caption, encoding="utf-8")
        file.with_suffix(".png").touch()
    photos = stamps.parse_photo_paths(f"# a list\n{stamps.FOLDER}/animals/dog.png\n")
    found = list(stamps.list_stamps(tmp_path, photos))
    assert [(item.source, item.captions, item.tags, item.concept) for item in found] == [
        ("tuxpaint-drawing", ("A cat.",), ("animals",), "cat"),
        ("tuxpaint-photo", ("A dog.",), ("animals",), "dog"),
    ]


@pytest.fixture(scope="module")
def split_files() -> dict[str, list[Any]]:
    """The split of 400 things drawn by everybody; clip art and stamps also show them with more words."""
    things = [f"thing{n:03}x" for n in range(400)] + [f"thing{n:03}x face" for n in range(0, 400, 2)]

    def build_item(source: str, name: str) -> Any:  # noqa: ANN401
        key = names.make_concept(name)
        group = key.removesuffix(" face") if source in splits.VENDORS else key
        return items.Item(
            image=f"images/{source}/{name}.png",
            captions=(name,),
            tags=(),
            concept=key,
            group=group,
            source=source,
            file=Path("x"),
        )

    everything = [build_item(vendor, thing) for vendor in splits.VENDORS for thing in things]
    everything += [
        build_item("openclipart", text) for thing in things for text in (thing, f"a blue {thing} here", f"other {thing}y")
    ]
    everything += [build_item("tuxpaint-drawing", f"The {thing}s.") for thing in things]
    everything += [build_item("tuxpaint-photo", thing) for thing in things]
    parts: dict[str, list[Any]] = splits.split_items(everything)
    return parts


def test_no_concept_is_in_training_and_held_out(split_files: dict[str, list[Any]]) -> None:
    train = {item.concept for item in split_files["train"]}
    for name in ("val_concepts", "test_concepts"):
        held_out = {item.concept for item in split_files[name]}
        assert held_out
        assert not held_out & train
        assert not any(names.has_mention(key, other) for key in train for other in held_out)
    assert not {i.concept for i in split_files["val_concepts"]} & {i.concept for i in split_files["test_concepts"]}


def test_faces_are_split_with_their_animal(split_files: dict[str, list[Any]]) -> None:
    held_out = {item.concept for item in split_files["test_concepts"]}
    faces = [key for key in held_out if key.endswith(" face")]
    assert faces
    assert all(key.removesuffix(" face") in held_out for key in faces)


def test_styles_are_apart(split_files: dict[str, list[Any]]) -> None:
    sources = {name: {item.source for item in found} for name, found in split_files.items()}
    assert sources["train"] == {*splits.TRAIN_VENDORS, "openclipart", "tuxpaint-drawing"}
    assert sources["val_style"] == {"openmoji"}
    assert sources["test_style"] == {"twitter"}
    assert sources["test_photos"] == {"tuxpaint-photo"}
    assert sources["val_concepts"] == set(splits.TRAIN_VENDORS)
    assert sources["test_concepts"] == {*splits.TRAIN_VENDORS, "twitter"}
    train = {item.concept for item in split_files["train"]}
    assert {item.concept for item in split_files["test_style"]} <= train
    art = {item.concept for item in split_files["train"] if item.source in splits.ART}
    for name in ("test_clipart", "test_drawings"):
        assert split_files[name]
        assert not {item.concept for item in split_files["val_concepts"]} & {item.concept for item in split_files[name]}
        assert not art & {item.concept for item in split_files[name]}


def test_the_share_of_each_side(split_files: dict[str, list[Any]]) -> None:
    concepts = {name: len({item.concept for item in found}) for name, found in split_files.items()}
    assert 0.07 < concepts["test_concepts"] / 600 < 0.15
    assert 0.06 < concepts["val_concepts"] / 600 < 0.14
    assert concepts["test_style"] / 600 > 0.72
    assert len(split_files["test_photos"]) == 600


def test_style_needs_trained_concepts() -> None:
    things = [f"thing {n}" for n in range(40)]
    only = [
        items.Item(image=f"{n}.png", captions=(n,), tags=(), concept=n, group=n, source="twitter", file=Path("x")) for n in things
    ]
    assert splits.split_items(only)["test_style"] == []


def draw_png(fill: str, box: tuple[int, int, int, int], side: int = 64) -> bytes:
    """A figure on a transparent page."""
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle(box, fill=fill)
    ImageDraw.Draw(image).ellipse((box[0], box[1], (box[0] + box[2]) // 2, (box[1] + box[3]) // 2), fill="white")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_scaled_and_moved_copies_are_found() -> None:
    held_out = [draw_png("red", (8, 8, 55, 55))]
    found = likeness.find_copies(
        [draw_png("red", (100, 60, 195, 155), 256), draw_png("green", (8, 8, 55, 55)), draw_png("red", (8, 8, 55, 20))], held_out
    )
    assert found == [True, False, False]
    assert likeness.find_copies([], held_out) == []
    assert likeness.is_blank(draw_png("white", (8, 8, 55, 55)))
    assert not likeness.is_blank(held_out[0])
    assert likeness.find_copies(held_out, []) == [False]


def test_photographs_are_kept_and_drawings_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(draw_png("red", (100, 100, 119, 139), 256))

    def render_picture(source: str) -> bytes:
        item = items.Item(image="x", captions=(), tags=(), concept="x", group="x", source=source, file=file)
        picture: bytes = items.render_picture(item)
        return picture

    assert render_picture("tuxpaint-photo") == file.read_bytes()
    with Image.open(io.BytesIO(render_picture("openclipart"))) as cut:
        assert cut.size == (20, 40)
    file.write_bytes(b"no image")
    with pytest.raises(OSError, match="cannot identify"):
        render_picture("openclipart")


def test_another_file_than_the_published_one_is_rejected(tmp_path: Path) -> None:
    package = fetch.PACKAGES["tuxpaint"]
    assert package.file == "tuxpaint-stamps-default_2022.06.04-1_all.deb"
    assert fetch.PACKAGES["fluent"].file == "lobehub-fluent-emoji-3d-1.1.0.tgz"
    (tmp_path / package.file).write_bytes(b"something else")
    with pytest.raises(SystemExit, match=re.escape(package.file)):
        fetch.unpack_package(package, tmp_path, tmp_path)


def test_the_parts_of_a_commit_are_checked_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = tmp_path / "github" / "owner" / "photos.git"
    for name in ("a/one.jpg", "a/two.jpg", "b/three.jpg"):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_text(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text(
        f'[url "file://{tmp_path}/github/"]\n\tinsteadOf = https://github.com/\n[uploadpack]\n\tallowFilter = true\n'
        "\tallowAnySHA1InWant = true\n[user]\n\tname = a\n\temail = a@example.org\n"
    )
    for command in ("init --quiet", "add .", "commit --quiet --message photos"):
        subprocess.run(["git", *command.split()], cwd=origin, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=origin, check=True, capture_output=True, text=True).stdout.strip()
    package = fetch.Package(
        name="owner/photos", version=commit, digest="", license="CC0-1.0", credit="", parts=("a/one.jpg", "b/three.jpg")
    )
    for _ in range(2):  # the second time nothing is missing
        folder = fetch.unpack_package(package, tmp_path / "downloads", tmp_path)
        assert sorted(path.name for path in folder.rglob("*.jpg")) == ["one.jpg", "three.jpg"]
    with pytest.raises(SystemExit, match="git"):
        fetch.unpack_package(replace(package, version="0" * 40), tmp_path / "other", tmp_path)


def test_only_free_packages_are_fetched() -> None:
    packages = " ".join(package.name for package in fetch.PACKAGES.values())
    assert "apple" not in packages
    assert "facebook" not in packages
    assert fetch.PACKAGES["emojione"].version.startswith("2."), "the drawings of later versions aren't free"
