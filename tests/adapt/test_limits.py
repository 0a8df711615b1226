"""Values that depend on shapes: always allowed, never further from the recipe than they must be.

What peft demands is spelled out once more, value by value, and the nearest value that meets it
is looked for by trying them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_shop.adapt.drafts import Draft, RetargetCase
from peft_shop.adapt.limits import _RULES, fit_values
from peft_shop.adapt.measured import MEASURED
from peft_shop.adapt.records import TargetOptions
from peft_shop.catalog.store import load
from peft_shop.model.structure import Dimensions, ModuleGroup, Structure
from peft_shop.upstream.defaults import class_defaults
from peft_shop.upstream.targets import Names, wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft_shop.catalog.runs import Recipe

Widths = list[tuple[int, int]]
"""Inputs and outputs of each adapted layer."""
LAWS = settings(max_examples=25, deadline=None)


def group(place: int, widths: tuple[int, int], *, count: int = 1, **more: Any) -> ModuleGroup:
    names = tuple(f"model.layers.{layer}.part{place}" for layer in range(count))
    return ModuleGroup(
        **{
            "pattern": wildcard(names[0]),
            "names": names,
            "role": "mlp_up",
            "tower": "text",
            "kind": "linear",
            "class_name": "Linear",
            "in_features": widths[0],
            "out_features": widths[1],
            "parameters": widths[0] * widths[1],
            "shape": (widths[1], widths[0]),
            **more,
        }
    )


def fitted(
    peft_type: str,
    config: dict[str, Any],
    layers: Sequence[tuple[int, int] | ModuleGroup],
    *,
    depth: int | None = 4,
    recipe: Recipe | None = None,
) -> Draft:
    """The draft of a configuration after its values were made to fit layers of these widths."""
    groups = [
        one if isinstance(one, ModuleGroup) else group(place, one)
        for place, one in enumerate(layers)
    ]
    structure = Structure(
        name="drawn",
        architecture="DrawnForCausalLM",
        model_type="drawn",
        library="transformers",
        modality="text",
        task_type="CAUSAL_LM",
        benchmark_because="drawn",
        groups=tuple(groups),
        parameters=sum(one.parameters * one.count for one in groups),
        dimensions=Dimensions(layers=depth),
    )
    method = next(one for one in load().methods if one.peft_type == peft_type)
    draft = Draft(config, class_defaults(peft_type))
    names = Names(structure)
    case = RetargetCase(method, recipe, (), structure, TargetOptions(), names, draft, groups=groups)
    fit_values(case)
    return draft


@dataclass(frozen=True)
class Demand:
    """What peft asks of one field.

    Attributes:
        field: the field.
        met: whether a value is allowed for a layer of n inputs and m outputs.
        nearest: whether the value goes to the nearest ratio, up or down; if not it falls.
        config: other fields that are stated.
    """

    peft_type: str
    field: str
    met: Callable[[int, int, int], bool]
    nearest: bool = True
    config: tuple[tuple[str, Any], ...] = ()


def divides(v: int, n: int, m: int) -> bool:
    return n % v == m % v == 0


DEMANDS = [
    Demand("C3A", "block_size", divides),
    Demand("VBLORA", "vector_length", divides),
    Demand("POLY", "n_splits", divides),
    Demand("ROAD", "group_size", lambda v, _, m: v % 2 == m % v == 0),
    Demand("GRALORA", "gralora_k", lambda v, n, m: divides(v, n, m) and 24 % v == 0,
           config=(("r", 24),)),
    Demand("BOFT", "boft_block_size", lambda v, n, _: n % v == 0,
           config=(("boft_block_num", 0), ("boft_n_butterfly_factor", 1))),
    Demand("BOFT", "boft_block_num", lambda v, n, _: n % v == 0,
           config=(("boft_block_size", 0), ("boft_n_butterfly_factor", 1))),
    Demand("BOFT", "boft_block_num", lambda v, n, _: n % v == v % 2 == n % 4 == 0,
           config=(("boft_block_size", 0), ("boft_n_butterfly_factor", 2))),
    Demand("BOFT", "boft_block_size", lambda v, n, _: n // 2 % v == v % 2 == n % 4 == 0,
           config=(("boft_block_num", 0), ("boft_n_butterfly_factor", 2))),
    Demand("OFT", "oft_block_size", lambda v, n, _: n % v == 0 and v > 1, config=(("r", 0),)),
    Demand("MISS", "r", divides, config=(("init_weights", "bat"),)),
    Demand("MISS", "mini_r", lambda v, _, m: m % v == 0,
           config=(("init_weights", "mini"), ("r", 1))),
    Demand("MISS", "r", lambda v, n, _: v <= n, nearest=False),
    Demand("PSOFT", "r", lambda v, n, m: v <= min(n, m), nearest=False),
    Demand("SHIRA", "r", lambda v, n, m: v * (n + m) <= n * m, nearest=False),
    Demand("FOURIERFT", "n_frequency", lambda v, n, m: v <= n * m, nearest=False),
    Demand("WAVEFT", "n_frequency", lambda v, n, m: v <= n * m, nearest=False),
    Demand("OSF", "effective_rank", lambda v, n, m: v < min(n, m), nearest=False),
    *[
        Demand("LORA", "r", lambda v, n, m: v <= min(n, m), nearest=False,
               config=(("init_lora_weights", start),))
        for start in ("pissa", "pissa_niter_4", "olora", "corda", "mica", "lora_ga")
    ],
    Demand("LORA", "r", lambda v, n, m: v < min(n, m), nearest=False,
           config=(("kasa_config", {"beta": 1e-4}),)),
    Demand("LORA", "r", lambda *_: True, nearest=False),
]  # fmt: skip
widths = st.lists(
    st.tuples(*[st.sampled_from([2, 3, 4, 6, 8, 9, 12, 16, 20, 24, 36, 48, 60, 64, 96])] * 2),
    min_size=1,
    max_size=3,
)


def test_every_rule_is_held_to_its_demand() -> None:
    assert set(_RULES) - {one.peft_type for one in DEMANDS} == {"LILY", "SUPERTUNING"}


@pytest.mark.parametrize("demand", DEMANDS, ids=lambda one: f"{one.peft_type}.{one.field}")
@LAWS
@given(widths, st.one_of(st.integers(1, 40), st.integers(1, 400)))
@example([(20, 36)], 8)
@example([(8, 8)], 8)
@example([(9, 9), (12, 12)], 9)
@example([(64, 32)], 33)
def test_a_value_is_the_nearest_that_is_allowed(demand: Demand, on: Widths, stated: int) -> None:
    draft = fitted(demand.peft_type, {demand.field: stated, **dict(demand.config)}, on)
    most = max(stated, *(n * m for n, m in on)) if not demand.nearest else 100
    allowed = [
        value
        for value in range(1, most + 1)
        if all(demand.met(value, n, m) for n, m in on) and (demand.nearest or value <= stated)
    ]
    if not allowed:
        # nothing that may be written helps: said, or left where the rule does not reach
        assert draft.problems or draft.config[demand.field] == stated or demand.peft_type == "BOFT"
        return
    fit = draft.config[demand.field]
    assert draft.problems == []
    if stated in allowed:
        assert fit == stated
        assert draft.unchanged(demand.field)
    elif demand.nearest:
        assert fit == min(allowed, key=lambda value: (abs(math.log(value / stated)), value))
    else:
        assert fit == max(allowed)


@LAWS
@given(widths, st.integers(1, 60))
@example([(12, 12)], 12)
@example([(5, 4)], 5)
@example([(2, 2)], 2)
def test_blocks_that_oft_turns_are_two_wide_or_more(on: Widths, stated: int) -> None:
    draft = fitted("OFT", {"r": stated, "oft_block_size": 0}, on)
    number = draft.config["r"]
    shared = math.gcd(*(n for n, _ in on))
    if shared == 1:
        assert bool(draft.problems) == (number in [n for n, _ in on])
        return
    assert draft.problems == []
    assert all(n % number == 0 and n // number >= 2 for n, _ in on)
    if all(n % stated == 0 and n // stated >= 2 for n, _ in on):
        assert number == stated


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    "start", [{"init_lora_weights": "pissa"}, {"kasa_config": {"beta": 1e-4}}, {}]
)
@LAWS
@given(widths, st.integers(1, 128), st.integers(1, 128))
@example([(16, 64)], 32, 64)
def test_a_rank_that_falls_keeps_the_scaling(
    start: dict[str, Any], rslora: bool, on: Widths, rank: int, alpha: int
) -> None:
    config = {"r": rank, "lora_alpha": alpha, "use_rslora": rslora, **start}
    after = fitted("LORA", config, on).config

    def scaling(values: dict[str, Any]) -> float:
        root = math.sqrt(values["r"]) if rslora else values["r"]
        return float(values["lora_alpha"] / root)

    # alpha is whole where it may be, and rounded to four places where not
    assert scaling(after) == pytest.approx(scaling(config), abs=1e-4)
    share = after["r"] / rank
    exact = alpha * (math.sqrt(share) if rslora else share)
    assert after["lora_alpha"] == (exact if exact == int(exact) else round(exact, 4))
    assert isinstance(after["lora_alpha"], int) == (exact == int(exact))
    if after["r"] == rank:
        assert after == config


@LAWS
@given(widths, st.floats(0.0, 1.0, exclude_max=True))
@example([(2, 2)], 0.9)
@example([(60, 60)], 0.9999)
def test_a_sparse_update_trains_one_weight_at_least(on: Widths, sparsity: float) -> None:
    smallest = min(n * m for n, m in on)
    draft = fitted("SUPERTUNING", {"sparsity": sparsity}, on)
    fit = draft.config["sparsity"]
    if int(smallest * (1 - sparsity)) >= 1:
        assert fit == sparsity
    else:
        # three places are written: no more are trained than those and one leave
        assert 1 <= int(smallest * (1 - fit)) <= 1 + math.ceil(smallest / 1000)


@LAWS
@given(widths, st.floats(0.001, 0.999))
@example([(4, 4)], 0.1)
@example([(96, 64)], 0.01)
def test_a_share_of_directions_keeps_one(on: Widths, share: float) -> None:
    least = min(min(n, m) for n, m in on)
    fit = fitted("OSF", {"effective_rank": share}, on).config["effective_rank"]
    if int(least * share) >= 1:
        assert fit == share
    else:
        assert int(least * fit) == 1


@pytest.mark.parametrize(
    ("peft_type", "config", "on", "changed"),
    [
        ("C3A", {"block_size": 7}, [(12, 36)], {"block_size": "it must divide the widths of every "
         "target (greatest common divisor 12)"}),
        ("ROAD", {"group_size": 5}, [(12, 36)], {"group_size": "it must be even and divide the "
         "output width of every target (greatest common divisor 36)"}),
        ("BOFT", {"boft_block_size": 0, "boft_block_num": 2, "boft_n_butterfly_factor": 3},
         [(12, 36)], {"boft_n_butterfly_factor": "more factors need input widths that are "
         "multiples of 8"}),
        ("PSOFT", {"r": 99}, [(12, 36)], {"r": "the widths of the targets allow at most 12"}),
        ("LORA", {"r": 24, "lora_alpha": 48, "init_lora_weights": "pissa"}, [(12, 36)], {
         "r": "singular vectors of the smallest target allow at most 12",
         "lora_alpha": "it follows r, so that the scaling stays as measured"}),
        ("OSF", {"effective_rank": 12}, [(12, 36)], {"effective_rank":
         "12 or more would leave nothing to train"}),
        ("LILY", {"stride_A": 9}, [(12, 36)], {"stride_A": "this model has 4 layers"}),
        ("LORA", {"layers_to_transform": [1, 9]}, [(12, 36)], {"layers_to_transform":
         "this model has 4 layers"}),
    ],
)  # fmt: skip
def test_a_change_says_why(
    peft_type: str, config: dict[str, Any], on: Widths, changed: dict[str, str]
) -> None:
    draft = fitted(peft_type, config, on)
    assert {one.field: one.because for one in draft.changes()} == changed
    assert draft.problems == []


MODEL = "meta-llama/Llama-3.2-3B"


@pytest.mark.parametrize("depth", [1, 2, 7, 14, 28, 48])
@pytest.mark.parametrize("stride", [1, 2, 7, 14, 28])
def test_one_a_of_lily_serves_the_share_of_the_depth_that_was_measured(
    depth: int, stride: int
) -> None:
    layers = MEASURED[MODEL].layers
    run = next(run for run in load().runs if run.method == "lily")
    training = run.recipe.training.model_copy(update={"model_id": MODEL})
    recipe = run.recipe.model_copy(update={"training": training})
    for dimensions in (depth, None):  # without a stated depth that of the deepest group counts
        found = fitted(
            "LILY",
            {"stride_A": stride},
            [group(0, (8, 8), count=max(1, depth - 1)), group(1, (8, 8), count=depth)],
            depth=dimensions,
            recipe=recipe,
        ).config["stride_A"]
        shares = {other: abs(other / depth - stride / layers) for other in range(1, depth + 1)}
        nearest = min(shares.values())
        # a stride of one is one A a layer, whatever the depth
        assert found == 1 if stride == 1 else shares[found] == pytest.approx(nearest)
        alone = fitted("LILY", {"stride_A": stride}, [group(0, (8, 8), count=depth)], depth=None)
        assert alone.config["stride_A"] == min(stride, depth)


def test_layers_that_store_their_weights_transposed_say_so() -> None:
    turned = group(0, (8, 8), kind="transformers_conv1d")
    assert fitted("LORA", {"r": 2}, [turned]).config["fan_in_fan_out"] is True
    stated = {"r": 2, "fan_in_fan_out": True}
    assert fitted("LORA", stated, [(8, 8)]).config["fan_in_fan_out"] is False
    assert fitted("LORA", stated, [turned, (8, 8)]).config["fan_in_fan_out"] is False
    assert "fan_in_fan_out" not in fitted("LORA", {"r": 2}, [(8, 8)]).config


@pytest.mark.parametrize(
    ("stated", "depth", "fit"),
    [
        ([0, 3], 4, [0, 3]),
        ([0, 4], 4, [0]),
        ([4], 4, None),
        (3, 4, 3),
        (4, 4, None),
        ([9], None, [9]),
    ],
)
def test_layers_that_are_not_there_are_not_named(stated: Any, depth: int | None, fit: Any) -> None:
    draft = fitted("LORA", {"r": 2, "layers_to_transform": stated}, [(8, 8)], depth=depth)
    if fit is None:
        assert len(draft.problems) == 1
    else:
        assert not draft.problems
        assert draft.config["layers_to_transform"] in (fit, [fit])


def test_values_of_no_layer_are_left_alone() -> None:
    assert fitted("C3A", {"block_size": 7}, []).config == {"block_size": 7}


def test_kernels_count_as_inputs() -> None:
    convolution = group(0, (4, 24), kind="conv2d", kernel=(3, 3))
    assert fitted("C3A", {"block_size": 9}, [convolution]).config["block_size"] == 12
