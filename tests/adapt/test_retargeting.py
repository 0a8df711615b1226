"""Retargeting: laws on drawn structures, peft's own rules as oracle, real models as check."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_shop.adapt import exceptions, tables
from peft_shop.adapt.circumstances import group_circumstances
from peft_shop.adapt.measured import MEASURED
from peft_shop.adapt.records import Retargeted, TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.model.structure import Dimensions, ModuleGroup, Structure
from peft_shop.upstream import defaults
from peft_shop.upstream import targets as matching
from peft_shop.upstream.tables import own_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.model.structure import Role

LLAMA = "meta-llama/Llama-3.2-3B"
FLUX = "black-forest-labs/FLUX.2-klein-base-4B"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


def newest(catalog: Catalog) -> list[Run]:
    last = catalog.snapshots[-1].id
    return [r for r in catalog.runs if last in r.snapshots and r.method != FULL_FINETUNING]


RUNS = newest(load())


def group(
    pattern: str, role: Role, widths: tuple[int, int], layers: int, **more: Any
) -> ModuleGroup:
    names = (
        tuple(pattern.replace("*", str(i)) for i in range(layers)) if "*" in pattern else (pattern,)
    )
    return ModuleGroup(
        **{
            "pattern": matching.wildcard(names[0]),
            "names": names,
            "role": role,
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


def structure(groups: Iterable[ModuleGroup], **more: Any) -> Structure:
    groups = tuple(groups)
    return Structure(
        **{
            "name": "drawn",
            "architecture": "DrawnForCausalLM",
            "model_type": "drawn",
            "library": "transformers",
            "modality": "text",
            "task_type": "CAUSAL_LM",
            "benchmark_because": "drawn",
            "groups": groups,
            "parameters": sum(one.parameters * one.count for one in groups),
            **more,
        }
    )


def measured_structure(model_id: str) -> Structure:
    """The measured model, made from the table of its names, roles and widths."""
    model = MEASURED[model_id]
    text = model_id == LLAMA
    groups = []
    for pattern, role, widths in model.modules:
        layers = next((n for block, n in model.blocks.items() if pattern.startswith(block)), 1)
        kind = {"norm": "rms_norm", "embedding": "embedding"}.get(role, "linear")
        tower = "text" if text else "image"
        groups.append(group(pattern, role, widths, layers, kind=kind, tower=tower))
    if text:
        sizes = Dimensions(layers=28, hidden_size=3072, attention_heads=24, head_dim=128,
                           vocabulary=128256, max_positions=131072)  # fmt: skip
        return structure(groups, model_type="llama", dimensions=sizes)
    return structure(
        groups, model_type=None, library="diffusers", modality="image", task_type=None,
        architecture="Flux2Transformer2DModel",
    )  # fmt: skip


MEASURED_STRUCTURES = {
    "metamathqa": measured_structure(LLAMA),
    "image_gen": measured_structure(FLUX),
}


def named(found: Retargeted, on: Structure) -> set[str]:
    """Layers that a configuration names, counted by peft's rule spelled out once more."""
    expression = found.config.get("target_modules")
    names = {name for one in on.groups if one.kind != "parameter" for name in one.names}
    if expression is None:
        return set()
    if isinstance(expression, str):
        return {name for name in names if re.fullmatch(expression, name)}
    return {
        name
        for name in names
        if any(name == entry or name.endswith(f".{entry}") for entry in expression)
    }


# --- the measured models ---


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.benchmark}:{run.id}")
def test_a_recipe_needs_no_change_on_the_model_it_was_measured_on(
    run: Run, catalog: Catalog
) -> None:
    found = retarget(catalog, run, MEASURED_STRUCTURES[run.benchmark])
    assert found.changes == ()
    assert found.problems == ()
    assert found.config == {"peft_type": run.recipe.peft_type, **run.recipe.config}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.benchmark}:{run.id}")
