"""A question about any type of model with a device ends with a ranking or with a true reason.

Model types of the installed transformers are made small and asked about. Three outcomes are
counted: ready (a ranking; and where a preflight says that a configuration works, one training step
moves its adapter), refused with a reason, and anything else, of which there must be none.
"""

from __future__ import annotations

import copy
import logging
import sys
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import CONFIG_MAPPING

from peft_shop import recommend
from peft_shop.errors import ConfigError, ModelError, PeftShopError
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.preflight.checking import preflight
from peft_shop.preflight.trying import bare_of, small_batch
from peft_shop.preflight.wrapping import as_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # its scripts are not a package

from architecture_sweep import SETTINGS  # noqa: E402 - found through the line above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Unmeasured
    from peft_shop.ask.recommendation import Recommendation

_DEPTHS: Final = frozenset(
    {
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
        "decoder_layers", "num_decoder_layers", "num_encoder_layers",
    }
)  # fmt: skip
_WIDTHS: Final = frozenset(
    {
        "hidden_size", "intermediate_size", "d_model", "d_ff", "d_kv", "ffn_dim", "head_dim",
        "encoder_ffn_dim", "decoder_ffn_dim", "n_embd", "n_inner", "moe_intermediate_size",
        "shared_expert_intermediate_size", "embed_dim", "dim", "hidden_dim", "ffn_hidden_size",
    }
)  # fmt: skip
_VOCABULARY: Final = 512
"""Tokens that are left of a vocabulary; special ones move to its end."""
_MANY: Final = 240
"""Model types that are asked about, drawn from all."""
_LARGEST: Final = 40_000_000
"""Parameters of a model that counts as shrunken [count]."""


def shrunken(kind: str) -> Target | None:
    """The model type with few and narrow layers and few tokens, as far as it allows; else `None`.

    Some widths depend on each other in ways that no rule here knows: what takes no forward pass
    is made wider, and taken as it is where nothing helps.
    """
    last: Target | None = None
    for share, depth, tokens in ((8, 2, True), (4, 2, True), (1, 2, True), (1, 2, False)):
        try:
            config = CONFIG_MAPPING[kind](**SETTINGS.get(kind, {}))
            made = _smaller(config.to_dict(), share, depth, tokens=tokens)
            target = inspect_model(type(config).from_dict(made))
        except (ModelError, ImportError):
            continue
        except Exception:  # noqa: BLE001, S112 - configurations refuse with anything
            continue
        if target.structure.parameters > _LARGEST:
            break
        last = target
        if not why_untried(target):
            break
    return last


def why_untried(target: Target) -> str:
    """Why the model takes no forward pass without weights; empty where it does."""
    return bare_of(target).because


