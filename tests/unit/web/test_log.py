"""The throttled log of the server."""

from support.messages import forward_messages

from stair_es.web.app import ThrottledLog


def test_messages_are_rate_limited_and_redacted() -> None:
    messages: list[str] = []
    log = ThrottledLog(lambda text: text.replace("hunter2", "***"))
    with forward_messages(messages.append):
        for text in ("hunter2 is away", "hunter2 is away", "something else", "hunter2 is away"):
            log(text)
    assert messages == ["*** is away", "something else", "*** is away"]