def test_what_peft_fills_in_is_known_without_it(run: Run, catalog: Catalog) -> None:
    """A recipe that leaves its targets to peft names the modules that it was measured on."""
    on = MEASURED_STRUCTURES[run.benchmark]
    found = retarget(catalog, run, on)
    left = {"target_modules", "feedforward_modules"} - set(run.recipe.config)
    assert set(found.resolved) <= left
    for name in left:
        measured = run.recipe.resolved.get(name)
        # these two find their places in the model itself
        if measured is not None and run.method not in {"shadow", "trainable_tokens"}:
            assert sorted(found.resolved[name]) == sorted(measured)
            own = own_targets(found.config["peft_type"], on.model_type)
            assert sorted(own[name]) == sorted(measured)
    assert found.whole_config == {**found.resolved, **found.config}


def test_full_finetuning_has_no_configuration(catalog: Catalog) -> None:
    run = next(run for run in catalog.runs if run.method == FULL_FINETUNING)
    with pytest.raises(ConfigError, match="full fine-tuning"):
        retarget(catalog, run, MEASURED_STRUCTURES["metamathqa"])


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_the_tables_of_measured_models_are_their_real_layers(benchmark: str) -> None:
    """Names and widths of the tables, against the models built on meta."""
    import torch

    with torch.device("meta"):
        if benchmark == "metamathqa":
            from transformers import LlamaConfig, LlamaForCausalLM

            model: Any = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=128256, hidden_size=3072, intermediate_size=8192,
                    num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8,
                    tie_word_embeddings=True,
                )
            )  # fmt: skip
        else:
            from diffusers import Flux2Transformer2DModel

            model = Flux2Transformer2DModel(
                in_channels=128, num_layers=5, num_single_layers=20, attention_head_dim=128,
                num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False,
                mlp_ratio=3,
            )  # fmt: skip
    real = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    table = MEASURED[LLAMA if benchmark == "metamathqa" else FLUX]
    linear = {n: w for n, w in table.widths.items() if table.roles[n] not in {"norm", "embedding"}}
    assert linear == real
    assert set(table.widths) | set(table.block_names) <= {n for n, _ in model.named_modules()}


# --- drawn structures ---

ROLE_NAMES: dict[Role, tuple[str, ...]] = {
    "attention_query": ("self_attn.q_proj", "attention.self.query", "SelfAttention.q"),
    "attention_key": ("self_attn.k_proj", "attention.self.key", "SelfAttention.k"),
    "attention_value": ("self_attn.v_proj", "attention.self.value", "SelfAttention.v"),
    "attention_qkv": ("attn.qkv_proj", "attn.c_attn", "attention.query_key_value"),
    "attention_output": ("self_attn.o_proj", "attention.output.dense", "SelfAttention.o"),
    "mlp_gate": ("mlp.gate_proj", "ff.wi_0"),
    "mlp_up": ("mlp.up_proj", "intermediate.dense", "ff.wi_1"),
    "mlp_gate_up": ("mlp.gate_up_proj",),
    "mlp_down": ("mlp.down_proj", "output.dense", "ff.wo"),
    "mixer_in": ("mixer.in_proj",),
}
PREFIXES = ("model.layers.*", "transformer.h.*", "bert.encoder.layer.*", "decoder.block.*.layer.0")


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    """Language models with any mix of roles, widths and names, some with a vision tower."""
    layers = draw(st.integers(1, 4))
    unit = draw(st.sampled_from([4, 6, 8, 12, 17, 32, 64]))
    hidden = unit * draw(st.integers(2, 12))
    inner = unit * draw(st.integers(2, 16)) + draw(st.sampled_from([0, 0, 0, 1]))
    narrow = unit * draw(st.integers(1, 3))
    prefix = draw(st.sampled_from(PREFIXES))
    kind = draw(st.sampled_from(["linear", "linear", "linear", "transformers_conv1d"]))
    widths: dict[Role, tuple[int, int]] = {
        "attention_query": (hidden, hidden),
        "attention_key": (hidden, narrow),
        "attention_value": (hidden, narrow),
        "attention_qkv": (hidden, hidden + 2 * narrow),
        "attention_output": (hidden, hidden),
        "mlp_gate": (hidden, inner),
        "mlp_up": (hidden, inner),
        "mlp_gate_up": (hidden, 2 * inner),
        "mlp_down": (inner, hidden),
        "mixer_in": (hidden, 2 * hidden),
    }
    roles = draw(st.lists(st.sampled_from(sorted(ROLE_NAMES)), min_size=1, max_size=8, unique=True))
    style = draw(st.integers(0, 2))
    groups = [
        group("model.embed_tokens", "embedding", (100, hidden), 1, kind="embedding"),
    ]
    for role in roles:
        names = ROLE_NAMES[role]
        end = names[style % len(names)]
        groups.append(group(f"{prefix}.{end}", role, widths[role], layers, kind=kind))
        if draw(st.booleans()):
            tower = "vision_tower.encoder.layers.*"
            groups.append(group(f"{tower}.{end}", role, (36, 36), 2, tower="vision", kind="linear"))
    groups.append(group(f"{prefix}.norm", "norm", (hidden, hidden), layers, kind="rms_norm"))
    groups.append(group("lm_head", "head", (hidden, 100), 1))
    sizes = Dimensions(layers=layers, hidden_size=hidden, attention_heads=4, head_dim=hidden // 4,
                       vocabulary=100, max_positions=512)  # fmt: skip
    return structure(groups, dimensions=sizes)


