"""Closed forms of orthogonal methods and of scalings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.forecast.quick.methods.parts import (
    Additions,
    Fields,
    Kept,
    Site,
    linear_only,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["beft", "boft", "hra", "ia3", "ln_tuning", "oft", "psoft", "road", "trainable_tokens"]

_FIXED = {"trained": False, "parameter": False, "saved": False}


def nearest_divisor(size: int, wanted: int) -> int:
    """Divisor of `size` nearest to `wanted`, the larger of two: what OFT puts in its place.

    >>> nearest_divisor(3072, 1000)
    1024
    """
    if 1 <= wanted <= size and size % wanted == 0:
        return wanted
    higher = next((n for n in range(wanted, size + 1) if size % n == 0), size)
    lower = next((n for n in range(min(wanted, size), 0, -1) if size % n == 0), 1)
    return lower if wanted - lower <= higher - wanted else higher


def oft(sites: Sequence[Site], fields: Fields) -> Additions:
    """OFT: one skew-symmetric matrix per block of inputs."""
    linear_only(sites, fields)
    additions = Additions()
    rank, size = int(fields["r"]), int(fields["oft_block_size"])
    require((rank == 0) != (size == 0), fields, "exactly one of r and oft_block_size must be 0")
    for site in sites:
        if rank:
            blocks = nearest_divisor(site.inputs, rank)
            block = site.inputs // blocks
        else:
            block = nearest_divisor(site.inputs, size)
            blocks = site.inputs // block
        own = 1 if fields["block_share"] else blocks
        elements = block * (block - 1) // 2
        additions.add(site, "oft_R.weight", own, elements)
        for axis in ("rows", "cols"):
            additions.add(site, f"oft_R.{axis}", elements, dtype="int64", **_FIXED)
        # the Neumann series keeps four matrices, the inverse three
        matrices = 4 if fields["use_cayley_neumann"] else 3
        additions.kept.append(Kept(site, casts=True, weight=matrices * own * block * block))
    return additions


def boft(sites: Sequence[Site], fields: Fields) -> Additions:
    """BOFT with one factor, which is all that peft makes without its CUDA extension."""
    linear_only(sites, fields)
    additions = Additions()
    size, count = int(fields["boft_block_size"]), int(fields["boft_block_num"])
    require((size == 0) != (count == 0), fields, "exactly one of block_size and block_num is 0")
    if int(fields["boft_n_butterfly_factor"]) > 1:
        additions.notes.append(
            "BOFT trains one butterfly factor where its CUDA extension cannot be built"
        )
    for site in sites:
        given = size or count
        require(site.inputs % given == 0, fields, f"{given} must divide inputs of {site.name}")
        block = size or site.inputs // count
        additions.add(site, "boft_R", 1, site.inputs // block, block, block)
        additions.add(site, "boft_s", site.outputs, 1)
        # peft leaves this buffer where it was made, which is the CPU, and copies it in each pass
        additions.add(
            site, "boft_P", 1, site.inputs, site.inputs, dtype="float32", moved=True, **_FIXED
        )
        additions.kept.append(
            Kept(
                site,
                input=True,
                base_token=site.outputs,
                # the permutation, the rotation and an identity
                base_weight=3 * site.inputs * site.inputs,
                weight=3 * block * site.inputs + site.outputs,
                fixed=2.0 * site.outputs + 4.0 * site.inputs,
            )
        )
    return additions


def hra(sites: Sequence[Site], fields: Fields) -> Additions:
    """HRA: a chain of r reflections of the inputs."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        rank = fields.count("r")
        additions.add(site, "hra_u", site.inputs, rank)
        # the product so far before every reflection, and the last one
        chain = (rank + 1) * site.inputs * site.inputs
        additions.kept.append(Kept(site, casts=True, weight=chain + 2 * site.inputs * site.outputs))
    return additions


