"""Fits the constants of the forecast and compares it with every run on file.

    python -m peft_shop.curate.calibration.command            fit, measure and write
    python -m peft_shop.curate.calibration.command --check    say what is stale; exit code 1 if any
    python -m peft_shop.curate.calibration.command --models   inspect models and inject runs too

Written are `data/forecast_accuracy.json`, `peft_shop/forecast/constants.json` and
`peft_shop/forecast/devices.json`. The runs of the hold-out take no part in the fit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from peft_shop.catalog.store import load
from peft_shop.curate.calibration.accuracy import (
    constants_bytes,
    constants_of,
    figures_bytes,
    measure,
)
from peft_shop.curate.calibration.devices import devices_bytes, read_devices
from peft_shop.curate.calibration.injection import measure_injection
from peft_shop.curate.calibration.structures import (
    FILES,
    FOLDER,
    build_structures,
    load_structures,
    structure_bytes,
)
from peft_shop.files import write_all

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "data"
ROOM = ROOT / "peft_shop" / "forecast"


def contents(*, models: bool) -> dict[Path, bytes]:
    """Every file that this script makes."""
    found: dict[Path, bytes] = {}
    if models:
        structures = build_structures()
        found |= {
            DATA / FOLDER / FILES[name]: structure_bytes(structure)
            for name, structure in structures.items()
        }
    else:
        structures = load_structures(DATA)
    catalog = load()
    figures = measure(catalog, structures)
    file = DATA / "forecast_accuracy.json"
    if models:
        figures["injection"] = measure_injection(catalog, structures)
    elif file.is_file():
        # needs torch: kept as it was measured
        figures["injection"] = json.loads(file.read_text(encoding="utf-8")).get("injection")
    found[file] = figures_bytes(figures)
    found[ROOM / "constants.json"] = constants_bytes(constants_of(figures, catalog))
    found[ROOM / "devices.json"] = devices_bytes(read_devices(DATA / "devices.toml"))
    return found


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument(
        "--models", action="store_true", help="inspect the models and inject every run"
    )
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    made = contents(models=options.models)
    if options.check:
        stale = [
            path for path, body in made.items() if not path.is_file() or path.read_bytes() != body
        ]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run this command without --check")
        return 1 if stale else 0
    for path in write_all(made):
        print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
