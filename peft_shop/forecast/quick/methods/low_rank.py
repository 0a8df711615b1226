"""Closed forms of LoRA and what is built like it.

What is kept for the backward pass was read off peft 0.21.2 by autograd's saved-tensor hooks; a
test repeats that for every method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.forecast.quick.methods.parts import (
    Additions,
    Fields,
    Kept,
    Site,
    linear_only,
    rank_of,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["adalora", "adamss", "deft", "delora", "gralora", "lora", "miss", "peanut", "poly"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def lora(sites: Sequence[Site], fields: Fields) -> Additions:
    """LoRA, DoRA, rsLoRA, MiCA, KaSA, BD-LoRA: A (r, in) and B (out, r)."""
    additions = Additions()
    require(
        not fields["target_parameters"],
        fields,
        "no closed form for target_parameters; make a dry run",
    )
    require(not fields["layer_replication"], fields, "no closed form for layer_replication")
    for name in ("use_qalora", "monteclora_config", "alora_invocation_tokens", "velora_config"):
        if fields[name]:
            additions.notes.append(
                f"activations of {name} were not measured: counted as plain LoRA"
            )
    mica = fields["init_lora_weights"] == "mica"
    for site in sites:
        rank = rank_of(fields, site)
        if site.kind == "embedding":
            additions.add(site, "lora_embedding_A", rank, site.inputs)
            additions.add(site, "lora_embedding_B", site.outputs, rank)
            if fields["use_dora"]:
                additions.add(site, "lora_magnitude_vector", site.outputs, 1)
            additions.kept.append(Kept(site, token=rank))
            continue
        linear_only([site], fields, "transformers_conv1d", *_CONVOLUTIONS)
        inputs = site.inputs // site.groups if site.kind in _CONVOLUTIONS else site.inputs
        ones = (1,) * len(site.kernel)
        first, second = _blocks(fields, site)
        additions.add(site, "lora_A.weight", rank, inputs // first, *site.kernel)
        additions.add(site, "lora_B.weight", site.outputs, rank // second, *ones, trained=not mica)
        token = 0 if mica else rank
        scaled = 0
        if fields["use_dora"]:
            dora = (1, site.outputs, *ones) if ones else (site.outputs,)
            additions.add(site, "lora_magnitude_vector", *dora)
            # the base's output in both dtypes
            token += site.outputs
            scaled += site.outputs
        if fields["kasa_config"]:
            additions.add(site, "lora_diag", rank)
            token += rank
        if fields["lora_bias"]:
            additions.add(site, "lora_B.bias", site.outputs)
        additions.kept.append(
            Kept(site, casts=True, token=token, base_token=scaled, fixed=12.0 * scaled)
        )
    return additions


def _blocks(fields: Fields, site: Site) -> tuple[int, int]:
    """Divisors of the inputs of A and of B at a site of a block-diagonal LoRA."""
    options = fields["use_bdlora"]
    if not options:
        return 1, 1
    blocks = int(options["nblocks"])
    suffix = site.name.rpartition(".")[2]
    if suffix in (options.get("target_modules_bd_a") or ()):
        return blocks, 1
    if suffix in (options.get("target_modules_bd_b") or ()):
        return 1, blocks
    return 1, 1


def adalora(sites: Sequence[Site], fields: Fields) -> Additions:
    """AdaLoRA: A (r, in), B (out, r), E (r, 1) and a rank counter that 0.21.2 trains."""
    linear_only(sites, fields, "transformers_conv1d")
    additions = Additions()
    for site in sites:
        rank = fields.count("init_r")
        learned = (fields["rank_pattern"] or {}).get(f"{site.name}.lora_E")
        kept = fields.count("target_r") if learned is None else sum(learned)
        aside = {"trained": False, "parameter": False, "held": False}
        for width, options in ((rank, {"saved": False}), (kept, aside)):
            additions.add(site, "lora_A", width, site.inputs, **options)
            additions.add(site, "lora_B", site.outputs, width, **options)
            additions.add(site, "lora_E", width, 1, **options)
        additions.add(site, "ranknum", 1, saved=False)
        # the output is kept for the rank counter's gradient, the scaled A for B's
        additions.kept.append(
            Kept(site, casts=True, token=site.outputs + rank, weight=rank * site.inputs)
        )
    if fields["rank_pattern"]:
        return additions
    additions.notes.append(
        "AdaLoRA learns which ranks its checkpoint keeps: the size is that of target_r everywhere; "
        "the two files on record had 0.96 and 1.8 times that"
    )
    return additions


def gralora(sites: Sequence[Site], fields: Fields) -> Additions:
    """GraLoRA: k x k blocks, which together have as many parameters as LoRA of the same rank."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        hybrid = int(fields["hybrid_r"])
        rank = fields.count("r")
        blocks = fields.count("gralora_k")
        divides = rank % blocks == site.inputs % blocks == site.outputs % blocks == 0
        require(divides, fields, f"gralora_k {blocks} must divide r and the shape of {site.name}")
        additions.add(site, "gralora_A", blocks, site.inputs // blocks, rank)
        additions.add(site, "gralora_B", blocks, rank, site.outputs // blocks)
        if hybrid:
            additions.add(site, "gralora_A_general.weight", hybrid, site.inputs)
            additions.add(site, "gralora_B_general.weight", site.outputs, hybrid)
        additions.kept.append(Kept(site, casts=True, token=blocks * rank + hybrid))
    return additions


def delora(sites: Sequence[Site], fields: Fields) -> Additions:
    """DeLoRA: A (r, in), B (out, r), a strength and the frozen norm of the weight's columns."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        rank = rank_of(fields, site)
        additions.add(site, "delora_A", rank, site.inputs)
        additions.add(site, "delora_B", site.outputs, rank)
        additions.add(site, "delora_lambda", 1)
        additions.add(site, "delora_w_norm", site.inputs, trained=False, parameter=False)
        additions.kept.append(Kept(site, casts=True, token=2 * rank, weight=6 * rank + 1))
    return additions


def poly(sites: Sequence[Site], fields: Fields) -> Additions:
    """Poly: one LoRA per skill, mixed by a router with logits per task."""
    linear_only(sites, fields)
    additions = Additions()
    skills, splits, tasks = (fields.count(name) for name in ("n_skills", "n_splits", "n_tasks"))
    for site in sites:
        rank = fields.count("r")
        divides = site.inputs % splits == site.outputs % splits == 0
        require(divides, fields, f"n_splits {splits} must divide the shape of {site.name}")
        additions.add(site, "poly_lora_A", splits, skills, site.inputs // splits, rank)
        additions.add(site, "poly_lora_B", splits, skills, rank, site.outputs // splits)
        additions.add(site, "poly_router.module_logits", tasks, splits * skills)
        additions.kept.append(Kept(site, casts=True, token=rank))
    additions.notes.append("activations of Poly were not measured: counted as plain LoRA")
    return additions


def deft(sites: Sequence[Site], fields: Fields) -> Additions:
    """DEFT: P (out, r) whose span is removed, and R (r, in) put there; PaRa has P alone."""
    linear_only(sites, fields)
    additions = Additions()
    para = bool(fields["para"])
    for site in sites:
        rank = min(fields.count("r"), site.outputs)
        additions.add(site, "deft_P", site.outputs, rank)
        if para:
            width = rank * (site.outputs + rank)
            additions.kept.append(Kept(site, token=site.outputs + rank, weight=width))
            continue
        additions.add(site, "deft_R", rank, site.inputs)
        token, width = site.outputs + 2 * rank, rank * (site.inputs + site.outputs)
        additions.kept.append(Kept(site, casts=True, token=token, weight=width))
    return additions


def peanut(sites: Sequence[Site], fields: Fields) -> Additions:
    """PEANUT: a small network that reads the base weight: A (r, out), B (out, r), r x r between."""
    linear_only(sites, fields)
    additions = Additions()
    for site in sites:
        rank = fields.count("r")
        depth = int(fields["depth"])
        additions.add(site, "peanut_A.weight", rank, site.outputs)
        additions.add(site, "peanut_B.weight", site.outputs, rank)
        for i in range(depth):
            additions.add(site, f"peanut_encoders.{i}.weight", rank, rank)
            additions.add(site, f"peanut_decoders.{i}.weight", rank, rank)
        hidden = rank * site.inputs * (1 + 3 * depth)
        weight = hidden + 2 * site.inputs * site.outputs
        additions.kept.append(Kept(site, casts=True, weight=weight))
    return additions


def miss(sites: Sequence[Site], fields: Fields) -> Additions:
    """MiSS: one block (r, out); bat (out/r, r, r); mini (r, mini_r)."""
    linear_only(sites, fields)
    additions = Additions()
    way = fields["init_weights"]
    for site in sites:
        rank = fields.count("r")
        if way == "bat":
            divides = site.inputs % rank == site.outputs % rank == 0
            require(divides, fields, f"bat: r {rank} must divide the shape of {site.name}")
            additions.add(site, "miss_block", site.outputs // rank, rank, rank)
            weight = 2 * site.inputs * site.outputs
            additions.kept.append(Kept(site, casts=True, weight=weight))
            continue
        require(rank <= site.inputs, fields, f"r {rank} must not exceed the inputs of {site.name}")
        weight = 0
        if way == "mini":
            width = fields.count("mini_r")
            require(site.outputs % width == 0, fields, f"mini_r must divide outputs of {site.name}")
            additions.add(site, "miss_block", rank, width)
            weight = rank * site.outputs
        else:
            additions.add(site, "miss_block", rank, site.outputs)
        additions.kept.append(Kept(site, token=rank, weight=weight))
    return additions


def adamss(sites: Sequence[Site], fields: Fields) -> Additions:
    """AdaMSS: clusters of outputs; exact for `subspace_rank` 1 and clusters that are not empty."""
    linear_only(sites, fields)
    additions = Additions()
    wanted, sub = fields.count("num_subspaces"), fields.count("subspace_rank")
    for site in sites:
        inputs = site.inputs + site.bias
        rank = min(fields.count("r"), inputs, site.outputs)
        clusters = min(wanted, site.outputs)
        rows = [site.outputs // clusters + (i < site.outputs % clusters) for i in range(clusters)]
        for i, size in enumerate(rows):
            width = min(size, sub)
            additions.add(site, f"adamss_A.{i}", width, rank)
            additions.add(site, f"adamss_B.{i}", size, width)
        additions.add(site, "adamss_newB", rank, inputs, trained=False, parameter=False)
        # the forward pass works in the base's dtype, with copies of the factors
        copies = rank * inputs + clusters * sub * rank + site.outputs * sub
        additions.kept.append(
            Kept(
                site,
                base_token=rank + clusters * sub,
                base_weight=copies,
                fixed=8.0 * site.outputs,
            )
        )
    if sites:
        additions.notes.append(
            "AdaMSS clusters the weights: the sizes of its clusters, and so the digits in the "
            "file's header, depend on them; a few hundred bytes"
        )
    return additions
