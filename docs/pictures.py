"""Draws the pictures of README and docs: `python docs/pictures.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from peft_shop.ask.recommend import recommend
from peft_shop.show.plots.canvas import picture

FOLDER = Path(__file__).parent / "pictures"


def pictures() -> dict[str, bytes]:
    """Contents by file name."""
    answer = recommend("metamathqa", max_peak_memory="24GiB", peft_version="any")
    path = Path("front.svg")
    return {path.name: picture(answer.plot(), path)}


def main() -> int:
    """Exit code."""
    for name, content in pictures().items():
        (FOLDER / name).write_bytes(content)
        print(f"written: docs/pictures/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
