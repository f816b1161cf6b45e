r"""Where the statements of an SQL file begin and end. Pure text: nothing here knows a grammar.

Splits as Supabase's CLI does (its `pkg/parser`): at each `;` that stands outside of quotes, dollar
quotes, comments, parentheses and `BEGIN ATOMIC … END`; comments stay in the piece they stand in.
The lexical rules are those of PostgreSQL's `scan.l` with `standard_conforming_strings` on. A quote
or comment that is never closed runs to the end of the text: the server will say so.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# What `scan.l` calls space; Python's \s has more, and those are letters to PostgreSQL.
WHITE_SPACE = " \t\n\r\f\v"

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>--[^\r\n]*)
    | (?P<block_comment>/\*)
    | (?P<escape_string>[eE]'(?:[^'\\]++|\\.|'')*+(?:'|\\?\Z))
    | (?P<string>(?:[bBnNxX]|[uU]&)?'(?:[^']++|'')*+(?:'|\Z))
    | (?P<identifier>(?:[uU]&)?"(?:[^"]++|"")*+(?:"|\Z))
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<number>[0-9][A-Za-z0-9_]*)
    | (?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# 'a'<newline>'b' is one literal (quotecontinue in scan.l): an E'' string keeps its escapes there.
_ESCAPE_STRING_GOES_ON = re.compile(
    r"""(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:[ \t\n\r\f\v]|--[^\r\n]*[\r\n])*
    '(?:[^'\\]++|\\.|'')*+(?:'|\\?\Z)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A lexical element; `kind` is space, comment, string, identifier, word, number or symbol."""

    kind: str
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands between two separators.

    Attributes:
        start: offset of its first character in the text.
        end: offset behind its last one: where the `;` stands, or the text ends.
        first: offset of its first token that isn't a comment; None when there is none, that is
            when the piece isn't a statement.
        line: line of that token (of the piece's end when there is none), from 1.
        text: without outer white space.
        words: its first words in lower case, for those who can't parse it.
    """

    start: int
    end: int
    first: int | None
    line: int
    text: str
    words: tuple[str, ...]


def tokenize(text: str) -> Iterator[Token]:
    """Cut a text into tokens; joined, they are the text again."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind = str(match.lastgroup)
        end = match.end()
        if kind == "block_comment":
            kind, end = "comment", _end_of_comment(text, end)
        elif kind == "dollar":
            closing = text.find(match.group(), end)
            kind, end = "string", len(text) if closing < 0 else closing + len(match.group())
        elif kind == "escape_string":
            kind = "string"
            while more := _ESCAPE_STRING_GOES_ON.match(text, end):
                end = more.end()
        yield Token(kind, position, text[position:end])
        position = end


def split(text: str) -> tuple[Piece, ...]:
    """Cut a text into pieces at its top-level semicolons; pieces of white space are left out."""
    line_of = LineFinder(text)
    pieces: list[Piece] = []
    piece = _PieceInTheMaking(start=0)
    for token in tokenize(text):
        if token.text == ";" and piece.may_end:
            piece.close(token.start, text, line_of, pieces)
            piece = _PieceInTheMaking(start=token.start + 1)
        else:
            piece.take(token)
    piece.close(len(text), text, line_of, pieces)
    return tuple(pieces)


def normal_form(text: str) -> str:
    """Return the text without what doesn't change its meaning.

    Left out are white space and comments between tokens, and semicolons, since tools disagree
    where these belong. What stands in quotes stays, but for line ends, which git may translate.
    """
    return " ".join(
        token.text
        for token in tokenize(text.replace("\r\n", "\n"))
        if token.kind not in {"space", "comment"} and token.text != ";"
    )


class LineFinder:
    """Tells the line of an offset, both as an editor shows them."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\n", text))]

    def __call__(self, offset: int) -> int:
        """Return the line, from 1, on which the character at `offset` stands."""
        return bisect_right(self._starts, offset)


class _PieceInTheMaking:
    """The piece that is being read: how deep we are in it, and what we saw last."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.first: int | None = None
        self.words: list[str] = []
        self.parentheses = 0
        self.atomic = 0  # open BEGIN ATOMIC and, in there, CASE: each waits for its END
        self.previous = ""

    @property
    def may_end(self) -> bool:
        return self.parentheses == 0 and self.atomic == 0

    def take(self, token: Token) -> None:
        if token.kind in {"space", "comment"}:
            return
        if self.first is None:
            self.first = token.start
        if token.text == "(":
            self.parentheses += 1
        elif token.text == ")":
            self.parentheses = max(0, self.parentheses - 1)
        text = token.text
        if token.kind == "word":
            text = text.lower()
            self._take_word(text)
        self.previous = text

    def _take_word(self, word: str) -> None:
        if len(self.words) < 8:
            self.words.append(word)
        if self.previous in {".", "as"}:
            return  # a name: `new.end`, `as case`
        if word == "atomic":
            if self.previous == "begin" and self.words[0] == "create":
                self.atomic += 1
        elif self.atomic and word == "case":
            self.atomic += 1
        elif self.atomic and word == "end":
            self.atomic -= 1

    def close(self, end: int, text: str, line_of: LineFinder, pieces: list[Piece]) -> None:
        trimmed = text[self.start : end].strip(WHITE_SPACE)
        if trimmed:
            line = line_of(end if self.first is None else self.first)
            pieces.append(Piece(self.start, end, self.first, line, trimmed, tuple(self.words)))


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)
