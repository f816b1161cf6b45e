"""Finds words that readers of pgworker had to translate, and names the ones to use instead.

    python tests/check_words.py [--counts] [PATH…]

Prints `file:line: found: use instead`, one line for each, and exits with 1 if there is any. The
words are those that a review found in nearly every module: metaphors where the field has a term,
and free relatives where English has a noun.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
FOLDERS = ("pgworker", "cli", "sql", "docs")
SUFFIXES = frozenset({".html", ".js", ".md", ".py", ".sql"})
# Others' code, and pictures.
SKIPPED = frozenset({"images", "vendor"})


class Rule(NamedTuple):
    """A word, and what to write instead.

    Attributes:
        pattern: matched without regard to case, between anything that is no letter; so it finds
            `told` in `told_to_leave`, too.
    """

    pattern: str
    instead: str


RULES = (
    Rule("whoever|whomever", "the caller, the worker that …, or whichever noun it is"),
    Rule("(?:as|by|for|from|of|than) who", "a noun: the caller, the worker that …"),
    Rule("nobody|somebody|everybody|anybody", "the noun: no worker, a person, another client, all"),
    Rule("tells?|told|telling", "report, say, show, name, record; is notified; knows"),
    Rule("amiss", "wrong; a difference; a finding"),
    # Not Python's `"x" in line`.
    Rule("(?<![\"')}\\]] )in line(?! with| \\d|:$)", "queued, queued again"),
    Rule("take leave|takes leave|leave-taking", "close, sign off, disconnect"),
    Rule("house|ears", "the thing itself; a session that listens"),
    Rule("carriers?", "executor, task"),
    Rule("settlements?|settling", "completer, pending write; becoming stable"),
    Rule("hand(?:s|ed)?[ _]in|handing[ _]in", "submit"),
    Rule("fulfil\\w*", "record_ref; record"),
    Rule("sightings?", "remote tenant; what the provider lists"),
    Rule("briefings?", "phase input; prefetched"),
    Rule("learnt", "learned; recorded; the checkpoint"),
    Rule("lateness", "overdue"),
    Rule("anew", "again; from the start"),
    Rule("shall", "will, should, must"),
    Rule("unheard(?:[ _]of)?", "unknown"),
)
# At the start of a sentence; a heading or a question may begin so.
FREE_RELATIVE = re.compile(
    r"(?:^|[.:;!]\s|\"\"\"|--\s|#\s)\s*(Who (?!may\b|can\b)[a-z]+)(?![^.]*\?)"
)
FREE_RELATIVE_INSTEAD = "a noun: a worker that …, the caller"


class Allowed(NamedTuple):
    """What may stay.

    Attributes:
        path: a file or a folder, as a prefix; empty for all.
        text: a part of the line.
    """

    path: str
    text: str
    reason: str


ALLOWED = (
    Allowed("", "apart", "to tell one thing from another is what the verb is for"),
    Allowed("", "can't tell", "as above"),
    Allowed("", "cannot tell", "as above"),
)


class Found(NamedTuple):
    """One word in one line."""

    path: Path
    line: int
    word: str
    instead: str


_PATTERNS = tuple(
    (re.compile(rf"(?<![A-Za-z])({rule.pattern})(?![A-Za-z])", re.IGNORECASE), rule.instead)
    for rule in RULES
)


def find_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, word and advice for each word that a reader would have to translate."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, instead in (*_PATTERNS, (FREE_RELATIVE, FREE_RELATIVE_INSTEAD)):
            for match in pattern.finditer(line):
                yield number, match[1], instead


def check_files(paths: Iterable[Path], *, root: Path = ROOT) -> Iterator[Found]:
    """Yield what is found in files, and in folders with all that they hold."""
    for file in _list_files(paths):
        name = file.relative_to(root).as_posix()
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        allowed = [each.text for each in ALLOWED if name.startswith(each.path)]
        for number, word, instead in find_words(text):
            if not any(each in lines[number - 1] for each in allowed):
                yield Found(Path(name), number, word, instead)


def _list_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in SUFFIXES and not SKIPPED.intersection(file.parts):
                yield file


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the given paths, or all of them; return the exit code."""
    parser = argparse.ArgumentParser(description="Find words that readers had to translate.")
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / name for name in FOLDERS])
    parser.add_argument("--counts", action="store_true", help="print only how many, by folder")
    options = parser.parse_args(arguments)
    found = list(check_files([path.resolve() for path in options.paths]))
    if options.counts:
        for folder, count in Counter("/".join(each.path.parts[:2]) for each in found).most_common():
            print(f"{count:5} {folder}")
        print(f"{len(found):5} in all")
    else:
        for each in found:
            print(f"{each.path}:{each.line}: {each.word}: {each.instead}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
