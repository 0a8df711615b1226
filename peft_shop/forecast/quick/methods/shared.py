"""Closed forms of methods whose modules share tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peft_shop.forecast.quick.methods.parts import (
    Additions,
    Fields,
    Kept,
    Site,
    category_of,
    largest,
    linear_only,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["frod", "lily", "pvera", "randlora", "tinylora", "unilora", "vblora", "vera"]

_BUFFER = {"trained": False, "parameter": False}


def vera(sites: Sequence[Site], fields: Fields) -> Additions:
    """VeRA: two frozen random matrices for the whole model, two trained vectors per module."""
    return _vera(sites, fields, "vera", 1)


def pvera(sites: Sequence[Site], fields: Fields) -> Additions:
    """PVeRA: VeRA with a mean and a variance, so twice the inner vector."""
    return _vera(sites, fields, "pvera", 2)


def _vera(sites: Sequence[Site], fields: Fields, prefix: str, times: int) -> Additions:
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    rank = fields.count("r")
    inputs, outputs = largest(sites)
    saved = bool(fields["save_projection"])
    shared = {"dtype": "float32", "saved": saved, **_BUFFER}
    additions.share(f"base_model.{prefix}_A", times * rank, inputs, **shared)
    additions.share(f"base_model.{prefix}_B", outputs, rank, **shared)
    for site in sites:
        additions.add(site, f"{prefix}_lambda_b", site.outputs)
        additions.add(site, f"{prefix}_lambda_d", times * rank)
        inner = {1: 1, 2: 4}[times] * rank
        additions.kept.append(Kept(site, token=site.outputs + inner))
    return additions


def randlora(sites: Sequence[Site], fields: Fields) -> Additions:
    """RandLoRA: shared random bases; the checkpoint holds them once more for every module."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    rank = fields.count("r")
    inputs, outputs = largest(sites)
    low, high = min(inputs, outputs), max(inputs, outputs)
    saved = bool(fields["save_projection"])
    bases = math.ceil(low / rank)
    shapes = (("randlora_A", (rank, 1, low)), ("randlora_B", (high, bases, rank)))
    for name, shape in shapes:
        additions.share(f"base_model.{name}", *shape, dtype="float32", saved=saved, **_BUFFER)
    for site in sites:
        smaller = min(site.inputs, site.outputs)
        own = math.ceil(smaller / rank)
        additions.add(site, "randlora_lambda", rank, own)
        additions.add(site, "randlora_gamma", own, smaller)
        for name, shape in shapes:
            additions.add(site, name, *shape, dtype="float32", saved=saved, held=False, **_BUFFER)
        # one factor of the update, scaled, and the input's image under the other
        width = rank * own
        additions.kept.append(Kept(site, token=width, weight=width * smaller))
    return additions


