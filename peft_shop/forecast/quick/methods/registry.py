"""Configuration and structure -> what the method adds; knows which closed form is whose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ConfigError, UnknownNameError
from peft_shop.forecast.quick.methods import low_rank, prompts, rotations, shared, weights
from peft_shop.forecast.quick.methods.defaults import COMMON
from peft_shop.forecast.quick.methods.parts import Additions, Fields, Site
from peft_shop.forecast.quick.methods.sites import sites_of
from peft_shop.forecast.quick.remembered import remembered
from peft_shop.upstream.defaults import CLASS_DEFAULTS
from peft_shop.upstream.source import installed_peft
from peft_shop.upstream.tables import own_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft_shop.model.structure import Structure

__all__ = ["CLOSED_FORMS", "WITHOUT_CLOSED_FORM", "adapter_of"]

CLOSED_FORMS: Final[dict[str, Callable[[Sequence[Site], Fields], Additions]]] = {
    "ADALORA": low_rank.adalora,
    "ADAMSS": low_rank.adamss,
    "ADAPTION_PROMPT": prompts.adaption_prompt,
    "BEFT": rotations.beft,
    "BOFT": rotations.boft,
    "C3A": weights.c3a,
    "CARTRIDGE": prompts.cartridge,
    "CPT": prompts.cpt,
    "DEFT": low_rank.deft,
    "DELORA": low_rank.delora,
    "FOURIERFT": weights.fourierft,
    "FROD": shared.frod,
    "GLORA": weights.glora,
    "GRALORA": low_rank.gralora,
    "HIRA": weights.hira,
    "HRA": rotations.hra,
    "IA3": rotations.ia3,
    "LILY": shared.lily,
    "LN_TUNING": rotations.ln_tuning,
    "LOHA": weights.loha,
    "LOKR": weights.lokr,
    "LORA": low_rank.lora,
    "MISS": low_rank.miss,
    "MULTITASK_PROMPT_TUNING": prompts.multitask_prompt_tuning,
    "OFT": rotations.oft,
    "OSF": weights.osf,
    "PEANUT": low_rank.peanut,
    "POLY": low_rank.poly,
    "PREFIX_TUNING": prompts.prefix_tuning,
    "PROMPT_TUNING": prompts.prompt_tuning,
    "PSOFT": rotations.psoft,
    "PVERA": shared.pvera,
    "P_TUNING": prompts.p_tuning,
    "RANDLORA": shared.randlora,
    "ROAD": rotations.road,
    "SHIRA": weights.shira,
    "SUPERTUNING": weights.supertuning,
    "TINYLORA": shared.tinylora,
    "TRAINABLE_TOKENS": rotations.trainable_tokens,
    "UNILORA": shared.unilora,
    "VBLORA": shared.vblora,
    "VERA": shared.vera,
    "WAVEFT": weights.waveft,
}
_EMBEDDING_NAMES: Final = ("embed_tokens", "lm_head")
"""Names by which peft 0.21.2 recognises a targeted embedding and saves its base weight."""
WITHOUT_CLOSED_FORM: Final[dict[str, str]] = {
    "SHADOW": "its shadow network is built from the model's own code",
    "XLORA": "it loads trained adapters",
}
"""Methods whose cost only a dry run can tell, and why."""


def fields_of(structure: Structure, config: Mapping[str, Any]) -> Fields:
    """The configuration with defaults filled in.

    Raises:
        ConfigError: `peft_type` is missing, or the method has no closed form.
        UnknownNameError: no such method.
    """
    method = config.get("peft_type")
    if not isinstance(method, str):
        msg = "config.peft_type: missing; state the method, such as 'LORA'"
        raise ConfigError(msg)
    method = method.upper()
    if method in WITHOUT_CLOSED_FORM:
        msg = (
            f"{method} has no closed form: {WITHOUT_CLOSED_FORM[method]}; "
            "make a dry run, which needs torch"
        )
        raise ConfigError(msg)
    if method not in CLOSED_FORMS and _is_new(method):
        msg = (
            f"{method} has no closed form: nobody has worked one out yet; make a dry run, which "
            "needs torch"
        )
        raise ConfigError(msg)
    if method not in CLOSED_FORMS:
        raise UnknownNameError("method", method, [*CLOSED_FORMS, *WITHOUT_CLOSED_FORM])
    values = {**COMMON, **CLASS_DEFAULTS.get(method, {}), **config}
    if values["target_modules"] is None:
        for name, value in own_targets(method, structure.model_type).items():
            if values.get(name) is None:
                values[name] = value
    return Fields(method, values, structure)


def _is_new(method: str) -> bool:
    """Whether the installed peft has a method of which nothing is known here."""
    installed = installed_peft()
    return installed is not None and method in installed.methods


def adapter_of(structure: Structure, config: Mapping[str, Any]) -> Additions:
    """Tensors and kept activations that `config` adds to a model of this structure.

    Worked out once per structure and configuration: nobody may change it.

    Raises:
        ConfigError: the configuration does not fit the model, or has no closed form.
        UnknownNameError: no such method.
    """
    key = ("adapter", json.dumps(dict(config), sort_keys=True, default=sorted))
    return remembered(structure, key, lambda: _adapter_of(structure, config))


def _adapter_of(structure: Structure, config: Mapping[str, Any]) -> Additions:
    fields = fields_of(structure, config)
    for name in ("trainable_token_indices",):
        if fields[name]:
            msg = f"{fields.method}: no closed form for {name}; make a dry run, which needs torch"
            raise ConfigError(msg)
    if fields["bias"] not in (None, "none"):
        msg = f"{fields.method}: no closed form for bias={fields['bias']!r}; make a dry run"
        raise ConfigError(msg)
    sites = sites_of(fields)
    additions = CLOSED_FORMS[fields.method](sites, fields)
    _modules_to_save(additions, fields)
    _embeddings(additions, fields, sites)
    return additions


def _embeddings(found: Additions, fields: Fields, sites: Sequence[Site]) -> None:
    """Add the embeddings that peft saves whole because the configuration names them as targets."""
    targets = fields["target_modules"]
    if fields.method == "TRAINABLE_TOKENS" or targets is None:
        return
    if not any(name in targets for name in _EMBEDDING_NAMES):
        return
    roles = {name for group in fields.structure.of(["embedding", "head"]) for name in group.names}
    for site in sites:
        if site.name in roles:
            shape = (site.outputs, site.inputs)
            if site.kind == "embedding":
                shape = (site.inputs, site.outputs)
            found.add(
                site, "base_layer.weight", *shape,
                dtype="base", trained=False, parameter=False, held=False,
            )  # fmt: skip


def _modules_to_save(found: Additions, fields: Fields) -> None:
    """Add whole modules that are trained beside the adapter, as copies."""
    wanted = list(fields["modules_to_save"] or ())
    if not wanted:
        return
    for group in fields.structure.groups:
        for name in group.names:
            if not any(name == one or name.endswith(f".{one}") for one in wanted):
                continue
            path = f"base_model.model.{name}"
            found.share(f"{path}.weight", *group.shape, dtype="base")
            if group.bias:
                found.share(f"{path}.bias", group.shape[0], dtype="base")
