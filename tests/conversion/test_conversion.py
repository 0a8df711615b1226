"""Conversion to LoRA and merging: what comes out is what the adapter did, or nothing comes out."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import ConversionReport, InexactError, PeftShopError, load_catalog
from peft_shop.errors import AdapterError, ConversionError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")

from safetensors.torch import load_file, save_file  # noqa: E402 - after the check for torch
from transformers import (  # noqa: E402 - as above
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from typer.testing import CliRunner  # noqa: E402 - as above

from peft_shop import convert  # noqa: E402 - as above
from peft_shop.cli.app import app  # noqa: E402 - as above
from peft_shop.conversion import factors as thin  # noqa: E402 - as above
from peft_shop.conversion import ranks, writing  # noqa: E402 - as above
from peft_shop.conversion.report import REPORT_FILE  # noqa: E402 - as above
from peft_shop.serve.adapter import read_adapter  # noqa: E402 - as above
from peft_shop.show.conversions import conversion_document  # noqa: E402 - as above

CATALOG = load_catalog()
TARGETS = ["q_proj", "v_proj", "down_proj"]
SAME = 1e-4
"""Deviation of outputs [1] below which two fp32 models compute the same."""


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn of what is done on purpose
        yield
    torch.set_num_threads(threads)


# --- models and adapters ---


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "use_cache": False,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    } | changes
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def randomised(model: Any, config: Any, *, scale: float = 0.05) -> Any:
    """`model` with an adapter whose every trained weight has moved."""
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_((scale * torch.randn(weight.shape, generator=generator)).to(weight))
    return wrapped.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a randomised adapter on the Llama, made once for each configuration."""
    made: dict[str, Path] = {}

    def make(name: str, **settings: Any) -> Path:
        key = name + json.dumps(settings, sort_keys=True)
        if key not in made:
            settings.setdefault("target_modules", TARGETS)
            config = getattr(peft, name)(task_type="CAUSAL_LM", **settings)
            made[key] = tmp_path_factory.mktemp("adapter")
            randomised(LlamaForCausalLM.from_pretrained(base), config).save_pretrained(made[key])
        return made[key]

    return make


@dataclass(frozen=True)
class Places:
    """The base's folder and the maker of adapters."""

    base: Path
    saved: Callable[..., Path]


@pytest.fixture
def places(base: Path, saved: Callable[..., Path]) -> Places:
    return Places(base, saved)


def logits(model: Any) -> Any:
    ids = torch.randint(4, 64, (2, 8), generator=torch.Generator().manual_seed(3))
    ids[:, :3] = torch.tensor([1, 2, 3])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def deviation(found: Any, wanted: Any) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def with_adapter(base: Path, folder: Path) -> Any:
    return peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), str(folder))


def contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- the promise ---


@pytest.mark.parametrize(
    ("name", "settings", "made"),
    [
        (
            "AdaLoraConfig",
            {"init_r": 6, "target_r": 4, "total_step": 100, "tfinal": 20},
            (6, "generic"),
        ),
        ("VeraConfig", {"r": 4}, (4, "peft")),
        ("LoraConfig", {"r": 3, "init_lora_weights": "pissa"}, (6, "generic")),
    ],
)
def test_a_converted_adapter_does_what_the_original_did(
    name: str, settings: dict[str, Any], made: tuple[int, str], places: Places, tmp_path: Path
) -> None:
    base, source = places.base, places.saved(name, **settings)
    before = contents(source)
    report = convert(source, base=base, output=tmp_path / "out")
    rank = made[0]
    assert (report.rank, report.way) == made
    assert report.exact
    assert report.within_tolerance
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (rank, rank, "CAUSAL_LM")
    assert sorted(config["target_modules"]) == sorted(TARGETS)
    # an oracle that knows nothing of the code above
    wanted = logits(with_adapter(base, source))
    found = logits(with_adapter(base, tmp_path / "out"))
    plain = logits(LlamaForCausalLM.from_pretrained(base))
    assert deviation(found, wanted) < SAME < deviation(plain, wanted)
    assert report.logits is not None
    assert report.logits.deviation < SAME < report.logits.effect
    assert contents(source) == before
    text = (tmp_path / "out" / REPORT_FILE).read_text()
    assert ConversionReport.model_validate_json(text) == report
    shown = conversion_document(report)
    assert f"rank {rank}" in shown.title
    assert len(shown.tables[0].rows) == 6


