"""Sphinx extension for links to files outside `docs/`: they lead to the repository, or become text if its address isn't set.

On GitHub `../stair_es/errors.py` leads to the file. The site has no such page: Sphinx would offer the file as a download, and
warn about a folder. Links to missing files are left to Sphinx, which reports them.
"""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from generated import ROOT_PAGES
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.project import Project
from sphinx.transforms import SphinxTransform


class OutsideLinks(SphinxTransform):
    """Transform that runs on each page before Sphinx resolves its links."""

    default_priority = 5

    def apply(self) -> None:
        """See `SphinxTransform`."""
        docs = Path(self.env.srcdir).resolve()
        pages = {docs.parent / name: page for page, name in ROOT_PAGES.items() if page in self.env.found_docs}
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                target, anchor = self._resolve_target(link)
                if target in pages:
                    link["reftarget"] = pages[target]
                elif target and target.is_relative_to(docs) and (target / "index.md").is_file():  # a folder: GitHub lists it
                    page = (target / "index").relative_to(docs).as_posix()
                    link.attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": anchor or None}
                elif target and target.exists() and not target.is_relative_to(docs):
                    link.replace_self(self._build_replacement(link, target.relative_to(docs.parent), anchor))

    def _resolve_target(self, link: nodes.Element) -> tuple[Path | None, str]:
        """Return the file or folder that a relative link leads to, and the anchor in it."""
        if link.get("reftype") != "myst":
            return None, ""
        path, _, anchor = str(link["reftarget"]).partition("#")
        if link.get("refdomain") == "doc":  # a Markdown file: MyST took the suffix away, and made an outside path absolute
            path, anchor = f"{path}.md", link.get("reftargetid") or ""
        here = Path(self.env.doc2path(self.env.docname)).parent
        return ((here / path).resolve() if path else None), anchor

    def _build_replacement(self, link: nodes.Element, path: Path, anchor: str) -> list[nodes.Node]:
        repository = self.config.repository
        if not repository:
            return list(link.children)
        kind = "tree" if (Path(self.env.srcdir).parent / path).is_dir() else "blob"
        address = f"{repository}/{kind}/{self.config.source_ref}/{path.as_posix()}" + (f"#{anchor}" if anchor else "")
        return [nodes.reference("", "", *link.children, refuri=address, internal=False)]


class Pages(Project):
    """Project that renames `docs/search.md` to `searching.html`, because Sphinx calls its page of search results `search`."""

    def path2doc(self, filename: str | os.PathLike[str]) -> str | None:
        """See `Project`."""
        name = super().path2doc(filename)
        return "searching" if name == "search" else name


def _name_pages(app: Sphinx) -> None:
    app.project.__class__ = Pages


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("repository", "", "env", str)
    app.add_config_value("source_ref", "main", "env", str)
    app.add_transform(OutsideLinks)
    app.connect("builder-inited", _name_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
