"""Control characters of names never reach a terminal."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from domainnorm.cli import main
from domainnorm.terminal import create_console, printable, say

EVIL = "a\x1b[2J\x07\r\x9bb"
SPELLED = "a\\x1b[2J\\x07\\x0d\\x9bb"


def test_control_characters_are_spelled_out():
    assert printable(EVIL) == SPELLED
    assert printable("lines\nand\ttabs ä 日本") == "lines\nand\ttabs ä 日本"


def test_names_that_are_no_text_can_be_said():
    assert printable(b"a\xff.yaml".decode("utf-8", "surrogateescape")) == "a\\udcff.yaml"


def test_what_is_said_is_printable(capsys):
    say(EVIL)
    say(EVIL, error=True)
    assert capsys.readouterr() == (f"{SPELLED}\n", f"{SPELLED}\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_keep_their_colours_and_lose_those_of_names(monkeypatch, terminal):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    console = create_console()
    console.file = io.StringIO()
    console._force_terminal = terminal
    console._color_system = console._detect_color_system() if terminal else None
    table = Table(title=EVIL)
    table.add_column("name")
    table.add_row(EVIL)
    table.add_row(Text(EVIL, style="red"))
    console.print(table)
    console.print(EVIL, markup=False)
    shown = console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert not set("\x07\r\x9b") & set(shown)
    assert ("\x1b[" in shown) == terminal
    assert "a\\x1b[2J" in shown


@pytest.mark.parametrize(
    "words",
    [
        ["check", "quickstart", f"norm={EVIL}"],
        ["check", f"quick{EVIL}"],
        ["check", "quickstart", f"data.{EVIL}=1"],
        [f"run{EVIL}"],
        ["run", "--resume", f"/nowhere/{EVIL}"],
        ["predict", f"/nowhere/{EVIL}", f"/nowhere/{EVIL}"],
        ["pack", "show", f"/nowhere/{EVIL}"],
        ["data", "check", "name=folder", f"root=/nowhere/{EVIL}"],
        ["show", f"quick{EVIL}"],
        ["run", f"--{EVIL}"],
    ],
)
def test_messages_of_commands(words, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    output = "".join(capsys.readouterr())
    assert code in (1, 2)
    assert "\\x1b" in output or "\\e" in output
    assert not set("\x1b\x07\r\x9b") & set(output)