def test_a_transposed_layer_is_converted(tmp_path: Path) -> None:
    model = gpt2()
    config = peft.VeraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    config.task_type = "CAUSAL_LM"
    model.save_pretrained(tmp_path / "base")
    adapted = randomised(model, config)
    adapted.save_pretrained(tmp_path / "vera")
    wanted = logits(adapted)
    for way in ("peft", "generic"):
        out = tmp_path / way
        report = convert(
            tmp_path / "vera", base=tmp_path / "base", output=out, way=way, check="layers"
        )
        assert report.exact
        assert report.rank == 4
        assert {layer.kind for layer in report.layers} == {"conv1d"}
        fresh = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
        assert deviation(logits(peft.PeftModel.from_pretrained(fresh, str(out))), wanted) < SAME


def test_a_live_module_is_a_base_and_stays_as_it_was(saved: Any, tmp_path: Path) -> None:
    model = llama()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = convert(saved("HRAConfig", r=4), base=model, output=tmp_path / "out")
    assert report.exact
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_merged_model_does_what_the_original_did(base: Path, saved: Any, tmp_path: Path) -> None:
    source = saved("LoraConfig", r=4, use_dora=True)
    report = convert(source, base=base, output=tmp_path / "out", to="merged")
    assert report.exact
    found = logits(LlamaForCausalLM.from_pretrained(tmp_path / "out"))
    assert deviation(found, logits(with_adapter(base, source))) < SAME
    stored = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(base / "model.safetensors")
    assert set(stored) == set(original)
    changed = {name for name in stored if not torch.equal(stored[name], original[name])}
    assert changed == {f"{layer.name}.weight" for layer in report.layers}


def test_merging_into_sixteen_bits_tells_what_rounding_costs(
    base: Path, saved: Any, tmp_path: Path
) -> None:
    source = saved("LoraConfig", r=4)
    report = convert(
        source, base=base, output=tmp_path / "out", to="merged", dtype="bfloat16", check="layers"
    )
    weight = load_file(tmp_path / "out" / "model.safetensors")[
        "model.layers.0.mlp.down_proj.weight"
    ]
    assert weight.dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert report.error > 1e-3
    assert any("16 bits" in warning for warning in report.warnings)
    with pytest.raises(InexactError, match="more than the tolerance"):
        convert(
            source,
            base=base,
            output=tmp_path / "no",
            to="merged",
            dtype="bfloat16",
            check="layers",
            tolerance=1e-3,
        )
    assert not (tmp_path / "no").exists()


def test_a_base_in_sixteen_bits_under_recomputed_factors_is_told(tmp_path: Path) -> None:
    llama().bfloat16().save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = peft.PsoftConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    randomised(model, config).save_pretrained(tmp_path / "adapter")
    report = convert(
        tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", check="layers"
    )
    assert any("stored in bfloat16" in warning for warning in report.warnings)


def test_tokens_of_an_embedding_that_is_the_head_too(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "base")
    config = peft.TrainableTokensConfig(
        token_indices=[1, 2, 3], target_modules=["embed_tokens"], task_type="CAUSAL_LM"
    )
    adapted = randomised(model, config)
    adapted.save_pretrained(tmp_path / "tokens")
    wanted = logits(adapted)
    report = convert(tmp_path / "tokens", base=tmp_path / "base", output=tmp_path / "lora")
    assert report.exact
    assert report.rank == 3
    assert {layer.name: layer.kind for layer in report.layers} == {
        "model.embed_tokens": "embedding",
        "lm_head": "linear",
    }
    found = logits(with_adapter(tmp_path / "base", tmp_path / "lora"))
    assert deviation(found, wanted) < SAME
    convert(tmp_path / "tokens", base=tmp_path / "base", output=tmp_path / "whole", to="merged")
    assert deviation(logits(LlamaForCausalLM.from_pretrained(tmp_path / "whole")), wanted) < SAME


# --- what is not exact, and what is refused ---


