"""The login page."""

from html.parser import HTMLParser

from stair_es.web.auth import render_login_page


class TagParser(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags = list[tuple[str, dict[str, str | None]]]()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def list_tags(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each."""
        return [attributes for name, attributes in self.tags if name == tag]


def test_login_form_keeps_the_target() -> None:
    page = render_login_page("/compare", [("a", "red car"), ("b", "")])
    read = TagParser(page)
    [token, first, second] = read.list_tags("input")
    assert token["name"] == "token"
    assert [(hidden_inputs["type"], hidden_inputs["name"], hidden_inputs["value"]) for hidden_inputs in (first, second)] == [
        ("hidden", "a", "red car"),
        ("hidden", "b", ""),
    ]
    assert [link["href"] for link in read.list_tags("a")] == ["/compare?a=red+car&b="]
    assert b"Wrong token" not in page


def test_a_wrong_token_is_reported_and_not_echoed() -> None:
    page = render_login_page("/", [("token", "guessed"), ("q", "cat")])
    assert b"Wrong token." in page
    assert b"guessed" not in page
    assert [link["href"] for link in TagParser(page).list_tags("a")] == ["/?q=cat"]


def test_the_parameters_of_a_link_are_escaped() -> None:
    evil = "\"><script>alert(1)</script><input value='"
    read = TagParser(render_login_page("/%22%3E%3Cscript%3E", [(evil, evil), ("{said}", "{kept}")]))
    assert [tag for tag, _ in read.tags if tag == "script"] == []
    hidden_inputs = read.list_tags("input")[1:]
    assert (hidden_inputs[0]["name"], hidden_inputs[0]["value"]) == (evil, evil)
    assert hidden_inputs[1]["name"] == "{said}"
