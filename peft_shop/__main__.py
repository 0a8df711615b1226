"""The command `peft-shop`: deliberate failures become one message and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings

__all__ = ["main"]

_BAD_INPUT = 2
_INTERRUPTED = 130
_OTHERS = r"(transformers|torch|peft|diffusers|bitsandbytes|huggingface_hub|accelerate)\b"


def main() -> int:
    """Exit code of the command in `sys.argv`: see `peft-shop --help`."""
    if not sys.warnoptions:
        # what other libraries tell their developers is no answer to anybody's question
        warnings.filterwarnings("ignore", module=_OTHERS)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # our records need no plugins, and looking for some reads the metadata of every package
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from peft_shop.cli.app import app  # noqa: PLC0415 - an interrupt while importing is one too
        from peft_shop.cli.streams import guarded_streams  # noqa: PLC0415 - as above
        from peft_shop.cli.wording import in_shell  # noqa: PLC0415 - as above
        from peft_shop.errors import PeftShopError  # noqa: PLC0415 - as above
    except KeyboardInterrupt:
        return _INTERRUPTED
    with guarded_streams():
        try:
            try:
                app(prog_name="peft-shop")
            finally:
                sys.stdout.flush()
        except PeftShopError as error:
            # names from files must not move the cursor
            safe = "".join(c if c.isprintable() or c == "\n" else " " for c in in_shell(error))
            sys.stderr.write(f"error: {safe}\n")
            return _BAD_INPUT
        except KeyboardInterrupt:
            return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