def test_a_lower_rank_fails_and_tells_by_how_much(base: Path, saved: Any, tmp_path: Path) -> None:
    source = saved("LoraConfig", r=4, use_dora=True)
    options: dict[str, Any] = {"base": base, "output": tmp_path / "out", "rank": 4}
    with pytest.raises(InexactError, match="nothing was written") as caught:
        convert(source, **options)
    assert list(tmp_path.iterdir()) == []
    report = caught.value.report
    assert isinstance(report, ConversionReport)
    assert report.output is None
    assert not report.within_tolerance
    # a share says what may be lost: sqrt(1 - share) of every layer's norm
    kept = convert(source, **options | {"rank": 0.9, "tolerance": 0.9, "check": "layers"})
    assert 0.05 < kept.error <= (1 - 0.9) ** 0.5 + 1e-6
    forced = convert(source, **options, overwrite=True, allow_inexact=True, check="layers")
    assert forced.error == pytest.approx(report.error)
    assert not forced.within_tolerance


WRONG_BY_PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("LoraConfig", {"use_dora": True}),
    "PiSSA": ("LoraConfig", {"init_lora_weights": "pissa"}),
    "OLoRA": ("LoraConfig", {"init_lora_weights": "olora"}),
    "aLoRA": ("LoraConfig", {"alora_invocation_tokens": [1, 2]}),
    "BD-LoRA": (
        "LoraConfig",
        {
            "use_bdlora": {
                "nblocks": 2,
                "match_strict": False,
                "target_modules_bd_a": ["q_proj"],
                "target_modules_bd_b": ["v_proj", "down_proj"],
            }
        },
    ),
    "lora_bias": ("LoraConfig", {"lora_bias": True}),
    "bias": ("VeraConfig", {"bias": "all"}),
    "TinyLoRA on embeddings": (
        "TinyLoraConfig",
        {"r": 2, "u": 8, "target_modules": ["embed_tokens", "q_proj"]},
    ),
}


@pytest.mark.parametrize("what", sorted(WRONG_BY_PEFT))
def test_what_peft_does_wrongly_is_not_left_to_peft(
    what: str, base: Path, saved: Any, tmp_path: Path
) -> None:
    name, settings = WRONG_BY_PEFT[what]
    with pytest.raises(ConversionError):
        convert(saved(name, **settings), base=base, output=tmp_path / "out", way="peft")
    assert list(tmp_path.iterdir()) == []


