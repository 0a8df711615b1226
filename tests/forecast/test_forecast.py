"""Closed forms against injection, autograd, safetensors and the records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from peft_shop.catalog.store import load
from peft_shop.curate.calibration.accuracy import (
    constants_bytes,
    constants_of,
    figures_bytes,
    measure,
)
from peft_shop.curate.calibration.devices import devices_bytes, read_devices
from peft_shop.curate.calibration.structures import load_structures
from peft_shop.curate.calibration.suites import cases_of
from peft_shop.errors import CatalogError, ConfigError, QuantityError, UnknownNameError
from peft_shop.forecast.asking import settings_of
from peft_shop.forecast.checkpoint import checkpoint_bytes
from peft_shop.forecast.constants import constants
from peft_shop.forecast.devices import CONTEXT_BYTES, Device, device_of, devices, fits
from peft_shop.forecast.quick.base_memory import QUANTIZED, base_bytes
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.records import Interval, Settings

if TYPE_CHECKING:
    from peft_shop.model.structure import Structure

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"


@pytest.fixture(scope="module")
def structures() -> dict[str, Structure]:
    return load_structures(DATA)


@pytest.fixture(scope="module")
def llama(structures: dict[str, Structure]) -> Structure:
    return structures["metamathqa"]


LORA = {"peft_type": "LORA", "r": 32, "target_modules": ["q_proj", "v_proj"]}

# --- the file format


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)
DTYPES = st.sampled_from(["float32", "bfloat16", "float16", "int64", "int32", "uint8", "bool"])
TENSORS = st.dictionaries(
    NAMES, st.tuples(st.lists(st.integers(0, 7), max_size=3).map(tuple), DTYPES), max_size=8
)


@given(TENSORS)
@examples(max_examples=60)
def test_the_size_of_a_file_is_what_safetensors_writes(tensors: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save

    real = {
        name: torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in tensors.items()
    }
    assert checkpoint_bytes(tensors) == len(save(real, metadata={"format": "pt"}))
    assert checkpoint_bytes(tensors, metadata=None) == len(save(real))


def test_dtypes_of_torch_are_read_and_others_refused() -> None:
    import torch

    assert checkpoint_bytes({"a": ((3,), torch.bfloat16)}) == checkpoint_bytes(
        {"a": ((3,), "bfloat16")}
    )
    with pytest.raises(ConfigError, match=r"a: safetensors files hold no 'bfloat61'.*bfloat16"):
        checkpoint_bytes({"a": ((3,), "bfloat61")})


# --- the records


@pytest.fixture(scope="module")
def figures(structures: dict[str, Structure]) -> dict[str, Any]:
    return json.loads(figures_bytes(measure(load(), structures)))


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads((DATA / "forecast_accuracy.json").read_text(encoding="utf-8"))


def test_exact_figures_are_exact_on_every_run_but_the_named_ones(figures: dict[str, Any]) -> None:
    known = {
        "trainable_parameters": {"adalora", "adamss", "shadow", "lora"},
        "total_parameters": {"adamss", "shadow"},
        "checkpoint_bytes": {"adalora", "adamss", "shadow"},
    }
    for field, methods in known.items():
        entry = figures["exact"][field]
        assert all(miss["because"] for miss in entry["misses"]), field
        assert {miss["experiment"].partition("/")[0] for miss in entry["misses"]} <= methods
        assert entry["runs"] - entry["exact"] == len(entry["misses"]) <= 7
    lora = [
        m for m in figures["exact"]["trainable_parameters"]["misses"] if "lora/" in m["experiment"]
    ]
    assert [m["experiment"] for m in lora if m["experiment"].startswith("lora/")] == [
        "lora/llama-3.2-3B-rank32-lorafa"
    ]


def test_memory_is_no_worse_than_committed(
    figures: dict[str, Any], committed: dict[str, Any]
) -> None:
    for suite, now in figures["memory"].items():
        before = committed["memory"][suite]
        for part in ("in_sample", "method_left_out", "hold_out"):
            assert now[part]["runs"] >= before[part]["runs"], (suite, part)
            for key in ("mean", "median", "maximum"):
                assert now[part][key] <= before[part][key] + 5e-5, (suite, part, key)
        assert len(now["no_closed_form"]) <= len(before["no_closed_form"])


def test_memory_meets_its_targets(figures: dict[str, Any]) -> None:
    text, image = figures["memory"]["metamathqa"], figures["memory"]["image_gen"]
    assert text["method_left_out"]["mean"] < 0.01
    assert text["method_left_out"]["median"] < 0.004
    assert image["method_left_out"]["mean"] < 0.045
    for suite in (text, image):
        assert 0.85 <= suite["method_left_out"]["coverage"] <= 0.95
        naive = {rule["rule"]: rule["median"] for rule in suite["naive"]}
        assert suite["method_left_out"]["median"] < min(naive.values())


def test_the_hold_out_takes_no_part_in_the_fit(
    figures: dict[str, Any], structures: dict[str, Structure]
) -> None:
    cases = cases_of(load(), structures)
    held = [case for case in cases if case.held_out]
    assert len(held) == 18
    runs = load().runs
    without = load().model_copy(
        update={"runs": tuple(r for r in runs if r.snapshots != ("2026-09-16",))}
    )
    alone, whole = measure(without, structures)["memory"], figures["memory"]
    for suite in alone:
        assert alone[suite]["constants"] == whole[suite]["constants"]
        assert alone[suite]["residuals"] == whole[suite]["residuals"]


def test_generated_files_are_fresh(figures: dict[str, Any], committed: dict[str, Any]) -> None:
    assert {k: v for k, v in committed.items() if k != "injection"} == figures
    room = ROOT / "peft_shop" / "forecast"
    shipped = (room / "constants.json").read_bytes()
    assert shipped == constants_bytes(constants_of(figures, load()))
    table = read_devices(DATA / "devices.toml")
    assert (room / "devices.json").read_bytes() == devices_bytes(table)


# --- the closed form as a function


def test_terms_add_up_and_carry_their_equations(llama: Structure) -> None:
    found = closed_form(llama, LORA, Settings(sequence_length=701))
    assert sum(term.bytes for term in found.terms) == found.peak_memory.value
    assert all(term.equation for term in found.terms)
    assert found.trainable_parameters == 32 * (3072 + 3072 + 3072 + 1024) * 28
    assert found.total_parameters == 3212749824 + found.trainable_parameters
    assert found.way == "closed_form"
    assert not found.warnings


@given(
    batch=st.integers(1, 8),
    length=st.integers(16, 2048),
    checkpointing=st.booleans(),
    more=st.sampled_from(["batch_size", "sequence_length"]),
)
@examples(max_examples=20)
def test_more_tokens_never_need_less(
    batch: int, length: int, checkpointing: bool, more: str
) -> None:
    llama = load_structures(DATA)["metamathqa"]
    settings = Settings(
        batch_size=batch, sequence_length=length, gradient_checkpointing=checkpointing
    )
    larger = settings.model_copy(update={more: getattr(settings, more) + 1})
    small, large = closed_form(llama, LORA, settings), closed_form(llama, LORA, larger)
    assert small.peak_memory.value < large.peak_memory.value
    whole = closed_form(llama, LORA, settings.model_copy(update={"gradient_checkpointing": False}))
    assert small.peak_memory.value <= whole.peak_memory.value


def test_what_saves_memory_saves_memory(llama: Structure) -> None:
    def peak(config: dict[str, Any] | None = LORA, **options: Any) -> float:
        return closed_form(llama, config, Settings(**options)).peak_memory.value

    plain = peak()
    assert peak(quantization="bnb_4bit", prepare_kbit=False) < plain
    assert peak(gradient_checkpointing=True) < plain
    assert peak(optimizer="adamw_8bit") < plain
    assert peak(optimizer="lora_fa") < plain
    assert peak(fused_loss=True) < plain
    assert peak(attention="flash") < plain
    assert peak(padding=False) < plain
    assert peak({**LORA, "r": 64}) > plain
    assert peak({**LORA, "target_modules": "all-linear"}) > plain
    assert peak(None) > plain
    assert peak(dtype="float32") > plain


def test_only_what_lies_behind_the_first_adapter_is_kept(llama: Structure) -> None:
    settings = Settings(sequence_length=701)
    late = closed_form(llama, {**LORA, "layers_to_transform": [27]}, settings)
    early = closed_form(llama, {**LORA, "layers_to_transform": [0]}, settings)
    size = {
        name: {term.name: term.bytes for term in found.terms}
        for name, found in (("late", late), ("early", early))
    }
    for part in ("activations_norm", "activations_attention", "activations_mlp"):
        assert size["late"][part] < size["early"][part] / 10
    assert late.trainable_parameters == early.trainable_parameters


def test_intervals_widen_where_nothing_was_measured(llama: Structure) -> None:
    def width(config: dict[str, Any] | None = LORA, model: Structure = llama, **more: Any) -> float:
        peak = closed_form(model, config, Settings(sequence_length=701, **more)).peak_memory
        assert peak.low < peak.value < peak.high
        return (peak.high - peak.low) / peak.value

    plain = width(accelerator="NVIDIA L40S")
    assert plain < 0.03
    assert width(accelerator="NVIDIA H100") > plain
    assert width(quantization="bnb_4bit") == pytest.approx(0.28)
    assert width({"peft_type": "HRA", "target_modules": ["q_proj"]}) >= 0.2
    assert width(None) > plain
    assert width(model=llama.model_copy(update={"parameters": 8 * 10**9})) >= 0.1
    assert width(gradient_checkpointing=True) > plain
    assert width(model=llama.model_copy(update={"model_type": "qwen3"})) > plain
    assert set(constants().whole.methods) <= {method.id for method in load().methods}


def test_a_recipe_brings_its_optimizer_and_its_adapters_dtype() -> None:
    runs = {run.experiment: run for run in load().runs if run.benchmark == "metamathqa"}
    osf = runs["osf/llama-3.2-3B-rank128"]
    assert not osf.recipe.training.autocast_adapter_dtype
    assert not settings_of(osf, Settings()).autocast_adapter_dtype
    assert settings_of(osf, Settings(autocast_adapter_dtype=True)).autocast_adapter_dtype
    fa = runs["lora/llama-3.2-3B-rank32-lorafa"]
    assert settings_of(fa, Settings()).optimizer == "lora_fa"
    assert settings_of(fa, Settings(optimizer="sgd")).optimizer == "sgd"


def test_osf_is_forecast_in_the_dtype_that_it_trains_in(llama: Structure) -> None:
    osf = next(
        run
        for run in load().runs
        if run.method == "osf" and not run.recipe.training.autocast_adapter_dtype
    )
    config = {"peft_type": "OSF", **(osf.recipe.resolved or osf.recipe.config)}
    found = closed_form(llama, config, settings_of(osf, Settings()))
    assert found.checkpoint_bytes == osf.metrics["checkpoint_bytes"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 8}, "peft_type: missing"),
        ({"peft_type": "SHIRA", "target_modules": []}, "nothing but parameters"),
        ({"peft_type": "LORA", "target_modules": ["q_prj"]}, "matches no module.*q_proj"),
        ({**LORA, "bias": "all"}, "no closed form for bias='all'"),
        ({**LORA, "trainable_token_indices": [1]}, "no closed form for trainable_token"),
        ({**LORA, "target_parameters": ["experts"]}, "no closed form for target_parameters"),
        ({"peft_type": "SHADOW", "target_modules": ["q_proj"]}, "dry run"),
        ({**LORA, "r": 0}, "r must be a positive whole number"),
        ({"peft_type": "C3A", "block_size": 7, "target_modules": ["q_proj"]}, "must divide"),
        ({"peft_type": "LORA", "target_modules": ["norm"]}, "no closed form for model.norm"),
    ],
)
def test_what_cannot_be_forecast_is_said(
    llama: Structure, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        closed_form(llama, config, Settings())


def test_targets_left_to_peft_are_those_of_its_own_table(llama: Structure) -> None:
    stated = closed_form(llama, {**LORA, "target_modules": ["q_proj", "v_proj"]}, Settings())
    left = {key: value for key, value in LORA.items() if key != "target_modules"}
    assert closed_form(llama, left, Settings()) == stated
    with pytest.raises(ConfigError, match=r"target_modules is not stated.*no entry for other"):
        closed_form(llama.model_copy(update={"model_type": "other"}), left, Settings())


def test_an_unknown_method_names_the_nearest(llama: Structure) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'LORA'"):
        closed_form(llama, {"peft_type": "LORAA"}, Settings())


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from peft_shop.forecast.devices import device_of\n"
        "from peft_shop.forecast.quick.closed_forms import closed_form\n"
        "from peft_shop.forecast.records import Settings\n"
        "from peft_shop.model.structure import Structure\n"
        f"text = Path({str(DATA / 'structures' / 'llama-3.2-3b.json')!r}).read_bytes()\n"
        f"closed_form(Structure.model_validate_json(text), {LORA!r}, Settings())\n"
        "device_of('T4')\nprint(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "peft", "numpy", "transformers", "pandas"} & set(done.stdout.split())


# --- base weights


def test_an_unquantized_base_is_its_parameters(llama: Structure) -> None:
    assert base_bytes(llama, Settings()) == 3212749824 * 2
    assert base_bytes(llama, Settings(dtype="float32")) == 3212749824 * 4


@pytest.mark.parametrize("backend", sorted(QUANTIZED))
def test_a_quantized_base_lies_between_its_bits_and_half_precision(
    llama: Structure, backend: Any
) -> None:
    settings = Settings(quantization=backend, prepare_kbit=False)
    linear = sum(
        group.in_features * group.out_features * group.count
        for group in llama.groups
        if group.kind == "linear" and group.role != "head"
    )
    rest = (3212749824 - linear) * 2
    assert rest + linear * 0.25 < base_bytes(llama, settings) < rest + linear * 1.1


def test_a_model_that_is_quantized_already_is_counted_as_such(llama: Structure) -> None:
    loaded = llama.model_copy(update={"quantization": "bnb_4bit"})
    asked = Settings(quantization="bnb_4bit")
    # norms, embedding and head are in both; the packed words of the loaded one are not counted
    assert base_bytes(loaded, Settings()) == base_bytes(llama, asked)


def test_the_published_share_of_scales() -> None:
    """Bits per weight of 4-bit bitsandbytes: 4.5, and 4.127 with double quantization."""
    plain, double = (
        QUANTIZED["bnb_4bit"](4096, 4096, Settings(double_quantization=double)) * 8 / 4096**2
        for double in (False, True)
    )
    assert plain == pytest.approx(4.5, abs=1e-3)
    assert double == pytest.approx(4.127, abs=1e-3)


# --- devices


def test_every_device_is_found_by_its_name() -> None:
    for one in devices():
        for spelt in (one.name, one.name.lower(), f"NVIDIA {one.name}", f"4x{one.name}"):
            assert device_of(spelt).memory_bytes == one.memory_bytes
        assert one.source
        assert 2**31 < one.memory_bytes <= 2**39
    assert device_of("2xA100-80GB").count == 2
    assert device_of("L40S").memory_bytes == 45 * 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * 2**30), ("24 GB", 24 * 10**9), ("2x24GiB", 24 * 2**30), (10**10, 10**10)],
)
def test_a_size_stands_for_a_device(text: Any, size: int) -> None:
    found = device_of(text)
    assert found.memory_bytes == size
    assert found.source is None


@pytest.mark.parametrize("text", ["A100", "RTX 4091", "", "V100"])
def test_an_unclear_device_names_the_possible_ones(text: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        device_of(text)
    if text == "A100":
        assert "A100-40GB, A100-80GB" in str(caught.value)


@pytest.mark.parametrize("text", ["0x24GiB", "0GiB", -5, True])
def test_an_impossible_size_is_refused(text: Any) -> None:
    with pytest.raises(QuantityError):
        device_of(text)


@given(low=st.floats(1, 2e10), up=st.floats(0, 1e10), size=st.integers(1, 4 * 10**10))
def test_fits_is_certain_only_beyond_the_interval(low: float, up: float, size: int) -> None:
    peak = Interval(low=low, value=low + up / 2, high=low + up, basis="a test")
    device = Device(name="some", memory_bytes=size)
    free = max(0, size - CONTEXT_BYTES)
    answer = fits(peak, device)
    assert (answer == "yes") == (low + up <= free)
    assert (answer == "no") == (low > free)


def test_mistakes_in_the_table_of_devices_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(
        '[[devices]]\nname = "A"\ngib = 0\nsource = "x"\n'
        '[[devices]]\nname = "B"\nsource = "x"\n'
        '[[devices]]\nname = "C"\ngib = 8\nsource = "x"\necc = "on"\n',
        encoding="utf-8",
    )
    with pytest.raises(CatalogError) as caught:
        read_devices(path)
    assert [problem.where for problem in caught.value.problems] == [
        "devices[0]",
        "devices[1]",
        "devices[2]",
    ]


UPSTREAM = ROOT.parent / "shared" / "upstream" / "results"


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="raw results are not beside the repository")
def test_a_checkpoint_of_learned_ranks_is_exact(structures: dict[str, Structure]) -> None:
    folders = {"metamathqa": "MetaMathQA", "image_gen": "image-gen"}
    seen = 0
    for suite, folder in folders.items():
        for path in sorted((UPSTREAM / folder).glob("*/adalora--*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            config = result["run_info"]["peft_config"]
            fields = ("peft_type", "init_r", "target_r", "target_modules", "rank_pattern")
            known = {name: config[name] for name in fields}
            found = closed_form(structures[suite], known, Settings())
            assert found.checkpoint_bytes == result["train_info"]["file_size"], path.name
            assert not found.warnings
            seen += 1
    assert seen >= 2


# --- slow: the installed libraries


@pytest.mark.slow
def test_structures_on_file_are_those_of_the_models(structures: dict[str, Structure]) -> None:
    from peft_shop.curate.calibration.structures import build_structures

    assert build_structures() == structures


@pytest.mark.slow
def test_the_rule_of_accelerate_is_quoted_as_it_is() -> None:
    estimate = pytest.importorskip("accelerate.commands.estimate")
    usage = estimate.estimate_training_usage(4 * 3212749824, "bfloat16")
    assert max(usage.values()) == 4 * 2 * 3212749824


@pytest.mark.slow
def test_injection_is_exact_on_every_run(
    committed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # one recipe names a shadow model on the hub
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from peft_shop.curate.calibration.injection import measure_injection

    found = measure_injection(load(), load_structures(DATA))
    assert found == committed["injection"]
    assert not re.search(r"because\W+$", json.dumps(found))