def vblora(sites: Sequence[Site], fields: Fields) -> Additions:
    """VB-LoRA: A and B are mixed from a bank of vectors that the whole model shares."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    rank, length, bank, top = (
        fields.count(name) for name in ("r", "vector_length", "num_vectors", "topk")
    )
    additions.share("base_model.vblora_vector_bank", bank, length)
    compact = bool(fields["save_only_topk_weights"])
    index = "uint8" if bank < 2**8 else "int16" if bank < 2**15 else "int32"
    for site in sites:
        divides = site.inputs % length == site.outputs % length == 0
        require(divides, fields, f"vector_length {length} must divide the shape of {site.name}")
        for name, shape in (
            ("vblora_logits_A", (rank, site.inputs // length)),
            ("vblora_logits_B", (site.outputs // length, rank)),
        ):
            additions.add(site, name, *shape, bank, saved=not compact)
            if compact:
                extra = {"trained": False, "parameter": False, "held": False}
                additions.add(site, f"{name}_topk_indices", *shape, top, dtype=index, **extra)
                additions.add(site, f"{name}_topk_weights", *shape, top - 1, **extra)
        # the chosen vectors, their weights and places, and the two factors they make
        places = rank * (site.inputs + site.outputs) / length
        fixed = places * (4 * length * top + 4 * length + 12 * top)
        additions.kept.append(Kept(site, casts=True, token=rank, fixed=fixed))
    return additions


def unilora(sites: Sequence[Site], fields: Fields) -> Additions:
    """UniLoRA: every element of A and B is one of `theta_d_length` shared numbers, scaled."""
    linear_only(sites, fields)
    additions = Additions()
    rank = fields.count("r")
    additions.share("base_model.unilora_theta_d", fields.count("theta_d_length"))
    saved = bool(fields["save_indices"])
    for site in sites:
        for side, shape in (("A", (rank, site.inputs)), ("B", (site.outputs, rank))):
            additions.add(
                site, f"unilora_indices_{side}", *shape, dtype="int64", saved=saved, **_BUFFER
            )
            additions.add(
                site, f"unilora_scales_{side}", *shape, dtype="float32", saved=saved, **_BUFFER
            )
        factors = rank * (site.inputs + site.outputs)
        additions.kept.append(Kept(site, casts=True, token=rank, weight=factors))
    return additions


def tinylora(sites: Sequence[Site], fields: Fields) -> Additions:
    """TinyLoRA: `u` numbers per group of modules steer frozen factors of each weight."""
    linear_only(sites, fields)
    additions = Additions()
    rank, width = fields.count("r"), fields.count("u")
    groups = max(1, round(len(sites) * (1 - float(fields["weight_tying"]))))
    size = max(1, len(sites) // groups)
    used = min((len(sites) - 1) // size, groups - 1) + 1
    for i in range(used):
        additions.share(f"base_model.tinylora_v.{i}", width)
    saved = bool(fields["save_projection"])
    fixed = {"dtype": "float32", **_BUFFER}
    for site in sites:
        own = min(rank, site.inputs, site.outputs)
        additions.add(site, "tinylora_A", own, site.inputs, **fixed)
        additions.add(site, "tinylora_B", site.outputs, own, **fixed)
        additions.add(site, "tinylora_P", width, own, own, saved=saved, **fixed)
        additions.kept.append(Kept(site, token=own, weight=own * own))
    return additions


def lily(sites: Sequence[Site], fields: Fields) -> Additions:
    """Lily: neighbouring layers share A, all layers share B; the checkpoint repeats both."""
    linear_only(sites, fields)
    additions = Additions()
    rank, stride, many = (fields.count(name) for name in ("r", "stride_A", "num_B"))
    seen: dict[tuple[str, int, int], int] = {}
    targets = fields["target_modules"]
    for site in sites:
        suffix = _suffix(site, targets)
        key = (suffix, site.inputs, site.outputs)
        place = seen.get(key, 0)
        seen[key] = place + 1
        first, leader = place == 0, place % stride == 0
        one = {"trained": leader, "parameter": leader, "held": leader}
        all_ = {"trained": first, "parameter": first, "held": first}
        additions.add(site, "lily_A.weight", rank, site.inputs, **one)
        additions.add(site, "lily_B.weight", site.outputs, many * rank, **all_)
        additions.add(site, "lily_router.weight", many, rank)
        weight = rank * site.outputs + many
        additions.kept.append(Kept(site, casts=True, token=rank + many, weight=weight))
    return additions


def _suffix(site: Site, targets: str | Sequence[str]) -> str:
    """The target that peft groups `site` under: the last one that its name ends with."""
    if isinstance(targets, str):
        return targets
    return next(
        (target for target in sorted(targets, key=len) if site.name.endswith(target)), site.name
    )


def frod(sites: Sequence[Site], fields: Fields) -> Additions:
    """FRoD: a projection shared by modules of one category, with a trained sparse middle."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    saved = bool(fields["save_projection"])
    categories: dict[str, int] = {}
    for site in sites:
        width = categories.setdefault(category_of(site.name), site.inputs)
        alike = width == site.inputs
        require(alike, fields, f"{site.name} has other inputs than its category of modules")
    for category, width in sorted(categories.items()):
        count = _sparse(width, float(fields["sparse_rate"]))
        additions.share(
            f"base_model.frod_V.{category}",
            width,
            width,
            dtype="base",
            saved=saved,
            moved=True,
            **_BUFFER,
        )
        whole = {"dtype": "int64", "saved": saved, **_BUFFER}
        additions.share(f"base_model.frod_s_indices.{category}", 2, count, **whole)
        additions.share(f"base_model.frod_s_size.{category}", 2, **whole)
    for site in sites:
        count = _sparse(site.inputs, float(fields["sparse_rate"]))
        additions.add(site, "frod_lambda_l", site.inputs)
        additions.add(site, "frod_lambda_s_values", count)
        additions.add(
            site,
            "frod_U",
            site.outputs,
            site.inputs,
            dtype="base",
            saved=False,
            moved=True,
            **_BUFFER,
        )
        if fields["runtime_offload_base_weight"]:
            additions.offloaded += site.weight
        # the sparse middle is made dense: half-precision sparse products are not everywhere
        additions.kept.append(
            Kept(
                site,
                base_token=site.inputs,
                base_weight=site.inputs * site.inputs,
                fixed=20.0 * count,
                copied_weight=site.inputs * (site.inputs + site.outputs),
            )
        )
    return additions


def _sparse(width: int, rate: float) -> int:
    """Trained elements off the diagonal of a (width, width) matrix."""
    off = width * width - width
    count = min(int(width * width * rate), off)
    return max(1, count) if rate > 0 and off > 0 else count