OPTIONS = TargetOptions(total_steps=700, token_indices=(3, 4), num_virtual_tokens=7)
runs = st.sampled_from(RUNS)
laws = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def again(run: Run, found: Retargeted, on: Structure) -> Run:
    """The run as if it had been measured on this model with the adapted configuration."""
    config = {key: value for key, value in found.config.items() if key != "peft_type"}
    training = run.recipe.training.model_copy(update={"model_id": on.name})
    recipe = run.recipe.model_copy(update={"config": config, "training": training})
    return run.model_copy(update={"recipe": recipe})


@laws
@given(runs, structures())
def test_adapting_once_more_changes_nothing(run: Run, on: Structure) -> None:
    catalog = load()
    once = retarget(catalog, run, on, OPTIONS)
    twice = retarget(catalog, again(run, once, on), on, OPTIONS)
    if not once.problems:
        assert twice.config == once.config
        assert twice.changes == ()
        assert twice.problems == ()


@laws
@given(runs, structures())
def test_every_difference_is_told_exactly_once(run: Run, on: Structure) -> None:
    found = retarget(load(), run, on, OPTIONS)
    before = {"peft_type": run.recipe.peft_type, **run.recipe.config}
    differing = {
        key
        for key in {*before, *found.config}
        if (key in before, before.get(key)) != (key in found.config, found.config.get(key))
    }
    fields = [change.field for change in found.changes]
    assert sorted(fields) == sorted(differing)
    for change in found.changes:
        assert change.after == found.config.get(change.field)
        assert change.because != "as stated"


@laws
@given(runs, structures())
def test_nothing_but_the_roles_of_the_recipe_is_adapted(run: Run, on: Structure) -> None:
    found = retarget(load(), run, on, OPTIONS)
    hit = named(found, on)
    reached = [one for one in on.groups if hit & set(one.names)]
    for one in reached:
        assert one.role not in {"head", "router", "embedding"} or run.method == "trainable_tokens"
        # what has a problem is no configuration: it keeps the recipe's own names
        assert found.problems or one.tower == "text"
        assert hit >= set(one.names), "a group is adapted whole or not at all"
    if found.problems or "target_modules" not in found.config or not hit:
        return
    listed = load().method_by_id[run.method]
    for one in reached:
        if one.kind in {"linear", "transformers_conv1d"}:
            capability = listed.capability(f"layer_types.{one.kind}", run.variants)
            support = capability.under(group_circumstances(on, [one]))
            assert support == "yes" or (support == "partial" and capability.conditions)


