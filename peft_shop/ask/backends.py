"""Words that people use for a quantized base -> the backend."""

from __future__ import annotations

from typing import Final

__all__ = ["backend_of"]

_BITS: Final = {
    "bnb_4bit": ("4bit", "4_bit", "nf4", "bnb4", "bnb_nf4", "bitsandbytes_4bit", "load_in_4bit"),
    "bnb_8bit": ("8bit", "8_bit", "int8", "bnb8", "llm_int8", "bitsandbytes_8bit", "load_in_8bit"),
}
_BACKENDS: Final = {word: backend for backend, words in _BITS.items() for word in words}


def backend_of(word: str) -> str:
    """The backend that people mean by a word; another word as a backend is spelled.

    >>> backend_of("4-bit")
    'bnb_4bit'
    >>> backend_of("GPTQ")
    'gptq'
    """
    spelled = word.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    return _BACKENDS.get(spelled, spelled)
