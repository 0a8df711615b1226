"""What the web page weighs and how quickly it follows a filter, measured in a browser."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

__all__ = ["filter_times", "weights"]

_FIRST = ("index.html", "assets/app.css", "assets/app.js", "data/table.js")


def weights(site: Path) -> tuple[int, int]:
    """Bytes of the page's own script and style, and gzipped those that its first answer needs."""
    own = sum((site / "assets" / name).stat().st_size for name in ("app.js", "app.css"))
    return own, sum(len(gzip.compress((site / name).read_bytes(), 9)) for name in _FIRST)


def filter_times(site: Path) -> list[float] | None:
    """Times of a hundred changes [ms], ascending; `None` without a browser or the page's tools."""
    sources = Path(str(files("peft_shop.show.site") / "src"))
    tools = (sources / "node_modules" / "playwright-core").is_dir()
    if not tools or shutil.which("node") is None or shutil.which("chromium") is None:
        return None
    command = ["node", Path(__file__).with_name("page.mjs"), sources, site]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times: list[float] = json.loads(done.stdout)
    return times
