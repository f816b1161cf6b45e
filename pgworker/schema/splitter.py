r"""Splits an SQL file into its statements. Pure text: nothing here knows a grammar.

Splits as Supabase's CLI does (its `pkg/parser`): at each `;` that stands outside of quotes, dollar
quotes, comments, parentheses and `BEGIN ATOMIC … END`; comments stay in their statement. The
lexical rules are those of PostgreSQL's `scan.l` with `standard_conforming_strings` on. A quote or
comment that is never closed runs to the end of the text: the server will say so.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# As in `scan.l`. Python's \s matches more characters, which are letters to PostgreSQL.
WHITE_SPACE = " \t\n\r\f\v"
# Enough for `create unique index concurrently if not exists …` and its like.
WORDS_KEPT = 8

# The quantifiers `++` and `*+` never give back what they matched: a literal that isn't closed would
# otherwise take time that grows with the square of its length.
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
class SqlStatement:
    """The text between two separators: a statement, or nothing but comments.

    Attributes:
        start: offset of its first character in the text.
        end: offset behind its last one: of the `;`, or of the text's end.
        first: offset of its first token that isn't a comment; None when there is none.
        line: line of that token (of the statement's end when there is none), from 1.
        text: without outer white space.
        words: its first words in lower case, for callers that can't parse it.
    """

    start: int
    end: int
    first: int | None
    line: int
    text: str
    words: tuple[str, ...]

    @property
    def is_comment(self) -> bool:
        """Whether it holds nothing but comments."""
        return self.first is None


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


def split_script(text: str) -> tuple[SqlStatement, ...]:
    """Cut a text at its top-level semicolons, as the CLI records it: comments are kept.

    What stands between two semicolons is left out only if it is white space.
    """
    line_of = LineFinder(text)
    statements: list[SqlStatement] = []
    builder = _StatementBuilder(start=0)
    for token in tokenize(text):
        if token.text == ";" and builder.may_end:
            statements += builder.build(token.start, text, line_of)
            builder = _StatementBuilder(start=token.start + 1)
        else:
            builder.add(token)
    statements += builder.build(len(text), text, line_of)
    return tuple(statements)


def find_statements(text: str) -> tuple[SqlStatement, ...]:
    """Return the statements of a text, without those that are only comments."""
    return tuple(statement for statement in split_script(text) if not statement.is_comment)


def normal_form(text: str) -> str:
    """Return the text without what doesn't change its meaning.

    White space and comments between tokens are left out, and so are semicolons, since tools
    disagree where these belong. Text in quotes stays as it is but for its line ends, which git may
    translate.
    """
    return " ".join(
        token.text
        for token in tokenize(text.replace("\r\n", "\n"))
        if token.kind not in {"space", "comment"} and token.text != ";"
    )


class LineFinder:
    """Converts offsets to lines, as an editor counts them."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\n", text))]

    def __call__(self, offset: int) -> int:
        """Return the line, from 1, on which the character at `offset` stands."""
        return bisect_right(self._starts, offset)


class _StatementBuilder:
    """Collects the tokens of one statement, and knows how deep they are nested."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.first: int | None = None
        self.words: list[str] = []
        self.parentheses = 0
        self.atomic = 0  # open BEGIN ATOMIC and, inside, CASE: each needs its END
        self.previous = ""

    @property
    def may_end(self) -> bool:
        return self.parentheses == 0 and self.atomic == 0

    def add(self, token: Token) -> None:
        if token.kind in {"space", "comment"}:
            return
        if self.first is None:
            self.first = token.start
        if token.text == "(":
            self.parentheses += 1
        elif token.text == ")":
            # One too many must not hide every semicolon behind it.
            self.parentheses = max(0, self.parentheses - 1)
        text = token.text
        if token.kind == "word":
            text = text.lower()
            self._add_word(text)
        self.previous = text

    def _add_word(self, word: str) -> None:
        if len(self.words) < WORDS_KEPT:
            self.words.append(word)
        if self.previous in {".", "as"}:
            return  # a name: `new.end`, `as case`
        if word == "atomic":
            # Elsewhere `begin` starts a transaction, and `atomic` is a name.
            if self.previous == "begin" and self.words[0] == "create":
                self.atomic += 1
        elif self.atomic and word == "case":
            self.atomic += 1
        elif self.atomic and word == "end":
            self.atomic -= 1

    def build(self, end: int, text: str, line_of: LineFinder) -> Iterator[SqlStatement]:
        """Yield the statement that ends here, unless it is white space."""
        trimmed = text[self.start : end].strip(WHITE_SPACE)
        if trimmed:
            line = line_of(end if self.first is None else self.first)
            yield SqlStatement(self.start, end, self.first, line, trimmed, tuple(self.words))


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)