def configured(folder: Path, **config: Any) -> Path:
    """A folder with a configuration, and weights that nobody should get to read."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "XLORA"}, "without their gates"),
        ({"peft_type": "POLY"}, "task of each sample"),
        ({"peft_type": "SHADOW"}, "second, smaller model"),
        ({"peft_type": "ADAPTION_PROMPT"}, "prompts"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "virtual tokens"),
        ({"peft_type": "CARTRIDGE", "num_virtual_tokens": 4}, "virtual tokens or a cache"),
        ({"peft_type": "LORA", "r": 4, "alora_invocation_tokens": [1]}, "every token"),
        ({"peft_type": "LORA", "r": 4, "arrow_config": {"top_k": 1}}, "routes tokens"),
        ({"peft_type": "LORA", "r": 4, "layer_replication": [[0, 2]]}, "copies layers"),
        ({"peft_type": "LORA", "r": 4, "init_lora_weights": "loftq"}, "LoftQ quantized"),
        ({"peft_type": "LORA", "r": 4, "init_lora_weights": "corda"}, "--initial"),
        ({"peft_type": "LORA", "r": 4, "init_lora_weights": "lora_ga"}, "--initial"),
        ({"peft_type": "LORA", "r": 4, "init_lora_weights": "pissa_niter_4"}, "--initial"),
    ],
)
@pytest.mark.parametrize("to", ["lora", "merged"])
def test_what_is_no_change_of_weights_is_refused(
    config: dict[str, Any], reason: str, to: Any, base: Path, tmp_path: Path
) -> None:
    source = configured(tmp_path / "adapter", **config)
    with pytest.raises(ConversionError, match=reason):
        convert(source, base=base, output=tmp_path / "out", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("to", ["lora", "merged"])
def test_routing_by_input_is_found_by_measuring(
    to: Any, base: Path, saved: Any, tmp_path: Path
) -> None:
    source = saved("LilyConfig", r=4)
    with pytest.raises(ConversionError, match="depends on the input"):
        convert(source, base=base, output=tmp_path / "out", to=to)
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_of_ranks_left_by_adalora_is_read(tmp_path: Path) -> None:
    pattern = {"model.layers.0.self_attn.q_proj.lora_E": [True, False]}
    folder = configured(tmp_path / "it", peft_type="ADALORA", init_r=2, rank_pattern=pattern)
    assert read_adapter(CATALOG, folder).method == "adalora"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LoraConfig", {"r": 4, "lora_bias": True, "target_modules": ["q_proj"]}),
        ("LNTuningConfig", {"target_modules": ["input_layernorm"]}),
        ("IA3Config", {"target_modules": ["q_proj"], "feedforward_modules": []}),
    ],
)
def test_biases_and_norms_are_merged_only(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model = llama(attention_bias=True)
    with torch.no_grad():
        for part, weight in model.named_parameters():
            if part.endswith("bias"):
                weight.add_(0.1)
    model.save_pretrained(tmp_path / "base")
    adapted = randomised(model, getattr(peft, name)(task_type="CAUSAL_LM", **settings))
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConversionError, match="merge it instead"):
        convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")
    report = convert(
        tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", to="merged"
    )
    assert report.exact
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert deviation(logits(merged), logits(adapted)) < SAME


# --- bad input: a clear error, nothing written, the source as it was ---


def broken(source: Path, folder: Path, **tensors: Any) -> Path:
    """A copy of an adapter with tensors replaced."""
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    old = load_file(source / "adapter_model.safetensors")
    save_file({**old, **tensors}, folder / "adapter_model.safetensors")
    return folder


def test_bad_input_is_a_clear_error(base: Path, saved: Any, tmp_path: Path) -> None:
    good = saved("LoraConfig", r=4)
    tensors = load_file(good / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    assert key in tensors
    nan = tensors[key].clone()
    nan[0, 0] = float("nan")
    zeros = {name: torch.zeros_like(one) for name, one in tensors.items()}
    wide = torch.zeros(64, 4)
    strange = key.replace("layers.1", "layers.7")
    psoft = saved("PsoftConfig", r=4)
    halves = {
        name: one.bfloat16() if one.is_floating_point() else one
        for name, one in load_file(psoft / "adapter_model.safetensors").items()
    }
    pickle = configured(tmp_path / "bin", peft_type="LORA", r=4)
    (pickle / "adapter_model.safetensors").rename(pickle / "adapter_model.bin")
    garbage = configured(tmp_path / "garbage", peft_type="LORA", r=4)
    (garbage / "adapter_model.safetensors").write_bytes(b"no tensors at all")
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    smaller = tmp_path / "smaller"
    llama(hidden_size=16).save_pretrained(smaller)
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("of mine")
    out = tmp_path / "out"
    spoilt = {
        "nan": broken(good, tmp_path / "nan", **{key: nan}),
        "zero": broken(good, tmp_path / "zero", **zeros),
        "wide": broken(good, tmp_path / "wide", **{key: wide}),
        "strange": broken(good, tmp_path / "strange", **{strange: tensors[key]}),
        "halves": broken(psoft, tmp_path / "halves", **halves),
    }
    adapted = randomised(llama(), peft.LoraConfig(target_modules=["q_proj"]))
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConversionError, "no such folder", {"adapter_dir": tmp_path / "nowhere"}),
        (ConversionError, "not a folder", {"adapter_dir": base / "config.json"}),
        (AdapterError, "adapter_config.json", {"adapter_dir": base}),
        (ConversionError, "adapter_model.bin, which is a pickle", {"adapter_dir": pickle}),
        (ConversionError, "not a safetensors file", {"adapter_dir": garbage}),
        (ConversionError, "not finite", {"adapter_dir": spoilt["nan"]}),
        (ConversionError, "changes nothing", {"adapter_dir": spoilt["zero"]}),
        (ConversionError, "does not fit", {"adapter_dir": spoilt["wide"]}),
        (ConversionError, "belong to no module", {"adapter_dir": spoilt["strange"]}),
        (ConversionError, "stored as bfloat16", {"adapter_dir": spoilt["halves"]}),
        (ConversionError, "the base is quantized", {"base": quantized}),
        (ConversionError, "does not fit the base", {"base": smaller}),
        (ConversionError, "neither a folder", {"base": "nobody/has-this-model"}),
        (ConversionError, "is it an adapter's folder", {"base": good}),
        (ConversionError, "expected a folder", {"base": 3}),
        (ConversionError, "carries an adapter already", {"base": adapted}),
        (ConversionError, "no rank above 16", {"rank": 17}),
        (ConversionError, "expected 'auto'", {"rank": 0}),
        (ConversionError, "expected 'auto'", {"rank": True}),
        (ConversionError, "expected 'auto'", {"rank": "many"}),
        (ConversionError, "without a point", {"rank": 8.0}),
        (ConversionError, "takes at most 512", {"rank": 1024, "engine": "vllm"}),
        (UnknownNameError, "vllm", {"engine": "vlm"}),
        (UnknownNameError, "merged", {"to": "merge"}),
        (ConversionError, "exists already", {"output": full}),
        (ConversionError, "no conversion of ours", {"output": full, "overwrite": True}),
        (ConversionError, "beside", {"output": good / "inside"}),
        (ConversionError, "of use only where", {"initial": good}),
    ]
    before = {folder: contents(folder) for folder in (good, base, full)}
    present = sorted(path.name for path in tmp_path.iterdir())
    for kind, text, changes in cases:
        arguments = {"adapter_dir": good, "base": base, "output": out, "check": "layers"} | changes
        with pytest.raises(kind, match=text):
            convert(arguments.pop("adapter_dir"), **arguments)
        assert sorted(path.name for path in tmp_path.iterdir()) == present, text
    assert {folder: contents(folder) for folder in before} == before


def test_a_full_disk_leaves_nothing(
    base: Path, saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved("LoraConfig", r=4)
    real = writing.write_tensors

    def fails(path: Path, *arguments: Any) -> int:
        if path.name == "adapter_model.safetensors":
            path.write_bytes(b"half of i")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments)

    monkeypatch.setattr("peft_shop.conversion.lora.write_tensors", fails)
    with pytest.raises(ConversionError, match="the disk is full; nothing was left behind"):
        convert(source, base=base, output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: type("Use", (), {"free": 10})())
    with pytest.raises(ConversionError, match="are free"):
        convert(source, base=base, output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_and_keeps_what_was_there(
    base: Path, saved: Any, tmp_path: Path
) -> None:
    source = saved("LoraConfig", r=4)
    convert(source, base=base, output=tmp_path / "out", check="layers")
    before = contents(tmp_path)

    def interrupt(done: int, _total: int, _name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, base=base, output=tmp_path / "out", overwrite=True, progress=interrupt)
    assert contents(tmp_path) == before
    steps: list[tuple[int, int]] = []
    convert(
        source,
        base=base,
        output=tmp_path / "out",
        overwrite=True,
        check="layers",
        progress=lambda done, total, _: steps.append((done, total)),
    )
    assert steps == [(number, 6) for number in range(7)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- engines ---


def test_the_engine_is_asked_about_what_comes_out(base: Path, saved: Any, tmp_path: Path) -> None:
    source = saved("HRAConfig", r=4)
    report = convert(source, base=base, output=tmp_path / "out", engine="vLLM", check="layers")
    assert report.engine is not None
    assert (report.engine_name, report.engine.works) == ("vllm", "yes")
    with pytest.raises(ConversionError, match="does not load the result"):
        convert(source, base=base, output=tmp_path / "mlx", engine="mlx-lm", check="layers")
    written = convert(
        source,
        base=base,
        output=tmp_path / "mlx",
        engine="mlx-lm",
        check="layers",
        allow_inexact=True,
    )
    assert written.engine is not None
    assert written.engine.works == "no"


def test_requests_for_ranks() -> None:
    (vllm,) = [engine for engine in CATALOG.engines if engine.id == "vllm"]
    assert ranks.requested("auto", known=6, engine=vllm) == ranks.Request("auto", 512, 0.0, 6)
    assert ranks.requested(" 8 ", known=None, engine=None).rank == 8
    assert ranks.requested("0.75", known=None, engine=None).allowed == 0.5
    numpy = pytest.importorskip("numpy")
    assert ranks.requested(numpy.int64(8), known=None, engine=None).kind == "rank"
    with pytest.raises(ConversionError, match="takes at most 512"):
        ranks.requested(513, known=None, engine=vllm)


# --- factors: laws ---


def low_rank(rows: int, columns: int, rank: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return left @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)


@settings(max_examples=30)
@given(
    rows=st.integers(3, 40),
    columns=st.integers(3, 40),
    rank=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_the_rank_is_found_and_the_error_is_the_best_there_is(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    rank = min(rank, rows, columns)
    matrix = low_rank(rows, columns, rank, seed)
    found = thin.decompose(matrix, most=64, allowed=thin.EXACT)
    assert found.least(1e-9) == rank
    values = torch.linalg.svdvals(matrix)
    for count in range(1, rank + 1):
        made = thin.factors(found, count, full_rank=None, dtype=torch.float64)
        best = float(values[count:].norm() / values.norm())
        off = thin.error_of(matrix, made.a, made.b)
        assert off == pytest.approx(best, abs=1e-9)
        assert found.missing(count) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_a_sketch_finds_what_a_whole_decomposition_finds(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thin, "_WHOLE", 8)
    monkeypatch.setattr(thin, "_STRIP", 7)
    exact = low_rank(*shape, 9, 0)
    assert thin.decompose(exact, most=64, allowed=thin.EXACT, first=4).least(thin.EXACT) == 9
    noisy = exact + 0.01 * low_rank(*shape, 60, 1)
    values = torch.linalg.svdvals(noisy)
    best = float(values[9:].norm() / values.norm())
    found = thin.decompose(noisy, most=9, allowed=0.0)
    made = thin.factors(found, 9, full_rank=None, dtype=torch.float64)
    assert 0.999 * best < thin.error_of(noisy, made.a, made.b) < 1.02 * best
    assert found.least(thin.EXACT) is None


def test_single_rows_of_an_embedding_are_taken_alone() -> None:
    matrix = torch.zeros(8, 1000)
    matrix[:, [3, 500]] = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    found = thin.decompose(matrix, most=64, allowed=thin.EXACT)
    assert found.least(thin.EXACT) == 2
    assert found.right.shape[1] == 1000
    made = thin.factors(found, 2, full_rank=2, dtype=torch.float32)
    assert thin.error_of(matrix, made.a, made.b) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_written_tensors_are_read_by_safetensors(dtype: Any, tmp_path: Path) -> None:
    wanted = {
        "one": torch.arange(12).reshape(3, 4).to(dtype),
        "none": torch.zeros(0, 2, dtype=dtype),
        "number": torch.tensor(5).to(dtype),
    }
    entries = [
        writing.TensorEntry(key, tuple(one.shape), dtype, lambda one=one: one)
        for key, one in wanted.items()
    ]
    size = writing.write_tensors(tmp_path / "it.safetensors", entries, {"format": "pt"})
    assert size == (tmp_path / "it.safetensors").stat().st_size
    found = load_file(tmp_path / "it.safetensors")
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], one) for key, one in wanted.items())


# --- the command ---


def test_the_command_tells_what_it_did(base: Path, saved: Any, tmp_path: Path) -> None:
    source = saved("LoraConfig", r=4, use_dora=True)

    def run(*arguments: str) -> Any:
        options = [str(source), "--base", str(base), "-o", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(app, ["convert", *options, "--check", "layers"])

    done = run("--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert ConversionReport.model_validate_json(done.stdout).rank == 32
    assert (tmp_path / "out" / REPORT_FILE).read_text() == done.stdout
    worse = run("--force", "--rank", "4")
    assert worse.exit_code == 1
    assert worse.stderr.startswith("error: ")
    assert len(worse.stderr.strip().splitlines()) == 1
    assert (tmp_path / "out" / REPORT_FILE).read_text() == done.stdout
    again = run()
    assert isinstance(again.exception, ConversionError)  # which the program's entry makes a 2
    shown = run("--force", "--to", "merged")
    assert shown.exit_code == 0
    assert "merged model" in shown.stdout


def test_a_conversion_error_is_one_of_ours() -> None:
    assert issubclass(InexactError, ConversionError)
    assert issubclass(ConversionError, PeftShopError)
