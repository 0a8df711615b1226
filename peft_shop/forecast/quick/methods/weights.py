"""Closed forms of methods that compute a weight of the base weight's size, and of sparse ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.forecast.quick.methods.parts import (
    Additions,
    Fields,
    Kept,
    Site,
    linear_only,
    pattern_value,
    rank_of,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "c3a",
    "fourierft",
    "glora",
    "hira",
    "loha",
    "lokr",
    "osf",
    "shira",
    "supertuning",
    "waveft",
]


def loha(sites: Sequence[Site], fields: Fields) -> Additions:
    """LoHa: two low-rank products whose elementwise product is the update."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        rank = rank_of(fields, site)
        for i in (1, 2):
            additions.add(site, f"hada_w{i}_a", site.outputs, rank)
            additions.add(site, f"hada_w{i}_b", rank, site.inputs)
        additions.kept.append(Kept(site, casts=True, weight=site.inputs * site.outputs))
    return additions


def factors(size: int, wanted: int) -> tuple[int, int]:
    """Two factors of `size`, the first at most `wanted` (or near the root for -1), as LoKr's.

    >>> factors(3072, 4), factors(128, -1), factors(127, -1)
    ((4, 768), (8, 16), (1, 127))
    """
    if wanted > 0 and size % wanted == 0:
        return wanted, size // wanted
    limit = size if wanted == -1 else wanted
    low, high = 1, size
    while low < high:
        following = next(n for n in range(low + 1, size + 1) if size % n == 0)
        other = size // following
        if following + other > size + 1 or following > limit:
            break
        low, high = following, other
    return min(low, high), max(low, high)


def lokr(sites: Sequence[Site], fields: Fields) -> Additions:
    """LoKr: a Kronecker product of a small matrix and a large one, the latter low-rank if large."""
    linear_only(sites, fields)
    additions = Additions()
    wanted = int(fields["decompose_factor"])
    for site in sites:
        rank = rank_of(fields, site)
        in_small, in_large = factors(site.inputs, wanted)
        out_small, out_large = factors(site.outputs, wanted)
        pairs = 0
        if fields["decompose_both"] and rank < max(out_small, in_small) / 2:
            additions.add(site, "lokr_w1_a", out_small, rank)
            additions.add(site, "lokr_w1_b", rank, in_small)
            pairs += out_small * in_small
        else:
            additions.add(site, "lokr_w1", out_small, in_small)
        if rank < max(out_large, in_large) / 2:
            additions.add(site, "lokr_w2_a", out_large, rank)
            additions.add(site, "lokr_w2_b", rank, in_large)
            pairs += out_large * in_large
        else:
            additions.add(site, "lokr_w2", out_large, in_large)
        weight = site.inputs * site.outputs + pairs
        additions.kept.append(Kept(site, casts=True, weight=weight))
    return additions


def hira(sites: Sequence[Site], fields: Fields) -> Additions:
    """HiRA: a low-rank product times the base weight, elementwise."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        rank = rank_of(fields, site)
        additions.add(site, "hira_A", rank, site.inputs)
        additions.add(site, "hira_B", site.outputs, rank)
        additions.kept.append(Kept(site, casts=True, weight=site.inputs * site.outputs))
    return additions


def _frequencies(fields: Fields, site: Site) -> int:
    count = int(
        pattern_value(fields["n_frequency_pattern"], site.name, fields.count("n_frequency"))
    )
    most = site.inputs * site.outputs
    require(count <= most, fields, f"n_frequency {count} exceeds the {most} weights of {site.name}")
    return count


def fourierft(sites: Sequence[Site], fields: Fields) -> Additions:
    """FourierFT: coefficients in the frequency domain; the update is their inverse transform."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    for site in sites:
        count = _frequencies(fields, site)
        additions.add(site, "fourierft_spectrum", count)
        weight = site.inputs * site.outputs
        additions.kept.append(Kept(site, casts=True, weight=weight, fixed=16.0 * count))
    return additions


def waveft(sites: Sequence[Site], fields: Fields) -> Additions:
    """WaveFT: coefficients in the wavelet domain."""
    linear_only(sites, fields, "transformers_conv1d")
    require(
        not fields["proportional_parameters"], fields, "no closed form for proportional_parameters"
    )
    additions = Additions()
    for site in sites:
        count = _frequencies(fields, site)
        additions.add(site, "waveft_spectrum", count)
        weight = 2 * site.inputs * site.outputs
        additions.kept.append(Kept(site, casts=True, weight=weight, fixed=20.0 * count))
    return additions