# what peft demands of a layer of n inputs and m outputs; `v` looks a value up
DEMANDS: dict[str, Callable[[Callable[[str], Any], int, int], bool]] = {
    "C3A": lambda v, n, m: n % v("block_size") == m % v("block_size") == 0,
    "VBLORA": lambda v, n, m: n % v("vector_length") == m % v("vector_length") == 0,
    "ROAD": lambda v, _, m: v("group_size") % 2 == m % v("group_size") == 0,
    "GRALORA": lambda v, n, m: not any(x % v("gralora_k") for x in (n, m, v("r"))),
    "BOFT": lambda v, n, _: n % v("boft_block_size") == 0,
    "OFT": lambda v, n, _: n % (v("r") + v("oft_block_size")) == 0 == v("r") * v("oft_block_size"),
    "PSOFT": lambda v, n, m: v("r") <= min(n, m),
    "MISS": lambda v, n, m: (
        v("r") <= n
        and (v("init_weights") != "bat" or n % v("r") == m % v("r") == 0)
        and (v("init_weights") != "mini" or m % v("mini_r") == 0)
    ),
    "SHIRA": lambda v, n, m: v("r") * (n + m) <= n * m,
    "FOURIERFT": lambda v, n, m: v("n_frequency") <= n * m,
    "WAVEFT": lambda v, n, m: v("n_frequency") <= n * m,
    "SUPERTUNING": lambda v, n, m: int(n * m * (1 - v("sparsity"))) >= 1,
    "LORA": lambda v, n, m: (
        v("r") + bool(v("kasa_config")) <= min(n, m)
        or not (v("kasa_config") or v("init_lora_weights") == "mica")
    ),
}


@laws
@given(runs, structures())
def test_values_fit_the_layers(run: Run, on: Structure) -> None:
    found = retarget(load(), run, on, OPTIONS)
    hit = named(found, on)
    layers = [one for one in on.groups if hit & set(one.names)]
    if found.problems or not layers:
        return
    kind = str(found.config["peft_type"])

    def value(name: str) -> Any:
        return found.config.get(name, defaults.class_defaults(kind).get(name))

    demand = DEMANDS.get(kind, lambda *_: True)
    for one in layers:
        assert demand(value, one.in_features, one.out_features)
        if kind == "OSF":
            kept = _kept(found.config, one)
            assert kept is None or 0 < kept < min(one.in_features, one.out_features)
    if kind == "LILY":
        assert 1 <= value("stride_A") <= max(1, on.dimensions.layers or 1)
    if "fan_in_fan_out" in load().method_by_id[run.method].fields:
        transposed = {one.kind for one in layers} == {"transformers_conv1d"}
        assert bool(found.config.get("fan_in_fan_out")) == transposed


def _kept(config: dict[str, Any], one: ModuleGroup) -> int | None:
    """Directions that OSF keeps in a layer, as peft resolves them."""
    for key, rank in (config.get("rank_pattern") or {}).items():
        if re.search(key, one.names[0]):
            return int(rank)
    rank = config.get("effective_rank")
    least = min(one.in_features, one.out_features)
    return int(least * rank) if isinstance(rank, float) else rank


methods = st.sampled_from(load().methods)


@laws
@given(methods, structures())
def test_class_defaults_are_told_to_be_unmeasured(method: Method, on: Structure) -> None:
    found = retarget(load(), method, on, OPTIONS)
    measured = any(run.method == method.id for run in load().runs)
    assert any("not measured anywhere" in note for note in found.notes) != measured
    assert any("class defaults" in note for note in found.notes)
    assert found.method == method.id
    assert found.config["peft_type"] == method.peft_type
    assert set(found.config) - {"peft_type"} <= set(method.fields)
    json.dumps(found.config, allow_nan=False)


@laws
@given(runs, structures(), st.sampled_from(["0.5.0", "0.11.0", "0.14.0", "0.17.0", "0.21.2"]))
def test_an_older_peft_gets_only_fields_it_knows(run: Run, on: Structure, version: str) -> None:
    catalog = load()
    found = retarget(catalog, run, on, TargetOptions(peft_version=version, total_steps=9))
    method = catalog.method_by_id[run.method]
    late = {
        name
        for name in found.config
        if name != "peft_type" and limits_key(method.fields.get(name, "99")) > limits_key(version)
    }
    told = " ".join(found.problems)
    assert all(name in told for name in late)


