"""Images whose names, captions and columns try to become more than text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stair_es.types import Json
from support.browser.web_server import PHOTOS

ATTACK = "document.title='taken'"
CAPTIONS = (
    f'<img src=x onerror="{ATTACK}">',
    f'"><script>{ATTACK}</script>',
    f"javascript:{ATTACK}",
    "harmless \u202egpj.exe\u202c and back",
    "long " * 2000,
    "قطة صغيرة تجلس على بطانية حمراء",
    f"<svg/onload={ATTACK}>{{{{7*7}}}}${{7*7}}<b>bold</b>&lt;i&gt;",
    "\ufeff\u200b\x07\x1b[31mred\x00",
    "x" * 10_000,
    "'; alert(1); //</textarea></title></style></script><!--",
)
NAMES = (
    f"<img src=x onerror={ATTACK}>.jpg",
    '"><script>alert(1)<script>.jpg',
    "javascript:alert(1).jpg",
    "photo\u202egpj.exe.jpg",
    "' onmouseover='alert(1).jpg",
    "صورة قطة.jpg",
    "a" * 200 + ".jpg",
    "%3Cscript%3E & ? # %00.jpg",
    "{{constructor.constructor('alert(1)')()}}.jpg",
    "__proto__.jpg",
)


def write_hostile_table(folder: Path) -> Path:
    """Copy a photo for each name, write a table with the captions, and return its path."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    rows: list[dict[str, Json]] = []
    for photo, name, caption in zip(photos, NAMES, CAPTIONS, strict=False):
        shutil.copy(photo, folder / name)
        columns: dict[str, Json] = {"caption": caption, "note": caption, "text": caption}
        columns["text_boxes"] = [{"text": caption, "box": [0.25, 0.5, 0.75, 1.0]}, {"text": caption, "box": [caption] * 4}]
        rows.append({"file": name, **columns, f"<i>{len(rows)}</i>": f"<script>{ATTACK}</script>"})
    table = folder / "captions.jsonl"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return table
