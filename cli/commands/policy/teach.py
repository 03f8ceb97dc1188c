"""`stair-es teach`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import UsageError
from stair_es.taught_words import TaughtMode

from ...options import shared
from ...options.connections import ConnectionArguments, open_cluster
from ...options.search import EncoderArguments
from ...output.bars import TerminalInfo, display_path, escape_control, format_line, format_weights
from ...output.console import emit_json, print_notice, stdout
from .commands import RateOption, SlicesOption, run_update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.search.index_cache import SearchTarget
    from stair_es.taught_words import TaughtWord
    from stair_es.teaching.teacher import Lesson, PreviewHit, Teacher

_MAX_NAMED = 8
_LIST_OPTIONS = ("--yes", "--no")

_Images = list[str] | None
_Mark = partial(typer.Option, metavar="IMAGE...")
_Yes = Annotated[_Images, _Mark("--yes", help="Images of the index that show it: paths, URIs or ids; 3 to 20 (repeatable).")]
_No = Annotated[_Images, _Mark("--no", help="Images that don't show it, though they are found (repeatable).")]
_Mode = Annotated[
    TaughtMode | None,
    typer.Option(
        "--mode",
        help="Whether it replaces what the model makes of the word, or adds to it. [default: what ranks the marks higher]",
    ),
]
_PreviewHits = Annotated[int, typer.Option("-k", metavar="N", min=1, max=1000, help="Number of hits to preview.")]


class TeachCommand(TyperCommand):
    """A command whose options `--yes` and `--no` take several values: `--yes a.jpg b.jpg`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the arguments as `repeat_option_names` returns them."""
        return super().parse_args(ctx, args if ctx.resilient_parsing else repeat_option_names(args))


def repeat_option_names(args: list[str]) -> list[str]:
    """Return the arguments with the name of such an option before each of its values."""
    repeated: list[str] = []
    current, has_value = "", False
    for arg in args:
        if current and has_value and not arg.startswith("-"):
            repeated.append(current)
        has_value = not arg.startswith("-")
        current = (arg if arg in _LIST_OPTIONS else "") if arg.startswith("-") else current
        repeated.append(arg)
    return repeated


@dataclass(frozen=True, kw_only=True)
class ActionArguments:
    """What is done with a word, or with all words."""

    apply: Annotated[bool, typer.Option("--apply", help="Teach the word to the index, instead of only a preview.")] = False
    forget: Annotated[bool, typer.Option("--forget", help="Take the word back: documents are as they were before.")] = False
    local: Annotated[
        Path | None,
        typer.Option("--local", metavar="FILE", help="Write the word to a file for your own searches, not to the index."),
    ] = None
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the taught words of the index to a new file, a token policy."),
    ] = None
    refit: Annotated[
        Path | None,
        typer.Option("--refit", metavar="FILE", help="Teach the words of a file again, from their marks in this index."),
    ] = None

    def check(self, word: str | None, *, has_marks: bool) -> None:
        """Raise UsageError for options that contradict each other."""
        actions = {"--forget": self.forget, "--export": self.export, "--refit": self.refit, "--local": self.local}
        chosen = [name for name, value in actions.items() if value]
        if len(chosen) > 1 or (chosen and self.apply and chosen != ["--refit"]):
            names = " and ".join([*chosen, *(["--apply"] if self.apply else [])])
            raise UsageError(f"{names} can't be combined", "Give one of them.", code="conflicting-options")
        if has_marks and (self.forget or self.export or self.refit):
            raise UsageError(f"{chosen[0]} takes no marks", "Omit --yes and --no.", code="conflicting-options")
        if not word and (has_marks or self.apply or self.forget or self.local) and not self.refit:
            raise UsageError("no word to teach", "Give it: stair-es teach WORD --yes IMAGE IMAGE IMAGE", code="no-word-to-teach")


def teach_command(
    word: Annotated[str | None, typer.Argument(metavar="WORD", help="Word or phrase, of any language.")] = None,
    yes: _Yes = None,
    no: _No = None,
    mode: _Mode = None,
    k: _PreviewHits = 50,
    requests_per_second: RateOption = 0.0,
    slices: SlicesOption = 0,
    as_json: shared.JsonOption = False,
    *,
    action: ActionArguments,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    encoder: EncoderArguments,
) -> None:
    """Teach an index a word from a few pictures that show it, or list its taught words.

    **Examples**

    ```text
    stair-es teach windmill --index photos --yes a.jpg b.jpg c.jpg --no crane.jpg
    stair-es teach windmill --index photos --yes a.jpg b.jpg c.jpg --no crane.jpg --apply
    stair-es teach --index photos
    stair-es teach windmill --index photos --forget
    stair-es teach --index photos --export words.json
    stair-es teach windmill --index photos --yes a.jpg b.jpg c.jpg --local mine.json
    ```

    Without --apply, nothing changes: prints the word as words of the model with weights, an estimate of its precision, and the
    images that it would find. Marks of a word that is already taught are kept. With it, images get the token `#WORD`, also those
    that are ingested later, and searches of the word find them. `stair-es policy apply words.json` teaches exported words.

    **Exit codes**: 0 on success; 3 if some documents failed; 1 if the run failed; 2 for a usage error.
    """
    from stair_es.taught_words import normalize_word

    action.check(word, has_marks=bool(yes or no))
    name = normalize_word(word) if word else None
    with open_cluster(connection) as cluster:
        school = _School.open(cluster, index, encoder)
        change = partial(school.change_words, rate=requests_per_second, slices=slices, as_json=as_json)
        if action.forget and name:
            change({}, [name])
        elif action.export:
            _export_words(action.export, school.select_words(name))
        elif action.refit:
            refitted = school.refit_words(action.refit, name)
            change(refitted, []) if action.apply else _print_words(refitted, {}, as_json=as_json)
        elif name and (yes or no or action.apply or mode or action.local):
            lesson = school.teach(name, yes or [], no or [], mode, action.local)
            if action.apply:
                _print_warnings(lesson)
                change({name: lesson.word}, [])
            else:
                _print_lesson(lesson, school.preview(lesson.word, k), as_json=as_json)
                _end_preview(lesson.word, action.local)
        else:
            school.print_words(name, as_json=as_json)


def _end_preview(word: TaughtWord, file: Path | None) -> None:
    """Write the word to the file for own searches, if there is one, and say what can be done with it."""
    if file is None:
        print_notice("nothing was changed; with --apply, the index learns it")
        return
    from stair_es.teaching.word_file import add_words

    add_words(file, {word.word: word})
    print_notice(f"written to {file}: stair-es search {shlex.quote(word.word)} --local {file}")


@dataclass(frozen=True, kw_only=True)
class _School:
    """An index that can be taught."""

    cluster: Cluster
    index: str
    search_target: SearchTarget
    teacher: Teacher

    @classmethod
    def open(cls, cluster: Cluster, index: str, encoder: EncoderArguments) -> _School:
        from stair_es.search.index_cache import fetch_search_target
        from stair_es.teaching.teacher import Teacher

        target = fetch_search_target(cluster, index, None)
        teacher = Teacher(cluster, index, target.info, partial(encoder.load_checked, target.info, index))
        return cls(cluster=cluster, index=index, search_target=target, teacher=teacher)

    def select_words(self, name: str | None) -> Mapping[str, TaughtWord]:
        words = self.teacher.taught_words
        if name is None:
            return words
        if name not in words:
            raise UsageError(
                f"the index wasn't taught the word {name!r}",
                f"Teach it: stair-es teach {shlex.quote(name)} --yes IMAGE IMAGE IMAGE",
                code="not-a-taught-word",
            )
        return {name: words[name]}

    def print_words(self, name: str | None, *, as_json: bool) -> None:
        words = self.select_words(name)
        _print_words(words, self.teacher.count_erased(words), as_json=as_json)

    def teach(self, name: str, yes: Sequence[str], no: Sequence[str], mode: TaughtMode | None, local: Path | None) -> Lesson:
        """Fit a word to its marks, and to those that it has in the index, or in the file of words for own searches."""
        from stair_es.config.policy_file import load_policy

        words = self.teacher.taught_words
        if local is not None:
            words = load_policy(local).teach if local.exists() else {}
        marks = self.teacher.find_marks(yes), self.teacher.find_marks(no)
        return self.teacher.teach(name, *marks, mode=mode, former=words.get(name))

    def refit_words(self, file: Path, name: str | None) -> dict[str, TaughtWord]:
        """Fit the words of a file again; one that can't be is left out with a notice, unless it is the only one."""
        from stair_es.teaching.word_file import load_words

        words = load_words(file)
        if name is not None:
            words = {name: words[name]} if name in words else {}
        refitted: dict[str, TaughtWord] = {}
        problem = UsageError(f"{file} has no such word", code="not-a-taught-word")
        for word in words.values():
            try:
                refitted[word.word] = self.teacher.teach(word.word, (), mode=word.mode, former=word).word
            except UsageError as error:
                problem = error
                print_notice(f"{word.word!r} is left out: {error.message}")
        if not refitted:
            raise problem
        return refitted

    def preview(self, word: TaughtWord, k: int) -> list[PreviewHit]:
        from stair_es.search.searcher import create_query_runner

        return self.teacher.preview(word, create_query_runner(self.cluster, self.index), self.search_target, k)

    def change_words(
        self, taught: Mapping[str, TaughtWord], forgotten: Sequence[str], *, rate: float, slices: int, as_json: bool
    ) -> None:
        from stair_es.cluster.policy.manager import PolicyManager

        change = partial(PolicyManager(self.cluster, self.index).change_words, taught, forgotten)
        run_update(change, "taught" if taught else "forgotten", rate, slices, as_json)


