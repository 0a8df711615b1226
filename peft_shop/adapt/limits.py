"""Values that depend on the shapes of the adapted layers, made valid with the smallest change.

What must hold was read in peft 0.21.2 (`tuners/<method>/layer.py` and `config.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

from peft_shop.adapt.measured import MEASURED
from peft_shop.adapt.tables import fit_blocks, fit_ranks, nearest_divisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.adapt.drafts import RetargetCase

__all__ = ["fit_values"]

_Rule: TypeAlias = "Callable[[RetargetCase], None]"
_TURNED: Final = 2
"""Inputs of the smallest block that OFT can turn [count]."""
_SVD_STARTS: Final = ("corda", "lora_ga", "mica", "olora", "pissa")


def fit_values(case: RetargetCase) -> None:
    """Change the values of `case.draft` that the layers of `case.groups` do not allow."""
    if not case.groups and not case.parameters:
        return
    for rule in _RULES.get(case.peft_type, ()):
        rule(case)
    if case.has_field("fan_in_fan_out"):
        _transposed(case)
    if case.has_field("layers_to_transform"):
        _layers(case)


def _inputs(case: RetargetCase) -> list[int]:
    return [group.in_features * math.prod(group.kernel) for group in case.groups]


def _outputs(case: RetargetCase) -> list[int]:
    return [group.out_features for group in case.groups]


def _least(case: RetargetCase) -> int:
    return min(map(min, zip(_inputs(case), _outputs(case), strict=True)))


def _divide(
    case: RetargetCase, name: str, widths: Iterable[int], what: str, *, even: bool = False
) -> None:
    """Make an integer field a divisor of all `widths`."""
    value = case.draft.value(name)
    if not isinstance(value, int) or value <= 0:
        return
    common = math.gcd(*widths)
    fit = nearest_divisor(value, common, even=even)
    if fit is None:
        case.draft.problem(f"{name} must be even and divide {what}, but they have no such divisor")
    elif fit != value:
        even_words = "be even and divide" if even else "divide"
        case.draft.set(name, fit, f"it must {even_words} {what} (greatest common divisor {common})")


def _at_most(case: RetargetCase, name: str, most: int, what: str) -> bool:
    value = case.draft.value(name)
    if isinstance(value, int) and value > most >= 1:
        case.draft.set(name, most, f"{what} allow at most {most}")
        return True
    return False


def _boft(case: RetargetCase) -> None:
    factor = case.draft.value("boft_n_butterfly_factor")
    halvings = factor - 1 if isinstance(factor, int) else 0
    common = math.gcd(*_inputs(case))
    if halvings > 0 and common % 2 ** (halvings + 1):
        case.draft.set(
            "boft_n_butterfly_factor", 1, f"more factors need input widths that are multiples of "
            f"{2 ** (halvings + 1)}",
        )  # fmt: skip
        halvings = 0
    name = "boft_block_num" if case.draft.value("boft_block_num") else "boft_block_size"
    what = "the input width of every target"
    if name == "boft_block_num":
        _divide(case, name, _inputs(case), what, even=halvings > 0)
    else:
        widths = [one // 2**halvings for one in _inputs(case)]
        _divide(case, name, widths, what, even=halvings > 0)


def _oft(case: RetargetCase) -> None:
    name = "r" if case.draft.value("r") else "oft_block_size"
    widths = _inputs(case)
    _divide(case, name, widths, "the input width of every target")
    value = case.draft.value(name)
    # a block of one input has nothing to turn
    if (value == 1 and name != "r") or (name == "r" and value in widths):
        shared = math.gcd(*widths)
        if shared < _TURNED:
            case.draft.problem("OFT turns blocks of two inputs or more, and the input widths of "
                               "the targets have no such divisor")  # fmt: skip
        elif name == "r":
            case.draft.set("r", 1, "more blocks would be one input wide, with nothing to turn")
        else:
            fit = min(one for one in range(_TURNED, shared + 1) if shared % one == 0)
            case.draft.set(name, fit, "a block of one input has nothing to turn")


def _c3a(case: RetargetCase) -> None:
    _divide(case, "block_size", [*_inputs(case), *_outputs(case)], "the widths of every target")


def _vblora(case: RetargetCase) -> None:
    _divide(case, "vector_length", [*_inputs(case), *_outputs(case)], "the widths of every target")


def _road(case: RetargetCase) -> None:
    _divide(case, "group_size", _outputs(case), "the output width of every target", even=True)


def _gralora(case: RetargetCase) -> None:
    rank = case.draft.value("r")
    widths = [*_inputs(case), *_outputs(case), int(rank)]
    _divide(case, "gralora_k", widths, "r and the widths of every target")


def _miss(case: RetargetCase) -> None:
    start = case.draft.value("init_weights")
    if start == "bat":
        _divide(case, "r", [*_inputs(case), *_outputs(case)], "the widths of every target")
        return
    _at_most(case, "r", min(_inputs(case)), "the input widths")
    if start == "mini":
        _divide(case, "mini_r", _outputs(case), "the output width of every target")


def _psoft(case: RetargetCase) -> None:
    _at_most(case, "r", _least(case), "the widths of the targets")


def _shira(case: RetargetCase) -> None:
    most = min(
        group.in_features * group.out_features // (group.in_features + group.out_features)
        for group in case.groups
    )
    _at_most(case, "r", most, "r * (in + out) values in a layer of in * out")


def _frequencies(case: RetargetCase) -> None:
    most = min(group.in_features * group.out_features for group in case.groups)
    _at_most(case, "n_frequency", most, "the entries of the smallest target")


def _supertuning(case: RetargetCase) -> None:
    size = min(group.in_features * group.out_features for group in case.groups)
    sparsity = case.draft.value("sparsity")
    if isinstance(sparsity, float) and int(size * (1 - sparsity)) < 1:
        fit = math.floor((1 - 1.5 / size) * 1000) / 1000 if size > 1 else 0.0
        case.draft.set("sparsity", fit, f"of {size} weights at least one must be left to train")


def _poly(case: RetargetCase) -> None:
    widths = [*_inputs(case), *_outputs(case)]
    _divide(case, "n_splits", widths, "the widths of every target")


def _lora(case: RetargetCase) -> None:
    start = case.draft.value("init_lora_weights")
    by_svd = isinstance(start, str) and start.startswith(_SVD_STARTS)
    # KaSA keeps at least one singular component of the layer
    spare = 1 if case.draft.value("kasa_config") else 0
    if case.groups and (by_svd or spare):
        before = case.draft.value("r")
        if _at_most(case, "r", _least(case) - spare, "singular vectors of the smallest target"):
            _keep_strength(case, before)
    if case.draft.value("use_bdlora"):
        fit_blocks(case)


def _keep_strength(case: RetargetCase, before: int) -> None:
    """Let `lora_alpha` follow a rank that had to change."""
    alpha, after = case.draft.value("lora_alpha"), case.draft.value("r")
    ratio = after / before
    fit = alpha * (math.sqrt(ratio) if case.draft.value("use_rslora") else ratio)
    fit = int(fit) if float(fit).is_integer() else round(fit, 4)
    case.draft.set("lora_alpha", fit, "it follows r, so that the scaling stays as measured")


def _osf(case: RetargetCase) -> None:
    """Keep the number of directions that train; a stored pattern belongs to other widths."""
    pattern = case.draft.value("rank_pattern")
    if pattern:
        fit_ranks(case, pattern)
    rank = case.draft.value("effective_rank")
    least = _least(case)
    if isinstance(rank, int) and not isinstance(rank, bool) and rank >= least:
        case.draft.set("effective_rank", least - 1, f"{least} or more would leave nothing to train")
    elif isinstance(rank, float) and int(least * rank) < 1:
        fit = math.ceil(1000 / least) / 1000
        case.draft.set("effective_rank", fit, "a share of the smallest target must keep one")


def _lily(case: RetargetCase) -> None:
    """`stride_A` counts layers: keep the share of the depth that one A serves."""
    stride = case.draft.value("stride_A")
    recipe = case.recipe
    measured = MEASURED.get(recipe.training.model_id) if recipe else None
    depth = case.structure.dimensions.layers or max(group.count for group in case.groups)
    if not isinstance(stride, int):
        return
    if measured and stride > 1:
        share = stride / measured.layers
        fit = max(1, round(share * depth))
        case.draft.set(
            "stride_A", fit, f"one A for {stride} of {measured.layers} layers is {fit} of {depth}"
        )
    elif stride > depth:
        case.draft.set("stride_A", depth, f"this model has {depth} layers")


def _transposed(case: RetargetCase) -> None:
    kinds = {group.kind for group in case.groups}
    if kinds and kinds <= {"transformers_conv1d"}:
        case.draft.set(
            "fan_in_fan_out", value=True, because="these layers store their weights transposed"
        )
    elif "linear" in kinds and case.draft.value("fan_in_fan_out"):
        case.draft.set(
            "fan_in_fan_out", value=False, because="these layers store their weights as (out, in)"
        )


def _layers(case: RetargetCase) -> None:
    depth = case.structure.dimensions.layers
    stated = case.draft.value("layers_to_transform")
    if stated is None or depth is None:
        return
    listed = stated if isinstance(stated, list) else [stated]
    fit = [one for one in listed if one < depth]
    if not fit:
        case.draft.problem(f"layers_to_transform {listed} names no layer of this model's {depth}")
    elif fit != listed:
        case.draft.set("layers_to_transform", fit, f"this model has {depth} layers")


_RULES: Final[dict[str, tuple[_Rule, ...]]] = {
    "BOFT": (_boft,),
    "C3A": (_c3a,),
    "FOURIERFT": (_frequencies,),
    "GRALORA": (_gralora,),
    "LILY": (_lily,),
    "LORA": (_lora,),
    "MISS": (_miss,),
    "OFT": (_oft,),
    "OSF": (_osf,),
    "POLY": (_poly,),
    "PSOFT": (_psoft,),
    "ROAD": (_road,),
    "SHIRA": (_shira,),
    "SUPERTUNING": (_supertuning,),
    "VBLORA": (_vblora,),
    "WAVEFT": (_frequencies,),
}
