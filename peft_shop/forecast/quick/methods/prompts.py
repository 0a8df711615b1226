"""Closed forms of prompt learning, and of adaption prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.forecast.quick.methods.parts import Additions, Fields, Kept, Site, require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "PROMPT_METHODS",
    "adaption_prompt",
    "cartridge",
    "cpt",
    "multitask_prompt_tuning",
    "p_tuning",
    "prefix_tuning",
    "prompt_tuning",
]

PROMPT_METHODS = frozenset(
    {
        "PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "CPT",
        "CARTRIDGE",
    }
)
"""Methods that wrap the whole model instead of modules."""
_ENCODER = "prompt_encoder"


def _size(fields: Fields, name: str, alias: str | None = None) -> int:
    """A size that the configuration states, or the model's own."""
    stated = fields.values.get(alias or name)
    value = stated if stated is not None else getattr(fields.structure.dimensions, name)
    require(value is not None, fields, f"{alias or name} is not stated and the model has none")
    return int(value)


def _submodules(fields: Fields) -> int:
    stated = fields.values.get("num_transformer_submodules")
    if stated is not None:
        return int(stated)
    return 2 if fields["task_type"] == "SEQ_2_SEQ_LM" else 1


def _key_value_width(fields: Fields) -> int:
    """Width of one layer's keys: key-value heads times head width."""
    heads = fields.structure.dimensions
    require(
        heads.key_value_heads is not None and heads.head_dim is not None,
        fields,
        "the model states no key-value heads",
    )
    return int(heads.key_value_heads or 0) * int(heads.head_dim or 0)


def prompt_tuning(sites: Sequence[Site], fields: Fields) -> Additions:  # noqa: ARG001 - wraps no module
    """Prompt tuning: one trained embedding per virtual token."""
    additions = Additions(prompt_tokens=fields.count("num_virtual_tokens"))
    rows = additions.prompt_tokens * _submodules(fields)
    additions.share("prompt_embeddings", rows, _size(fields, "hidden_size", "token_dim"))
    return additions


def multitask_prompt_tuning(sites: Sequence[Site], fields: Fields) -> Additions:
    """Multitask prompt tuning: prompt tuning and a low-rank factor per task."""
    additions = prompt_tuning(sites, fields)
    tokens, ranks, tasks = (
        additions.prompt_tokens,
        fields.count("num_ranks"),
        fields.count("num_tasks"),
    )
    submodules = _submodules(fields)
    additions.share("prefix_task_cols", tasks, tokens * submodules, ranks)
    additions.share("prefix_task_rows", tasks, ranks, _size(fields, "hidden_size", "token_dim"))
    return additions


def cpt(sites: Sequence[Site], fields: Fields) -> Additions:  # noqa: ARG001 - wraps no module
    """CPT: context tokens with a trained offset."""
    tokens = len(fields["cpt_token_ids"] or ())
    require(tokens > 0, fields, "cpt_token_ids is empty")
    additions = Additions(prompt_tokens=tokens)
    width = _size(fields, "hidden_size", "token_dim")
    additions.share("prompt_embeddings", tokens, width, trained=False)
    additions.share(f"{_ENCODER}.delta_embedding", tokens, width, saved=False)
    return additions


