"""The page that asks a browser for the token: without script and style, as every other file is behind the token, too."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Token wanted - stair-es</title>
</head>
<body>
<main>
<h1>This page wants a token</h1>
<p role="status">{said}</p>
<form method="get">
<p><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
{kept}<button type="submit">Open</button></p>
</form>
<p>You have been here, and a link from another site led you back? <a href="{again}">Go on</a>.</p>
</main>
</body>
</html>
"""


def door(path: str, query: Sequence[tuple[str, str]]) -> bytes:
    """The HTML that asks for the token and leads on to where a visitor wanted to go.

    Args:
        path: Of the URL, quoted, with one slash at its beginning.
        query: Its parameters; a `token` among them was a wrong one.
    """
    rest = [pair for pair in query if pair[0] != "token"]
    said = "That isn't the token." if len(rest) < len(query) else "Whoever runs it knows it."
    kept = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">\n' for name, value in rest)
    again = escape(path + (f"?{urlencode(rest)}" if rest else ""))
    return _PAGE.format(said=said, kept=kept, again=again).encode()
