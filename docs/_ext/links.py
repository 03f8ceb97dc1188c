"""Links of the pages to files outside `docs/`: into the repository, or plain text where the site doesn't know its address.

On GitHub `../stair_es/errors.py` leads to the file. On the site there is no such page; Sphinx would copy the file for a
download, and warn about a folder. What doesn't exist is left to Sphinx, which says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from generated import FROM_THE_ROOT
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.project import Project
from sphinx.transforms import SphinxTransform


class OutsideLinks(SphinxTransform):
    """Runs on each page before Sphinx looks for what its links mean."""

    default_priority = 5

    def apply(self) -> None:
        """See `SphinxTransform`."""
        docs = Path(self.env.srcdir).resolve()
        pages = {docs.parent / name: page for page, name in FROM_THE_ROOT.items() if page in self.env.found_docs}
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                target, anchor = self._target(link)
                if target in pages:
                    link["reftarget"] = pages[target]
                elif target and target.is_relative_to(docs) and (target / "index.md").is_file():  # a folder: GitHub lists it
                    page = (target / "index").relative_to(docs).as_posix()
                    link.attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": anchor or None}
                elif target and target.exists() and not target.is_relative_to(docs):
                    link.replace_self(self._replaced(link, target.relative_to(docs.parent), anchor))

    def _target(self, link: nodes.Element) -> tuple[Path | None, str]:
        """The file or folder of a relative link, and the place in it."""
        if link.get("reftype") != "myst":
            return None, ""
        path, _, anchor = str(link["reftarget"]).partition("#")
        if link.get("refdomain") == "doc":  # a Markdown file: MyST took the suffix away, and made an outside path absolute
            path, anchor = f"{path}.md", link.get("reftargetid") or ""
        here = Path(self.env.doc2path(self.env.docname)).parent
        return ((here / path).resolve() if path else None), anchor

    def _replaced(self, link: nodes.Element, path: Path, anchor: str) -> list[nodes.Node]:
        repository = self.config.repository
        if not repository:
            return list(link.children)
        kind = "tree" if (Path(self.env.srcdir).parent / path).is_dir() else "blob"
        address = f"{repository}/{kind}/main/{path.as_posix()}" + (f"#{anchor}" if anchor else "")
        return [nodes.reference("", "", *link.children, refuri=address, internal=False)]


class Pages(Project):
    """`search` is the name of Sphinx's own page of search results: ours of `docs/search.md` becomes `searching.html`."""

    def path2doc(self, filename: str | os.PathLike[str]) -> str | None:
        """See `Project`."""
        name = super().path2doc(filename)
        return "searching" if name == "search" else name


def _name_pages(app: Sphinx) -> None:
    app.project.__class__ = Pages


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_config_value("repository", "", "env", str)
    app.add_transform(OutsideLinks)
    app.connect("builder-inited", _name_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
