"""What a database that doesn't store Unicode can hold, and what is stored in place of the rest.

asyncpg always talks UTF-8. A server whose database has another encoding converts each text, and
refuses the whole statement when one character has no place in that encoding (SQLSTATE 22P05). Our
own messages quote other people's texts, so that any character may be among them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# PostgreSQL takes each of these as it is: SQL_ASCII converts nothing.
WITHOUT_CONVERSION: Final = frozenset({"UTF8", "SQL_ASCII"})

# PostgreSQL's names of encodings (chapter 23.3.1) and Python's. Compared character by character
# with PostgreSQL 18: both hold the same, but for the exceptions below.
_CODECS: Final = {
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6",
    "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "WIN1253": "cp1253",
    "WIN1254": "cp1254",
    "WIN1255": "cp1255",
    "WIN1256": "cp1256",
    "WIN1257": "cp1257",
    "WIN1258": "cp1258",
    "EUC_CN": "gb2312",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
}
# Python's EUC_JP has these, PostgreSQL's has others (full-width ones) in their places.
_ONLY_PYTHON_HAS: Final = {"EUC_JP": frozenset("¢£¥¦¬‖‾−〜")}
# Python writes a Hangul syllable that EUC_KR lacks as eight bytes, which PostgreSQL doesn't know.
_LONGEST_CHARACTER: Final = 3

# Characters of our own messages, as people type them.
_AS_TYPED: Final = {"…": "...", "–": "-", "—": "-", "→": "->"}  # en dash


def holds(text: str, encoding: str) -> bool:
    """Return whether a database of that encoding (`server_encoding`) can store the text."""
    if encoding in WITHOUT_CONVERSION or text.isascii():
        return True
    return all(_holds_character(each, encoding) for each in set(text))


def replace_unstorable(text: str, encoding: str) -> str:
    """Return the text with a question mark for each character that the encoding lacks."""
    if holds(text, encoding):
        return text
    return "".join(
        each if _holds_character(each, encoding) else _AS_TYPED.get(each, "?") for each in text
    )


@lru_cache(maxsize=4096)
def _holds_character(character: str, encoding: str) -> bool:
    if character.isascii():
        return True
    codec = _CODECS.get(encoding)
    # Python doesn't know the encoding, or knows another version of it: ASCII is in all of them.
    if codec is None or character in _ONLY_PYTHON_HAS.get(encoding, ()):
        return False
    try:
        return len(character.encode(codec)) <= _LONGEST_CHARACTER
    except UnicodeEncodeError:
        return False