def limits_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


# --- matching ---

parts = st.sampled_from(["a", "b", "q_proj", "0", "1", "layers", "layer", "mlp", "x.q_proj"])
names_ = st.lists(parts, min_size=1, max_size=5).map(".".join)


@settings(max_examples=120, deadline=None)
@given(st.lists(names_, min_size=1, max_size=4), st.lists(names_, min_size=1, max_size=12))
def test_lists_are_matched_as_peft_matches_them(entries: list[str], names: list[str]) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig(target_modules=entries)
    theirs = {name for name in names if check_target_module_exists(config, name)}
    assert matching.named_by(entries, names) == theirs


@settings(max_examples=60, deadline=None)
@given(st.lists(names_, min_size=1, max_size=4), st.lists(names_, min_size=1, max_size=12))
def test_regular_expressions_are_matched_as_peft_matches_them(
    entries: list[str], names: list[str]
) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    pattern = "|".join(re.escape(one).replace("0", r"\d+") for one in entries)
    config = LoraConfig(target_modules=pattern)
    theirs = {name for name in names if check_target_module_exists(config, name)}
    assert matching.named_by(pattern, names) == theirs


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(structures(), st.data(), st.booleans())
def test_the_shortest_expression_names_exactly_what_is_wanted(
    on: Structure, data: st.DataObject, regular: bool
) -> None:
    names = matching.Names(on)
    layers = sorted({name for one in on.groups for name in one.names})
    wanted = set(data.draw(st.lists(st.sampled_from(layers), min_size=1, unique=True)))
    assert matching.named_by(names.shortest(wanted, regular=regular), names.all) == wanted


@given(st.integers(1, 400), st.integers(1, 5000), st.booleans())
def test_the_nearest_divisor_is_the_nearest(value: int, number: int, even: bool) -> None:
    fit = tables.nearest_divisor(value, number, even=even)
    every = [d for d in range(1, number + 1) if number % d == 0 and not (even and d % 2)]
    if not every:
        assert fit is None
        return
    assert fit in every
    assert min(abs(math.log(d / value)) for d in every) == abs(math.log(fit / value))
    if value in every:
        assert fit == value


# --- tables against the installed peft ---


def test_class_defaults_are_those_of_peft() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(key.value): cls for key, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    for peft_type, fields in defaults.CLASS_DEFAULTS.items():
        known = {field.name: field for field in dataclasses.fields(classes[peft_type])}
        for name, value in fields.items():
            factory = known[name].default_factory
            own = factory() if factory is not dataclasses.MISSING else known[name].default
            assert own == value, f"{peft_type}.{name}"
    for peft_type, cls in classes.items():
        field = {one.name: one.default for one in dataclasses.fields(cls)}
        assert field.get("fan_in_fan_out", False) is False, peft_type


@pytest.mark.slow
def test_facts_about_model_types_are_those_of_what_is_installed() -> None:
    from peft_shop.curate.readiness import model_types

    assert model_types.FILE.read_bytes() == model_types.model_types_bytes()


def test_models_without_past_key_values_are_those_of_transformers() -> None:
    import inspect

    import transformers
    from transformers.models.auto import modeling_auto as auto

    for name in ("albert", "deberta-v2", "distilbert", "modernbert", "longformer"):
        assert name in exceptions.NO_PAST
        cls = getattr(transformers, auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[name])
        base = getattr(transformers, auto.MODEL_MAPPING_NAMES[name])
        for one in (cls, base):
            assert "past_key_values" not in inspect.signature(one.forward).parameters


# --- single rules ---


def run_of(experiment: str) -> Run:
    return next(run for run in RUNS if run.experiment == experiment)