def p_tuning(sites: Sequence[Site], fields: Fields) -> Additions:  # noqa: ARG001 - wraps no module
    """P-tuning: an encoder makes the prompt; the checkpoint holds its output alone."""
    tokens = fields.count("num_virtual_tokens")
    width = _size(fields, "hidden_size", "token_dim")
    hidden = int(fields["encoder_hidden_size"] or width)
    rows = tokens * _submodules(fields)
    additions = Additions(prompt_tokens=tokens)
    additions.share("prompt_embeddings", rows, width, trained=False, parameter=False, held=False)
    inner = {"saved": False}
    additions.share(f"{_ENCODER}.embedding", rows, width, **inner)
    if fields["encoder_reparameterization_type"] == "LSTM":
        layers = int(fields["encoder_num_layers"])
        for layer in range(layers):
            inputs = width if layer == 0 else 2 * hidden
            for side in ("", "_reverse"):
                additions.share(f"{_ENCODER}.lstm.ih_l{layer}{side}", 4 * hidden, inputs, **inner)
                additions.share(f"{_ENCODER}.lstm.hh_l{layer}{side}", 4 * hidden, hidden, **inner)
                additions.share(f"{_ENCODER}.lstm.bias_l{layer}{side}", 2, 4 * hidden, **inner)
        shapes = [(hidden * 2, hidden * 2), (width, hidden * 2)]
    else:
        shapes = [(hidden, width), (hidden, hidden), (width, hidden)]
    for i, (rows_, columns) in enumerate(shapes):
        additions.share(f"{_ENCODER}.mlp_head.{2 * i}.weight", rows_, columns, **inner)
        additions.share(f"{_ENCODER}.mlp_head.{2 * i}.bias", rows_, **inner)
    return additions


def prefix_tuning(sites: Sequence[Site], fields: Fields) -> Additions:  # noqa: ARG001 - wraps no module
    """Prefix tuning: trained keys and values per layer, through an encoder if asked for."""
    tokens = fields.count("num_virtual_tokens")
    layers = _size(fields, "layers", "num_layers")
    width = int(fields.values.get("token_dim") or _key_value_width(fields))
    rows = tokens * _submodules(fields)
    additions = Additions(prefix_tokens=tokens)
    whole = 2 * layers * width
    if not fields["prefix_projection"]:
        additions.share("prompt_embeddings", rows, whole)
        return additions
    hidden = int(fields["encoder_hidden_size"] or width)
    additions.share("prompt_embeddings", rows, whole, trained=False, parameter=False, held=False)
    inner = {"saved": False}
    additions.share(f"{_ENCODER}.embedding", rows, width, **inner)
    additions.share(f"{_ENCODER}.transform.0.weight", hidden, width, **inner)
    additions.share(f"{_ENCODER}.transform.0.bias", hidden, **inner)
    additions.share(f"{_ENCODER}.transform.2.weight", whole, hidden, **inner)
    additions.share(f"{_ENCODER}.transform.2.bias", whole, **inner)
    return additions


def cartridge(sites: Sequence[Site], fields: Fields) -> Additions:  # noqa: ARG001 - wraps no module
    """Cartridge: prefix tuning whose first tokens stay as they are."""
    tokens = fields.count("num_virtual_tokens")
    frozen = int(fields["num_frozen_tokens"])
    layers = _size(fields, "layers", "num_layers")
    width = 2 * layers * int(fields.values.get("token_dim") or _key_value_width(fields))
    additions = Additions(prefix_tokens=tokens)
    additions.share("prompt_embeddings", tokens, width, trained=False, parameter=False, held=False)
    if frozen:
        additions.share(f"{_ENCODER}.frozen_embedding", frozen, width, trained=False, saved=False)
    additions.share(f"{_ENCODER}.trainable_embedding", tokens - frozen, width, saved=False)
    return additions


def adaption_prompt(sites: Sequence[Site], fields: Fields) -> Additions:
    """Adaption prompt: extra keys and values in the last `adapter_layers` attention blocks."""
    width = _size(fields, "hidden_size")
    length, layers = fields.count("adapter_len"), fields.count("adapter_layers")
    require(
        layers <= len(sites), fields, f"adapter_layers {layers} exceeds the {len(sites)} blocks"
    )
    additions = Additions()
    for site in sites[len(sites) - layers :]:
        additions.add(site, "adaption_prompt", 1, length, width, dtype="base")
        additions.add(site, "adaption_gate", 1, dtype="base")
        heads = fields.structure.dimensions.attention_heads or 0
        query = heads * (fields.structure.dimensions.head_dim or 0)
        # a second query; scores over the prompt in both dtypes; the prompt's keys and values
        scores = heads * length
        additions.kept.append(
            Kept(
                site,
                base_token=query + 4 * scores,
                sequence=2 * length * query,
            )
        )
    return additions
