"""How Sphinx makes the site: `sphinx-build -E -W --keep-going -b html docs build/site`.

The pages stay Markdown that GitHub shows as well. What would lag behind the code is made from it when the site is built
(`docs/_ext/generated.py`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent / "_ext"))
sys.path.insert(0, str(ROOT))  # the code of this checkout, whatever is installed

from stair_es._version import __version__  # noqa: E402

project = "stair-es"
author = "the stair-es authors"
copyright = author
release = version = __version__

repository = os.environ.get("STAIR_ES_REPOSITORY", "").rstrip("/")
"""Where the source can be read, for example `https://github.com/OWNER/stair-es`. Empty: files outside `docs/` aren't linked."""

build_name = os.environ.get("STAIR_ES_DOCS", "")
"""On the published site `latest`, or the tag of the release that is `stable`; `make docs` has neither."""
source_ref = build_name if build_name.startswith("v") else "main"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docstrings",
    "generated",
    "links",
]
source_suffix = {".md": "markdown"}
suppress_warnings = ["misc.highlighting_failure"]  # requests (`PUT /...` and a body) are marked as JSON, which they end with

myst_enable_extensions = ["deflist", "attrs_block", "attrs_inline", "colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autoclass_content = "both"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
default_role = "literal"  # docstrings are written in Markdown's manner: `name`
add_module_names = False

html_theme = "furo"
html_title = "stair-es"
html_favicon = "../stair_es/web/static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "navigation_with_keys": False,
    "top_of_page_buttons": [],
    **({"announcement": "This describes <code>main</code>, not a release."} if build_name == "latest" else {}),
    **(
        {
            "source_repository": repository,
            "source_branch": source_ref,
            "source_directory": "docs/",
            "top_of_page_buttons": ["view"],
        }
        if repository
        else {}
    ),
}
