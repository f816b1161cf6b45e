"""Draws docs/images/demo.svg from what `pgworker demo` really prints (run it from .venv)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 92
TARGET = Path(__file__).with_name("demo.svg")


def main() -> None:
    """Run the demo with colours and keep its last screen."""
    with tempfile.TemporaryDirectory(prefix="pgworker-demo-") as folder:
        environment = os.environ | {
            "PGWORKER_DATA_DIR": folder,
            "FORCE_COLOR": "1",
            "COLUMNS": str(WIDTH),
        }
        command = [str(Path(sys.executable).with_name("pgworker")), "demo"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print("$ make demo", style="bold", highlight=False)
    said = done.stdout.replace(folder, "~/.local/share/pgworker")
    console.print(Text.from_ansi(last_frame(said)))
    picture = console.export_svg(title="pgworker demo")
    # No font from elsewhere: a picture must not call home.
    picture = re.sub(r"@font-face \{.*?\n    \}\n", "", picture, flags=re.DOTALL)
    TARGET.write_text(picture, encoding="utf-8")


def last_frame(said: str) -> str:
    """Return what stays on the screen: of the progress, which is drawn over and over, the end."""
    without_moves = re.sub(r"\x1b\[(\?\d+[hl]|\d*[A-HJK])", "", said).replace("\r", "")
    frames = re.split(r"^(?=.*client.*phase)", without_moves, flags=re.MULTILINE)
    return said if len(frames) == 1 else frames[0] + frames[-1]


if __name__ == "__main__":
    main()
