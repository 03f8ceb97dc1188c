"""Check commit messages: `area: imperative subject`, at most 72 characters, no period at its end, a blank line below it.

::

    python scripts/check_commits.py .git/COMMIT_EDITMSG           # one message: as a commit-msg hook
    python scripts/check_commits.py --range origin/main..HEAD     # all commits of a range: in CI

It exits with 1, and prints a line for each problem.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_SUBJECT_CHARS = 72
_SUBJECT = re.compile(r"[\w./-]+(?:, [\w./-]+)*: (?P<verb>\S+)(?: .*)?")
_GENERATED = re.compile(r'Merge |Revert "|Release \d+\.\d+\.\d+(?: \(#\d+\))?$|(?:ci|deploy): bump ')
"""Subjects that git, the release procedure and Dependabot write, of any length."""
_AUTOSQUASH = re.compile(r"(?:fixup|squash|amend)! ")
"""Subjects of commits that `git rebase --autosquash` melts into others: allowed on a branch, not in a range."""
_OTHER_FORM = re.compile(r"\w+(?:(?<!e)ed|ing|(?<![sui])s)", re.IGNORECASE)
"""Past, participle or third person in place of the imperative: `added`, `adding`, `adds`."""
_IMPERATIVES = frozenset({"embed", "shed", "wed", "bring", "ring", "sing", "spring", "string", "swing", "alias", "canvas"})
"""Imperatives that look like another form."""
_SCISSORS = "# ------------------------ >8 ------------------------"
"""`git commit --verbose` writes the diff below this line."""


def find_problems(message: str, *, allow_autosquash: bool = False) -> list[str]:
    """Return what is wrong with a commit message.

    Args:
        message: The message, without comments.
        allow_autosquash: Whether `fixup!` and the like are allowed.
    """
    subject, *body = message.rstrip().split("\n")
    if _GENERATED.match(subject) or (allow_autosquash and _AUTOSQUASH.match(subject)):
        return []
    problems = []
    if len(subject) > MAX_SUBJECT_CHARS:
        problems.append(f"the subject has {len(subject)} characters; at most {MAX_SUBJECT_CHARS} are allowed")
    if subject.endswith("."):
        problems.append("the subject ends with a period")
    matched = _SUBJECT.fullmatch(subject)
    if matched is None:
        problems.append("the subject is not `area: imperative subject`, such as `search: reject an empty filter`")
    elif _OTHER_FORM.fullmatch(matched["verb"]) and matched["verb"].lower() not in _IMPERATIVES:
        problems.append(f"{matched['verb']!r} is not an imperative: write `add`, not `added`, `adds` or `adding`")
    if body and body[0].strip():
        problems.append("the line below the subject is not blank")
    return problems


def read_message(path: Path) -> str:
    """Return the message in a file that git gives to a commit-msg hook, without comments and the diff."""
    text = path.read_text(encoding="utf-8").partition(_SCISSORS)[0]
    return "\n".join(line for line in text.split("\n") if not line.startswith("#")).strip()


def list_messages(commits: str) -> Iterator[tuple[str, str]]:
    """Yield `(short hash, message)` of each commit of a range."""
    command = ("git", "log", "--reverse", "--format=%h%x00%B%x00", commits)
    fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    for commit, message in zip(fields[::2], fields[1::2], strict=False):
        yield commit.strip(), message.strip()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Check the form of commit messages.")
    parser.add_argument("file", nargs="?", type=Path, help="file with one message, as git gives it to a commit-msg hook")
    parser.add_argument("--range", dest="commits", help="commits to check, such as origin/main..HEAD")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.commits is None):
        parser.error("give a file or --range")
    if arguments.file is not None:
        found = [("", find_problems(read_message(arguments.file), allow_autosquash=True))]
    else:
        found = [(f"{commit}: ", find_problems(message)) for commit, message in list_messages(arguments.commits)]
    lines = [f"{commit}{problem}" for commit, problems in found for problem in problems]
    if lines:
        print("\n".join(lines), file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