def two_towers() -> Structure:
    groups = [
        group("model.vision_tower.layers.*.self_attn.q_proj", "attention_query", (36, 36), 2,
              tower="vision"),
        group("model.vision_tower.layers.*.self_attn.v_proj", "attention_value", (36, 36), 2,
              tower="vision"),
        group("model.multi_modal_projector.linear_1", "projector", (36, 48), 1),
        group("model.language_model.layers.*.self_attn.q_proj", "attention_query", (48, 48), 2),
        group("model.language_model.layers.*.self_attn.v_proj", "attention_value", (48, 24), 2),
        group("lm_head", "head", (48, 100), 1),
    ]  # fmt: skip
    return structure(groups, modality="multimodal", model_type="llava")


def test_a_vision_tower_is_left_out_unless_asked_for(catalog: Catalog) -> None:
    on = two_towers()
    found = retarget(catalog, run_of("lora/llama-3.2-3B-rank32"), on)
    assert {name.split(".")[1] for name in named(found, on)} == {"language_model"}
    asked = retarget(
        catalog, run_of("lora/llama-3.2-3B-rank32"), on, TargetOptions(include_towers=True)
    )
    assert {name.split(".")[1] for name in named(asked, on)} == {
        "language_model", "vision_tower", "multi_modal_projector",
    }  # fmt: skip


def test_heads_are_adapted_only_when_asked_for(catalog: Catalog) -> None:
    run = run_of("lora/llama-3.2-3B-rank32")
    found = retarget(catalog, run, two_towers(), TargetOptions(include_heads=True))
    assert "lm_head" in named(found, two_towers())
    same = MEASURED_STRUCTURES["metamathqa"]
    found = retarget(catalog, run, same, TargetOptions(include_heads=True))
    assert found.config["target_modules"] == ["lm_head", "q_proj", "v_proj"]


def test_roles_that_a_model_lacks_are_told(catalog: Catalog) -> None:
    run = run_of("lora/llama-3.2-3B-rank32")
    found = retarget(catalog, run, two_towers(), TargetOptions(roles=("mixer_in",)))
    assert any("no mixer in" in problem for problem in found.problems)


def test_roles_can_be_chosen(catalog: Catalog) -> None:
    on = MEASURED_STRUCTURES["metamathqa"]
    options = TargetOptions(roles=("mlp_down", "attention_key"))
    found = retarget(catalog, run_of("lora/llama-3.2-3B-rank32"), on, options)
    assert found.config["target_modules"] == ["down_proj", "k_proj"]


def test_a_fused_projection_takes_the_place_of_its_parts(catalog: Catalog) -> None:
    on = structure([
        group("transformer.h.*.attn.c_attn", "attention_qkv", (48, 144), 2,
              kind="transformers_conv1d"),
        group("lm_head", "head", (48, 100), 1),
    ])  # fmt: skip
    found = retarget(catalog, run_of("lora/llama-3.2-3B-rank32"), on)
    assert found.config["target_modules"] == ["c_attn"]
    assert found.config["fan_in_fan_out"] is True
    change = next(one for one in found.changes if one.field == "target_modules")
    assert change.before == ["q_proj", "v_proj"]
    assert "part of attention qkv" in change.because
    refused = retarget(catalog, run_of("c3a/llama-3.2-3B-default"), on)
    assert any("transformers_conv1d" in problem for problem in refused.problems)


def test_experts_are_reached_by_lora_alone(catalog: Catalog) -> None:
    on = structure([
        group("model.layers.*.self_attn.q_proj", "attention_query", (48, 48), 2),
        group("model.layers.*.mlp.experts.gate_up_proj", "expert_gate_up", (48, 80), 2,
              kind="parameter", experts=4, class_name="Parameter"),
        group("model.layers.*.mlp.experts.down_proj", "expert_down", (40, 48), 2,
              kind="parameter", experts=4, class_name="Parameter"),
        group("model.layers.*.mlp.gate", "router", (48, 4), 2),
    ])  # fmt: skip
    found = retarget(catalog, run_of("lora/llama-3.2-3B-rank10-target-mlp"), on)
    assert found.config["target_parameters"] == ["down_proj", "gate_up_proj"]
    assert found.config["target_modules"] == []
    assert not found.problems
    lily = retarget(catalog, run_of("lily/llama-3.2-3B-rank140-mlp-a2-b2-s8.0"), on)
    assert lily.config["target_modules"] == ["q_proj"], "the attention is nearest"
    assert "nothing that the recipe adapted" in lily.changes[-1].because