def _export_words(file: Path, words: Mapping[str, TaughtWord]) -> None:
    if not words:
        raise UsageError("the index has no taught words", "Teach one: stair-es teach WORD --yes ...", code="not-a-taught-word")
    if file.exists():
        raise UsageError(f"{file} exists", "Give a new file.", code="file-exists")
    from stair_es.teaching.word_file import add_words

    add_words(file, words)
    print_notice(f"{len(words):,} words; to another index of the same model: stair-es policy apply {file} --index NAME")


def _print_lesson(lesson: Lesson, hits: Sequence[PreviewHit], *, as_json: bool) -> None:
    word, fitted = lesson.word, lesson.fitted
    if as_json:
        emit_json(
            {
                "word": word.word,
                **word.to_json(),
                "found_again": fitted.found_again,
                "doubtful_yes": [lesson.yes[place].uri for place in fitted.doubtful_yes],
                "matching_no": [lesson.no[place].uri for place in fitted.matching_no],
                "erased": lesson.erased,
                "images": lesson.images,
                "sampled": lesson.sampled,
                "match_share": lesson.match_share,
                "token_share": lesson.token_share,
                "hits": [
                    {"id": hit.image.id, "uri": hit.image.uri, "weight": hit.weight, "weak": not hit.is_match} for hit in hits
                ],
            }
        )
        return
    terminal = TerminalInfo.from_console(stdout)
    stdout.print(
        format_line(f"{word.word}, from {len(lesson.yes)} images that show it and {len(lesson.no)} that don't", terminal, "bold")
    )
    for line in format_weights(word.tokens.items(), terminal):
        stdout.print(line)
    estimated = "" if lesson.sampled + len(lesson.yes) + len(lesson.no) >= lesson.images else "about "
    matches = round(lesson.match_share * (lesson.images - len(lesson.yes) - len(lesson.no)))
    stdout.print(
        f"precision about {fitted.precision:.2f}; {fitted.found_again} of {len(lesson.yes)} marks are found again if left out"
    )
    stdout.print(
        f"matches besides the marks: {estimated}{matches:,} of {lesson.images:,} images; the word {_describe_mode(word)}"
    )
    _print_warnings(lesson)
    marks = {image.id: "yes" for image in lesson.yes} | {image.id: "no" for image in lesson.no}
    for rank, hit in enumerate(hits, 1):
        mark = marks.get(hit.image.id, "" if hit.is_match else "weak")
        stdout.print(format_line(f"{rank:>3}  {hit.weight:6.4f}  {mark:<4}  {display_path(hit.image.uri)}", terminal))


