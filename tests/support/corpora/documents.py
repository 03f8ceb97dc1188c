"""PDF and TIFF files with pages."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

Page = str | Image.Image


def build_pdf(pages: Sequence[Page], *, size: str = "0 0 300 400", root: bytes = b"") -> bytes:
    """Return a PDF whose pages have a text, or a picture without one; `root` is added to its catalog."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R " + root + b">>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for page in pages:
        number = len(objects) + 1
        kids.append(f"{number} 0 R")
        if isinstance(page, str):
            resources, content = "/Font << /F1 3 0 R >>", f"BT /F1 18 Tf 20 300 Td ({page}) Tj ET".encode("latin-1")
        else:
            resources, content = f"/XObject << /I {number + 2} 0 R >>", b"300 0 0 400 0 0 cm /I Do"
        head = f"<< /Type /Page /Parent 2 0 R /MediaBox [{size}] /Resources << {resources} >> /Contents {number + 1} 0 R >>"
        objects += [head.encode(), _build_stream("", content)]
        if not isinstance(page, str):
            buffer = io.BytesIO()
            page.convert("RGB").save(buffer, "JPEG")
            form = f"/Type /XObject /Subtype /Image /Width {page.width} /Height {page.height}"
            objects.append(
                _build_stream(f"{form} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode", buffer.getvalue())
            )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    return join_objects(objects)


def join_objects(objects: Sequence[bytes]) -> bytes:
    """Return a PDF of these objects; the first one is its catalog."""
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(offsets) + 1, table) + trailer


def _build_stream(entries: str, content: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries.encode(), len(content), content)


def build_tiff_pages(pages: Sequence[Image.Image], **options: object) -> bytes:
    """Return a TIFF with a directory for each picture."""
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=list(pages[1:]), **options)
    return buffer.getvalue()
