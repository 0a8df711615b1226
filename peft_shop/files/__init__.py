"""Files and folders written whole or not at all, and read with a bound.

What is being written lies under a temporary name in the same folder until it is complete. That name
carries the process id, so that the next run can tell what a killed one left: what was complete as a
set takes its names, the rest goes.
"""

from peft_shop.files.folders import NewFolder, new_folder, workplace
from peft_shop.files.leftovers import clear_leftovers
from peft_shop.files.reading import compact_json, parse_json, read_bounded, regular_size
from peft_shop.files.writing import write_all, write_atomically

__all__ = [
    "NewFolder",
    "clear_leftovers",
    "compact_json",
    "new_folder",
    "parse_json",
    "read_bounded",
    "regular_size",
    "workplace",
    "write_all",
    "write_atomically",
]