def test_an_unknown_capability_is_no_yes(catalog: Catalog) -> None:
    on = MEASURED_STRUCTURES["metamathqa"].model_copy(update={"quantization": "aqlm"})
    for run in RUNS:
        if run.benchmark == "metamathqa":
            method = catalog.method_by_id[run.method]
            known = {"bias": frozenset({False}), "prepared": frozenset({True})}
            yes = method.capability("quantization.aqlm", run.variants).under(known) == "yes"
            assert bool(retarget(catalog, run, on).problems) != yes


def test_osf_trains_as_many_directions_as_measured(catalog: Catalog) -> None:
    on = structure([
        group("decoder.block.*.layer.0.SelfAttention.q", "attention_query", (512, 384), 2),
        group("decoder.block.*.layer.0.SelfAttention.o", "attention_output", (384, 512), 2),
        group("decoder.block.*.layer.1.wo", "mlp_down", (1024, 512), 2),
    ])  # fmt: skip
    found = retarget(catalog, run_of("osf/llama-3.2-3B-rank128"), on)
    for one in on.groups:
        assert min(one.in_features, one.out_features) - (_kept(found.config, one) or 0) == 128


def test_the_plan_of_adalora_follows_the_steps(catalog: Catalog) -> None:
    run, on = run_of("adalora/llama-3.2-3B-rank32"), MEASURED_STRUCTURES["metamathqa"]
    found = retarget(catalog, run, on, TargetOptions(total_steps=500))
    assert (found.config["total_step"], found.config["tinit"], found.config["tfinal"]) == (
        500, 20, 50,
    )  # fmt: skip
    for steps in (1, 2, 3, 10):
        config = retarget(catalog, run, on, TargetOptions(total_steps=steps)).config
        assert config.get("tinit", 0) + config.get("tfinal", 0) < steps


def test_tokens_of_another_vocabulary_are_asked_for(catalog: Catalog) -> None:
    run, on = run_of("trainable_tokens/llama-3.2-3B-sos+eos"), two_towers()
    sizes = Dimensions(vocabulary=100)
    table = group("model.language_model.embed_tokens", "embedding", (100, 48), 1, kind="embedding")
    on = on.model_copy(update={"dimensions": sizes, "groups": (table, *on.groups)})
    assert any("token_indices" in one for one in retarget(catalog, run, on).problems)
    found = retarget(catalog, run, on, TargetOptions(token_indices=(7, 5)))
    assert found.config["token_indices"] == [5, 7]
    assert not found.problems
    late = retarget(catalog, run, on, TargetOptions(token_indices=(100,)))
    assert any("vocabulary" in one for one in late.problems)


def test_sizes_of_another_model_are_stripped(catalog: Catalog) -> None:
    run = run_of("prefixtuning/llama-3.2-3B-lr_0.001")
    config = {**run.recipe.config, "token_dim": 1024, "num_layers": 28, "num_attention_heads": 8}
    stale = run.model_copy(update={"recipe": run.recipe.model_copy(update={"config": config})})
    on = two_towers().model_copy(update={"dimensions": Dimensions(attention_heads=4, layers=2)})
    found = retarget(catalog, stale, on)
    assert set(found.config) == {"peft_type", "num_virtual_tokens", "task_type"}
    assert {one.field for one in found.changes} == {
        "token_dim", "num_layers", "num_attention_heads",
    }  # fmt: skip