def _describe_mode(word: TaughtWord) -> str:
    return "replaces what the model makes of it" if word.mode == "replace" else "adds to what the model makes of it"


def _print_warnings(lesson: Lesson) -> None:
    fitted = lesson.fitted
    if lesson.erased:
        print_notice(f"{lesson.erased} former marks are no longer in the index, and are dropped")
    for places, images, text in (
        (fitted.doubtful_yes, lesson.yes, "marked as showing it, but unlike the others"),
        (fitted.matching_no, lesson.no, "marked as not showing it, but matching nevertheless"),
    ):
        names = [display_path(images[place].uri) for place in places]
        if names:
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            print_notice(f"{text}: {', '.join(names[:_MAX_NAMED])}{more}")


def _print_words(words: Mapping[str, TaughtWord], erased: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        emit_json([{"word": name, **word.to_json(), "erased": erased.get(name, 0)} for name, word in words.items()])
        return
    terminal = TerminalInfo.from_console(stdout)
    for name, word in words.items():
        marks = f"{len(word.yes)} yes, {len(word.no)} no" + (f", {erased[name]} erased" if erased.get(name) else "")
        tokens = ", ".join(list(word.tokens)[:_MAX_NAMED])
        precision = "" if word.precision is None else f"  precision about {word.precision:.2f}"
        stdout.print(format_line(f"{name}  {word.taught_at[:10]}  {marks}{precision}  {escape_control(tokens)}", terminal))
    if not words:
        stdout.print("no taught words")