def psoft(sites: Sequence[Site], fields: Fields) -> Additions:
    """PSOFT: a rotation within the r main directions of the weight, which are kept beside it."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    for site in sites:
        rank = fields.count("r")
        fits = rank <= min(site.inputs, site.outputs)
        require(fits, fields, f"r {rank} exceeds the smaller side of {site.name}")
        if fields["psoft_orth"]:
            elements = rank * (rank - 1) // 2
            additions.add(site, "psoft_R.weight", elements)
            for axis in ("rows", "cols"):
                additions.add(site, f"psoft_R.{axis}", elements, dtype="int64", **_FIXED)
        else:
            additions.add(site, "psoft_R.weight", rank, rank)
        for name, mode in (("vector_b", "psoft_mag_b"), ("vector_a", "psoft_mag_a")):
            if fields[mode]:
                additions.add(site, f"psoft_R.{name}", rank)
        additions.add(site, "_psoft_A_cache", rank, site.inputs, dtype="float32", **_FIXED)
        if fields["psoft_svd"] == "full":
            # rows of a factor are a view, which keeps the whole factor until the model is moved
            rest = min(site.inputs, site.outputs) - rank
            additions.add(
                site,
                "_psoft_A_cache.rest",
                rest,
                site.inputs,
                dtype="float32",
                moved=False,
                **_FIXED,
            )
        additions.add(site, "_psoft_B_cache", site.outputs, rank, dtype="float32", **_FIXED)
        additions.kept.append(Kept(site, token=rank, weight=5 * rank * rank))
    return additions


def road(sites: Sequence[Site], fields: Fields) -> Additions:
    """RoAd: rotations of pairs of outputs: one, two or four numbers per output."""
    linear_only(sites, fields)
    additions = Additions()
    variant = fields["variant"]
    group = fields.count("group_size")
    for site in sites:
        require(
            group % 2 == 0 and site.outputs % group == 0,
            fields,
            f"group_size {group} must be even and divide the outputs of {site.name}",
        )
        size = {"road_1": site.outputs // 2, "road_2": site.outputs, "road_4": 2 * site.outputs}
        require(variant in size, fields, f"unknown variant {variant!r}")
        additions.add(site, "road_theta", size[variant])
        additions.add(site, "road_alpha", size[variant])
        additions.kept.append(Kept(site, token=2 * site.outputs, weight=6 * site.outputs))
    return additions


def beft(sites: Sequence[Site], fields: Fields) -> Additions:
    """BEFT: a bias."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        additions.add(site, "beft_bias", 1, site.outputs)
        additions.kept.append(Kept(site))
    return additions


def ia3(sites: Sequence[Site], fields: Fields) -> Additions:
    """IA3: one factor per output, or per input of a feed-forward module."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    inner = fields["feedforward_modules"] or ()
    for site in sites:
        if any(site.name == one or site.name.endswith(f".{one}") for one in inner):
            additions.add(site, "ia3_l", 1, site.inputs)
            additions.kept.append(Kept(site, casts=True, weight=site.inputs))
        else:
            additions.add(site, "ia3_l", site.outputs, 1)
            additions.kept.append(Kept(site, base_token=site.outputs, weight=site.outputs))
    return additions


def ln_tuning(sites: Sequence[Site], fields: Fields) -> Additions:
    """LN tuning: a trained copy of each module, in the base's dtype."""
    additions = Additions()
    for site in sites:
        norm = site.kind in {"layer_norm", "rms_norm", "group_norm"}
        require(norm, fields, f"no closed form for {site.name}, which is no norm; make a dry run")
        additions.add(site, "ln_tuning_layers.weight", site.outputs, dtype="base")
        if site.bias:
            additions.add(site, "ln_tuning_layers.bias", site.outputs, dtype="base")
        # the normalised input in the base's dtype
        additions.kept.append(Kept(site, base_token=site.outputs))
    return additions


def trainable_tokens(sites: Sequence[Site], fields: Fields) -> Additions:
    """Trainable tokens: some rows of the embedding, trained apart."""
    additions = Additions()
    rows = len(fields["token_indices"] or ())
    require(rows > 0, fields, "token_indices is empty: nothing would be trained")
    tied = {name.removesuffix(".weight") for names in fields.structure.tied for name in names}
    for site in sites:
        embedding = site.kind == "embedding"
        require(embedding, fields, f"{site.name} is no embedding")
        additions.add(site, "trainable_tokens_delta", rows, site.outputs)
        additions.add(site, "trainable_tokens_original", rows, site.outputs, **_FIXED)
        # the whole table with the trained rows put in
        additions.kept.append(Kept(site, base_weight=site.inputs * site.outputs))
        if site.name in tied:
            for head in fields.structure.of(["head"]):
                for name in head.names:
                    additions.tensors.append(
                        additions.tensors[-2]._replace(
                            name=f"base_model.model.{name}.trainable_tokens_delta",
                            held=False,
                            parameter=False,
                            trained=False,
                        )
                    )
    return additions