def test_layers_beyond_the_depth_are_left_out(catalog: Catalog) -> None:
    run = run_of("lora/llama-3.2-3B-rank32")
    config = {**run.recipe.config, "layers_to_transform": [0, 1, 27]}
    deep = run.model_copy(update={"recipe": run.recipe.model_copy(update={"config": config})})
    on = two_towers().model_copy(update={"dimensions": Dimensions(layers=2)})
    assert retarget(catalog, deep, on).config["layers_to_transform"] == [0, 1]


def test_a_broken_expression_is_a_problem_and_no_failure(catalog: Catalog) -> None:
    run = run_of("lora/llama-3.2-3B-rank32")
    config = {**run.recipe.config, "target_modules": "(q_proj"}
    broken = run.model_copy(update={"recipe": run.recipe.model_copy(update={"config": config})})
    found = retarget(catalog, broken, two_towers())
    assert any("no regular expression" in one for one in found.problems)


def test_names_and_tokens_of_the_measured_model_are_not_carried_over(catalog: Catalog) -> None:
    run = run_of("lora/llama-3.2-3B-rank32")
    config = {
        **run.recipe.config,
        "rank_pattern": {"q_proj": 4, "o_proj": 2},
        "alpha_pattern": {"down_proj": 4},
        "modules_to_save": ["lm_head", "score"],
        "target_parameters": ["experts.down_proj"],
        "alora_invocation_tokens": [128000],
    }
    stale = run.model_copy(update={"recipe": run.recipe.model_copy(update={"config": config})})
    found = retarget(catalog, stale, two_towers())
    assert found.config["rank_pattern"] == {"q_proj": 4}
    assert found.config["modules_to_save"] == ["lm_head"]
    assert not {"alpha_pattern", "target_parameters"} & set(found.config)
    assert any("alora_invocation_tokens" in problem for problem in found.problems)


def test_a_cartridge_of_frozen_tokens_alone_is_a_problem(catalog: Catalog) -> None:
    on = MEASURED_STRUCTURES["metamathqa"]
    cartridge = catalog.method_by_id["cartridge"]
    assert not retarget(catalog, cartridge, on).problems
    found = retarget(catalog, cartridge, on, TargetOptions(num_virtual_tokens=1))
    assert any("frozen" in problem for problem in found.problems)


REAL = (
    "bart", "bert", "bloom", "deberta-v2", "deepseek_v2", "falcon", "gemma2", "gpt2", "gpt_neox",
    "gpt_oss", "llama", "llava", "mamba", "mistral", "mixtral", "modernbert", "opt", "phi3",
    "qwen2_5_vl", "qwen2_moe", "qwen3", "qwen3_moe", "t5", "vit", "wav2vec2", "whisper",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model_type", REAL)
def test_the_laws_hold_on_real_architectures(model_type: str, catalog: Catalog) -> None:
    """Every recipe on the full-size default model of a type, on meta."""
    from transformers import CONFIG_MAPPING

    from peft_shop.model.inspection import inspect_model

    on = inspect_model(CONFIG_MAPPING[model_type]()).structure
    for run in RUNS:
        once = retarget(catalog, run, on, OPTIONS)
        assert all(change.because != "as stated" for change in once.changes), run.experiment
        if once.problems:
            continue
        twice = retarget(catalog, again(run, once, on), on, OPTIONS)
        assert (twice.config, twice.changes) == (once.config, ()), run.experiment
        hit = named(once, on)
        for one in on.groups:
            inside = hit & set(one.names)
            assert not inside or inside == set(one.names), run.experiment
            assert not inside or one.role not in {"head", "router"}, run.experiment
        if "target_modules" in once.config and run.method != "shadow":
            assert hit or once.config.get("target_parameters"), run.experiment


def test_a_model_that_hears_is_no_text_model(catalog: Catalog) -> None:
    on = two_towers().model_copy(update={"task_type": None})
    for method in ("shadow", "prompt_tuning", "prefix_tuning"):
        assert retarget(catalog, catalog.method_by_id[method], on).problems
    lora = retarget(catalog, run_of("lora/llama-3.2-3B-rank32"), on)
    assert "task_type" not in lora.config
    assert not lora.problems