def _smaller(content: dict[str, Any], share: int, depth: int, *, tokens: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and key.endswith("config"):
            made[key] = _smaller(value, share, depth, tokens=tokens)
        elif key in {"layer_types", "mlp_layer_types"}:
            continue  # made anew for the depth
        elif type(value) is not int:
            made[key] = value
        elif key in _DEPTHS:
            made[key] = min(value, depth)
        elif key in _WIDTHS and value % (8 * share) == 0:
            made[key] = value // share
        elif tokens and key == "vocab_size":
            made[key] = min(value, _VOCABULARY)
        elif tokens and key.endswith(("token_id", "token_index")) and value >= _VOCABULARY:
            made[key] = _VOCABULARY - 1 - value % 32
        else:
            made[key] = value
    return made


@pytest.fixture(scope="module", name="small")
def _small() -> dict[str, Target]:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: dict[str, Target] = {}
        for kind in sorted(CONFIG_MAPPING, key=hash_of):
            target = shrunken(kind)
            if target is not None:
                made[kind] = target
            if len(made) == _MANY:
                break
        return made


def hash_of(kind: str) -> int:
    """An order that mixes families and is the same everywhere."""
    return zlib.crc32(kind.encode())


def outcome(target: Target) -> tuple[str, str]:
    """What becomes of a question about a model with a device, and why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = recommend(model=target, device="H200")
    except PeftShopError as error:
        return "refused", str(error)
    except Exception as error:  # noqa: BLE001 - the outcome that must not be
        return "other", "".join(traceback.format_exception(error)[-3:])
    if answer.front or answer.ties or answer.dominated:
        return "ready", answer.best.name if answer.front else ""
    # without evidence nothing is ranked: then what could be trained is listed, and that is said
    if answer.unmeasured and "nothing is ranked" in " ".join(answer.warnings):
        return "ready", answer.unmeasured[0].method
    # too much memory is no reason for a small model on a large card
    because = [
        failure.reason
        for dropped in answer.dropped
        for failure in dropped.failures
        if failure.constraint == "model"
    ]
    return ("refused", because[0]) if because else ("other", f"empty: {answer.warnings}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_question_about_any_type_ends_with_a_ranking_or_a_reason(
    small: dict[str, Target], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {kind: outcome(target) for kind, target in small.items()}
    counts = Counter(what for what, _ in found.values())
    with capsys.disabled():
        print(f"\n{len(found)} model types: {dict(counts)}")  # noqa: T201 - the figure that is asked for
    assert len(found) == _MANY
    assert {kind: why for kind, (what, why) in found.items() if what == "other"} == {}
    assert all(why.strip() for what, why in found.values() if what == "refused")
    assert counts["ready"] >= len(found) // 2


# --- training a step ---


def real(target: Target) -> nn.Module:
    """The model with random weights in float32."""
    config = copy.deepcopy(target.config)
    torch.manual_seed(0)
    return type(target.skeleton())._from_config(config, dtype=torch.float32).train()


_MUCH: Final = 500_000
"""Numbers in one input above which one sample of it has to do [count]."""


def lean(batch: dict[str, Any]) -> dict[str, Any]:
    """One sample where two are large, as of images of a thousand pixels a side."""
    values = [one for one in batch.values() if isinstance(one, torch.Tensor)]
    if max((one.numel() for one in values), default=0) <= _MUCH:
        return batch
    several = {one.shape[0] for one in values if one.dim()}
    if several != {2}:
        return batch
    return {
        name: one[:1] if isinstance(one, torch.Tensor) and one.dim() else one
        for name, one in batch.items()
    }


def filled(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch from meta with numbers in it."""
    made = {}
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or value.device.type != "meta":
            made[name] = value
        elif value.is_floating_point():
            made[name] = torch.randn(value.shape)
        else:
            made[name] = torch.ones(value.shape, dtype=value.dtype)
    return made


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Floating-point tensors in what a model gives, however deep."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.requires_grad:
            yield value
    elif hasattr(value, "values"):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def loss_of(output: Any) -> torch.Tensor:
    """The model's own loss, or the mean square of what it gives."""
    if getattr(output, "loss", None) is not None:
        return output.loss
    return torch.stack([one.float().square().mean() for one in tensors(output)]).sum()


def optimizer_of(model: Any, name: str) -> Any:
    """The recipe's own optimizer, as its script makes it."""
    from peft.optimizers import create_lorafa_optimizer, create_riemannian_optimizer

    if name == "riemannian":
        return create_riemannian_optimizer(model, optimizer_cls=torch.optim.AdamW, lr=0.01)
    if name == "lora-fa":
        return create_lorafa_optimizer(model, r=8, lora_alpha=16, lr=0.01)
    trainable = [one for one in model.parameters() if one.requires_grad]
    return torch.optim.AdamW(trainable, lr=0.01)


def moves(target: Target, config: Any, optimizer: str) -> bool:
    """Whether one step on random numbers changes the adapter."""
    from peft import get_peft_model

    batch = filled(lean(small_batch(target, target.skeleton())))
    wrapped = get_peft_model(real(target), config)
    before = {
        name: one.detach().clone() for name, one in wrapped.named_parameters() if one.requires_grad
    }
    made = optimizer_of(wrapped, optimizer)
    loss_of(wrapped(**batch)).backward()
    made.step()
    now = dict(wrapped.named_parameters())
    return any(not torch.equal(one, now[name]) for name, one in before.items())


def picked(answer: Recommendation) -> list[Candidate | Unmeasured]:
    """The answer's best, and its first plain LoRA."""
    named = [*answer.front, *answer.ties, *answer.dominated, *answer.unmeasured]
    plain = [one for one in named if one.method == "lora"]
    return list({id(one): one for one in (*named[:1], *plain[:1])}.values())


def judged(target: Target, one: Candidate | Unmeasured) -> tuple[str, str]:
    """The outcome for one candidate: what is said of it, and whether that is so."""
    assert one.retargeted is not None
    try:
        said = preflight(target, one.retargeted.config)
    except ConfigError as error:
        return "refused", str(error)
    if said.forward != "passed":
        return "refused", f"not said to be ready: {said.not_tried_because}"
    run = getattr(one, "run", None)
    optimizer = "adamw" if run is None else run.recipe.training.optimizer.lower()
    try:
        moved = moves(target, as_config(one.retargeted.config), optimizer)
    except Exception as error:  # noqa: BLE001 - the outcome that must not be
        return "other", f"{one.method}: {type(error).__name__}: {error}"
    if moved:
        return "ready", ""
    told = any("gradient" in warning for warning in said.warnings)
    return ("refused", "no gradient, as was said") if told else ("other", "nothing moved")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_said_to_be_ready_trains(
    small: dict[str, Target], capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, tuple[str, str]] = {}
    for kind, target in small.items():
        try:
            answer = recommend(model=target, device="H200", within="0s")
        except PeftShopError as error:
            found[kind] = "refused", str(error)
            continue
        for one in picked(answer):
            found[f"{kind} {one.method}"] = judged(target, one)
    counts = Counter(what for what, _ in found.values())
    with capsys.disabled():
        print(f"\n{len(found)} configurations on {len(small)} model types: {dict(counts)}")  # noqa: T201 - the figure that is asked for
    assert {kind: why for kind, (what, why) in found.items() if what == "other"} == {}
    assert all(why.strip() for what, why in found.values() if what == "refused")
    assert counts["ready"] >= len(small) // 2
