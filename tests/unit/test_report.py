import json
from pathlib import Path

import pytest

from stair_es.errors import IngestError
from stair_es.ingest.report import Books, DeadLetters
from stair_es.ingest.stages import Batch, Outcome
from stair_es.sources.listing import ImageRef

A, B, C = (ImageRef(f"file:///{name}", "file:///") for name in "abc")


def _books(path: Path, *refs: ImageRef) -> Books:
    return Books(expected={ref.uri for ref in refs}, dead_letters=DeadLetters(path))


def test_each_image_once_and_dead_ones_as_lines(tmp_path: Path) -> None:
    books = _books(tmp_path / "new" / "dead.jsonl", A, B, C)
    books.dead_letters.prepare()
    books.enter(Batch([Outcome(A, "written", "write"), Outcome(B, "dead", "decode", "why\nnot")], {"read": 1.0}))
    assert books.done == 2
    books.enter(Batch([Outcome(C, "unchanged", "read")], {"read": 0.5, "write": 2.0}))
    books.close()
    assert dict(books.kinds) == {"written": 1, "dead": 1, "unchanged": 1}
    assert dict(books.stage_seconds) == {"read": 1.5, "write": 2.0}
    [line] = (tmp_path / "new" / "dead.jsonl").read_text().splitlines()
    letter = json.loads(line)
    assert (letter["uri"], letter["stage"], letter["reason"]) == ("file:///b", "decode", "why\nnot")


def test_no_dead_letter_no_file(tmp_path: Path) -> None:
    books = _books(tmp_path / "dead.jsonl", A)
    books.enter(Batch([Outcome(A, "written", "write")]))
    books.close()
    assert not (tmp_path / "dead.jsonl").exists()


def test_an_image_without_outcome_fails_the_run(tmp_path: Path) -> None:
    books = _books(tmp_path / "dead.jsonl", A, B)
    books.enter(Batch([Outcome(A, "written", "write")]))
    with pytest.raises(IngestError, match="file:///b"):
        books.close()


def test_an_image_twice_fails_the_run(tmp_path: Path) -> None:
    books = _books(tmp_path / "dead.jsonl", A)
    books.enter(Batch([Outcome(A, "written", "write")]))
    with pytest.raises(IngestError, match="too many"):
        books.enter(Batch([Outcome(A, "written", "write")]))


def test_an_image_left_in_a_stage_fails_the_run(tmp_path: Path) -> None:
    books = _books(tmp_path / "dead.jsonl", A)
    with pytest.raises(IngestError, match="without an outcome"):
        books.enter(Batch([A]))


def test_letters_of_an_earlier_run_go_and_an_unwritable_place_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_text("old\n")
    DeadLetters(path).prepare()
    assert not path.exists()
    with pytest.raises(IngestError, match="can't write dead letters"):
        DeadLetters(tmp_path).prepare()