def c3a(sites: Sequence[Site], fields: Fields) -> Additions:
    """C3A: circulant blocks (out/b, in/b, b)."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        block = int(
            pattern_value(fields["block_size_pattern"], site.name, fields.count("block_size"))
        )
        divides = site.inputs % block == site.outputs % block == 0
        require(divides, fields, f"block_size {block} must divide the shape of {site.name}")
        additions.add(site, "c3a_kernel", site.outputs // block, site.inputs // block, block)
        additions.kept.append(Kept(site, casts=True))
    return additions


def glora(sites: Sequence[Site], fields: Fields) -> Additions:
    """GLoRA: five paths on weight and bias; those without a bias to act on are empty buffers."""
    linear_only(sites, fields)
    additions = Additions()
    way = fields["config_A_B"]
    for site in sites:
        rank = fields.count("r")
        for path in "AB":
            if way == "lora":
                additions.add(site, f"glora_{path}.Xd", site.outputs, rank)
                additions.add(site, f"glora_{path}.Xu", rank, site.inputs)
            elif way == "vector":
                additions.add(site, f"glora_{path}.X", site.outputs, 1)
            else:
                additions.add(site, f"glora_{path}.X", 1)
        empty = {"dtype": "base", "trained": False, "parameter": False}
        if site.bias and fields["config_C"] == "lora":
            additions.add(site, "glora_C.Xd", site.inputs, rank)
            additions.add(site, "glora_C.Xu", rank, 1)
        elif site.bias and fields["config_C"] == "vector":
            additions.add(site, "glora_C.X", site.inputs, 1)
        else:
            additions.add(site, "glora_C.zeros", site.inputs, 1, **empty)
        for path in "DE":
            if site.bias and fields["config_D_E"] == "vector":
                additions.add(site, f"glora_{path}.X", site.outputs)
            elif site.bias and fields["config_D_E"] == "constant":
                additions.add(site, f"glora_{path}.X", 1)
            else:
                additions.add(site, f"glora_{path}.zeros", site.outputs, **empty)
        additions.kept.append(Kept(site, input=True, base_weight=site.inputs * site.outputs))
    return additions


def shira(sites: Sequence[Site], fields: Fields) -> Additions:
    """SHiRA: as many single weights as LoRA of the same rank has parameters, and where they are."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        count = fields.count("r") * (site.inputs + site.outputs)
        most = site.inputs * site.outputs
        require(count <= most, fields, f"r asks for {count} of the {most} weights of {site.name}")
        additions.add(site, "shira_weight", count)
        additions.add(
            site, "shira_indices", 2, count, dtype="int32", trained=False, parameter=False
        )
        # values, and row and column of each as int64
        additions.kept.append(Kept(site, input=True, base_weight=most, fixed=20.0 * count))
    return additions


def supertuning(sites: Sequence[Site], fields: Fields) -> Additions:
    """Super-Tuning: the largest (or smallest) weights, and a LoRA beside them for Supra."""
    linear_only(sites, fields)
    additions = Additions()
    rank = fields["r"]
    for site in sites:
        size = site.inputs * site.outputs
        count = int(size * (1 - float(fields["sparsity"])))
        require(count >= 1, fields, f"sparsity leaves no weight of {site.name}")
        additions.add(site, "supertuning_values", count)
        additions.add(
            site, "supertuning_indices", count, dtype="int32", trained=False, parameter=False,
            saved=bool(fields["save_precomputed_indices"]),
        )  # fmt: skip
        if rank:
            additions.add(site, "supertuning_lora_A.weight", rank, site.inputs)
            additions.add(site, "supertuning_lora_B.weight", site.outputs, rank)
        # the scattered weight in its own dtype, the positions once more as int64
        additions.kept.append(
            Kept(
                site,
                casts=bool(rank),
                input=True,
                token=rank or 0,
                base_weight=size,
                fixed=8.0 * count,
            )
        )
    return additions


def osf(sites: Sequence[Site], fields: Fields) -> Additions:
    """OSF: the weight's small singular directions are trained, its large ones are held fixed."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        full = min(site.inputs, site.outputs)
        kept = _preserved(fields, site, full)
        low = full - kept
        if low <= 0:
            additions.notes.append(f"OSF leaves {site.name} as it is: nothing to train there")
            continue
        buffer = {"trained": False, "parameter": False, "saved": False}
        for suffix, shape in (
            ("U_low", (site.outputs, low)),
            ("S_low", (low,)),
            ("V_low", (low, site.inputs)),
        ):
            additions.add(site, f"osf_svd_params.{suffix}", *shape)
            additions.add(site, f"_osf_{suffix}_init", *shape, **buffer)
        # the larger factor cannot be had from the small directions alone
        if site.outputs > site.inputs:
            additions.add(site, "_osf_U_high", site.outputs, kept, **buffer)
        if site.inputs > site.outputs:
            additions.add(site, "_osf_V_high", kept, site.inputs, **buffer)
        # the trained factors and their first values, side by side
        weight = 2 * low * (site.inputs + site.outputs)
        additions.kept.append(Kept(site, casts=True, token=2 * low, weight=weight))
    return additions


def _preserved(fields: Fields, site: Site, full: int) -> int:
    """Directions that stay as they are at `site`: `rank_pattern`, `effective_rank` or a half."""
    wanted = fields["effective_rank"]
    for key, value in (fields["rank_pattern"] or {}).items():
        if key in site.name:
            wanted = value
            break
    if wanted is None:
        return full // 2
    if isinstance(wanted, float) and 0 < wanted <= 1:
        return int(full * wanted)
    return min(int(wanted), full)
