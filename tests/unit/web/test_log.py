"""What the operator is told."""

from support.messages import forward_messages

from stair_es.web.app import ThrottledLog


def test_the_same_is_said_once_for_a_while_and_secrets_never() -> None:
    said: list[str] = []
    log = ThrottledLog(lambda text: text.replace("hunter2", "***"))
    with forward_messages(said.append):
        for text in ("hunter2 is away", "hunter2 is away", "something else", "hunter2 is away"):
            log(text)
    assert said == ["*** is away", "something else", "*** is away"]
