"""How people name accelerators: "4x3090", "Colab T4", "A100 80GB", "NVIDIA A100-SXM4-80GB".

A name is read as a count, the words that tell a card from others, and a size; maker, form factor
and place of hire say nothing about the card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Spoken", "base_name", "read_name", "spellings"]

_BEFORE: Final = re.compile(r"(?P<count>\d{1,3})\s*[x×*]\s*(?P<name>.+)", re.IGNORECASE)  # noqa: RUF001 - people write it
_APART: Final = re.compile(r"(?P<count>\d{1,2})\s+(?P<name>(?![kmgt]i?b\b)[a-z].+)", re.IGNORECASE)
_AFTER: Final = re.compile(r"(?P<name>.*[\w)])\s*[x×*]\s*(?P<count>\d{1,2})", re.IGNORECASE)  # noqa: RUF001 - as above
_SIZE: Final = re.compile(r"(?<![\w.])(?P<size>\d[\d_]*(?:\.\d+)?\s*[kmgt]i?b)\b", re.IGNORECASE)
_SHORT_SIZE: Final = re.compile(r"(?<![\w.])(?P<number>\d+)\s*g\b", re.IGNORECASE)
_DASHED: Final = re.compile(r"-\d+GB$")
_COMPUTER: Final = re.compile(r"\b(?:macbook|mac)(?:\s+(?:pro|air|mini|studio))?(?=\s)")
_LAPTOP: Final = re.compile(r"\b(?:laptop|mobile|notebook|max-?q)\b")
_SHORT_LAPTOP: Final = re.compile(r"\b((?:[rg]tx\s*)?\d{4}(?:\s*ti)?)\s*m\b")

_NOISE: Final = frozenset(
    (
        # makers and their brands
        *("nvidia", "geforce", "tesla", "amd", "radeon", "instinct", "intel", "apple", "google"),
        # where it is hired
        *(
            "colab",
            "kaggle",
            "aws",
            "ec2",
            "azure",
            "gcp",
            "cloud",
            "lambda",
            "labs",
            "runpod",
            "vast",
            "vastai",
            "paperspace",
            "sagemaker",
        ),
        # form factors, memory kinds, generations, and what a driver adds
        *(
            "gpu",
            "gpus",
            "graphics",
            "card",
            "cards",
            "accelerator",
            "vram",
            "ram",
            "memory",
            "unified",
            "chip",
            "silicon",
            "imac",
            "sxm",
            "sxm2",
            "sxm3",
            "sxm4",
            "sxm5",
            "pcie",
            "oam",
            "hbm",
            "hbm2",
            "hbm2e",
            "hbm3",
            "hbm3e",
            "gddr6",
            "gddr6x",
            "gddr7",
            "blackwell",
            "generation",
            "workstation",
            "server",
            "edition",
            "desktop",
            "founders",
            "r",
            "tm",
            "a",
            "an",
            "the",
            "data",
            "center",
            "datacenter",
            "with",
        ),
    )
)
"""Words that tell no card from another."""
_SERIES: Final = frozenset(
    {"rtx", "gtx", "rx", "quadro", "pro", "ai", "arc", "jetson", "dgx", "max"}
)
"""First words of a name that people leave out, where others are left."""
_COUNTS: Final = {"dual": 2, "two": 2, "four": 4, "eight": 8}
_OPTIONAL_ENDS: Final = frozenset({"ada"})


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a text says of an accelerator.

    Attributes:
        count: how many.
        key: what tells the card, without spaces and signs; empty where only a size is named.
        size: memory per device, as written; `None` where the text tells none.
    """

    count: int
    key: str
    size: str | None = None


def read_name(text: str) -> Spoken:
    """Count, card and size that `text` names.

    >>> read_name("kaggle 2xT4")
    Spoken(count=2, key='t4', size=None)
    >>> read_name("NVIDIA A100-SXM4-80GB")
    Spoken(count=1, key='a100', size='80GB')
    """
    count, name = _counted(_without_noise_in_front(text.strip()))
    if name.startswith(("-", "+")):  # a number, and a wrong one
        return Spoken(count, "", name)
    size = _SIZE.search(name)
    if size is not None:
        rest = f"{name[: size.start()]} {name[size.end() :]}"
        return Spoken(count, _key(rest), size["size"])
    short = _SHORT_SIZE.search(name)
    rest = _key(f"{name[: short.start()]} {name[short.end() :]}") if short else ""
    if short and rest:  # beside a card; alone it has no unit
        return Spoken(count, rest, f"{short['number']}GB")
    return Spoken(count, _key(name))


def _counted(text: str) -> tuple[int, str]:
    first, _, rest = text.partition(" ")
    if rest and first.lower() in _COUNTS:
        return _COUNTS[first.lower()], rest.strip()
    for pattern in (_BEFORE, _APART, _AFTER):
        match = pattern.fullmatch(text)
        if match:
            return int(match["count"]), match["name"].strip()
    return 1, text


def _without_noise_in_front(text: str) -> str:
    """The text from its first word on that says something, so that a count can stand there."""
    words = text.split()
    while len(words) > 1 and words[0].lower() in _NOISE:
        words.pop(0)
    return " ".join(words)


def _words(name: str) -> list[str]:
    plain = _COMPUTER.sub(" ", name.lower())
    plain = _SHORT_LAPTOP.sub(r"\1 laptop", plain)
    if "pro" not in plain:  # the Max-Q edition of a workstation's card is the same card
        plain = _LAPTOP.sub("laptop", plain)
    else:
        plain = re.sub(r"\bmax-?q\b", " ", plain)
    words = [word for word in re.findall(r"[a-z0-9]+", plain) if word not in _NOISE]
    # "laptop 4090" and "4090 laptop" are one card
    return [word for word in words if word != "laptop"] + ["laptop"] * ("laptop" in words)


def _key(name: str) -> str:
    return "".join(_words(name))


def base_name(name: str) -> str:
    """The name of a table's row without the size behind it.

    >>> base_name("A100-80GB")
    'A100'
    """
    return _DASHED.sub("", name)


def spellings(name: str) -> frozenset[str]:
    """Keys by which a table's row can be meant, the size left out.

    >>> sorted(spellings("RTX 4060 Ti-16GB"))
    ['4060ti', 'rtx4060ti']
    """
    words = _words(base_name(name))
    found = {"".join(words)}
    while len(words) > 1 and words[0] in _SERIES:
        words = words[1:]
        found.add("".join(words))
    found |= {key.removesuffix(end) for key in found for end in _OPTIONAL_ENDS}
    return frozenset(found)
