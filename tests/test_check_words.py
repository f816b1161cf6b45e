"""The check of words: what it finds, what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check_words import ALLOWED, ROOT, check_files, find_words, main


def words(text: str) -> list[str]:
    return [word for _, word, _ in find_words(text)]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("# The fence stops whoever held the job.", "whoever"),
        ("Who loses the lease would be the classic duplicate.", "Who loses"),
        ('    """Who asks, and what they may do.', "Who asks"),
        ("-- Fields of a client, by who holds the job", "by who"),
        ("one statement serves everybody in the process", "everybody"),
        ("    told_to_leave = _drain_on_signals(daemon)", "told"),
        ("self._told = {}", "told"),
        ("print('in line again')", "in line"),
        ("class Carriers:", "Carriers"),
        ("def _hand_in(self) -> None:", "hand_in"),
        ("the requests that were handed in", "handed in"),
        ("await ctx.intents.fulfil(intent)", "fulfil"),
        ("what the workflow learnt so far", "learnt"),
        ("nothing is amiss", "amiss"),
    ],
)
def test_a_word_that_readers_had_to_translate_is_found(line: str, word: str) -> None:
    assert words(line) == [word]


@pytest.mark.parametrize(
    "line",
    [
        "## Who may write",
        "Who renews it? The worker that holds the job.",
        "find out who deleted it",
        "a worker, who holds the job",
        "error in line 3 of the file",
        '    if "x" in line and letter in line:',
        "that is in line with the documentation",
        "the seller has a greenhouse and years of experience",
        "a handy index",
    ],
)
def test_ordinary_english_is_left_alone(line: str) -> None:
    assert words(line) == []


def test_a_finding_names_file_and_line_and_the_word_to_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "other.js").write_text("// nobody\n")
    file = tmp_path / "module.py"
    file.write_text("# Plain.\n# It can't tell the two apart.\n# Nobody waits.\n")
    ((path, line, word, instead),) = check_files([tmp_path], root=tmp_path)
    assert (path, line, word) == (Path("module.py"), 3, "Nobody")
    assert "no worker" in instead


def test_the_exit_code_is_1_only_when_something_is_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(ROOT / "LICENSE")]) == 0
    assert capsys.readouterr().out == ""
    # It holds the words that it looks for.
    assert main([str(ROOT / "tests" / "check_words.py")]) == 1
    assert "tests/check_words.py:" in capsys.readouterr().out


def test_what_is_allowed_is_still_there() -> None:
    for each in ALLOWED:
        if each.path:
            text = (ROOT / each.path).read_text(encoding="utf-8")
            assert each.text in text, f"{each.path} no longer needs an exception"
