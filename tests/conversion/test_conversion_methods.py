"""Every method of peft, converted and merged on small models, loaded again and compared. Slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from peft_shop import load_catalog
from peft_shop.errors import ConversionError
from peft_shop.serve.ranks import exact_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")

import transformers  # noqa: E402 - after the check for torch
from safetensors.torch import load_file, save_file  # noqa: E402 - as above

from peft_shop import convert  # noqa: E402 - as above
from peft_shop.conversion import layers as layering  # noqa: E402 - as above
from peft_shop.conversion.deltas import change_of, relative  # noqa: E402 - as above
from peft_shop.conversion.folders import open_base  # noqa: E402 - as above
from peft_shop.conversion.plan import SHARED, plan  # noqa: E402 - as above
from peft_shop.conversion.reading import open_adapter  # noqa: E402 - as above
from peft_shop.curate.probe.bench import Bench, deviation, logits, randomise  # noqa: E402 - as above
from peft_shop.curate.probe.hosts import Host  # noqa: E402 - as above
from peft_shop.curate.probe.setups import LANGUAGE_TARGETS, load_setups  # noqa: E402 - as above
from peft_shop.serve.adapter import read_adapter  # noqa: E402 - as above

pytestmark = pytest.mark.slow

CATALOG = load_catalog()
SETUPS = load_setups(Path(__file__).parents[2] / "catalog")
NO_WEIGHTS: Final = {
    "adaption_prompt",
    "cartridge",
    "cpt",
    "lily",
    "multitask_prompt_tuning",
    "p_tuning",
    "poly",
    "prefix_tuning",
    "prompt_tuning",
    "shadow",
    "xlora",
}
"""Methods that act otherwise than through weights."""
MERGED_ONLY: Final = {"beft", "ln_tuning"}
REFUSED_VARIANTS: Final = {("lora", "alora")}
NEED_START: Final = {("lora", "corda"), ("lora", "lora_ga")}
SAME: Final = 1e-4
VARIANTS: Final = [
    (method, variant)
    for method, setup in sorted(SETUPS.items())
    for variant in (None, *setup.variants)
]
TRANSPOSED: Final = {
    "adalora",
    "deft",
    "fourierft",
    "frod",
    "gralora",
    "hira",
    "lora",
    "pvera",
    "randlora",
    "tinylora",
    "trainable_tokens",
    "unilora",
    "vblora",
    "vera",
    "waveft",
}
"""Methods that adapt the transposed layers of GPT-2."""


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn of what is done on purpose
        yield
    torch.set_num_threads(threads)


def llama_host(*, biases: bool = False, **changes: Any) -> Host:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_bias=biases,
        use_cache=False,
        initializer_range=0.2,
        pad_token_id=0,
        attn_implementation="eager",
        **{"tie_word_embeddings": False} | changes,
    )
    return _host(transformers.LlamaForCausalLM(config), LANGUAGE_TARGETS)


def gpt2_host() -> Host:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
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
        attn_implementation="eager",
    )
    return _host(transformers.GPT2LMHeadModel(config), ("c_attn", "c_fc", "c_proj"))


def _host(model: Any, targets: tuple[str, ...]) -> Host:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    ids = torch.randint(4, 64, (4, 6))
    ids[:, :3] = torch.tensor([1, 2, 3])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    return Host(model.train(), inputs, targets)


def saved(method: str, variant: str | None, host: Host, folder: Path) -> Any:
    """Saves the host's model and a randomised adapter; gives the outputs with it."""
    setup = SETUPS[method]
    bench = Bench(method, setup, folder, overrides=setup.variants.get(variant or "", {}))
    host.model.save_pretrained(folder / "base")
    transposed = host.targets[0] == "c_attn"
    extra: dict[str, Any] = {}
    if setup.task_ids:
        host.inputs["task_ids"] = torch.tensor([0, 1, 1, 1])
    if setup.targets != LANGUAGE_TARGETS:
        host.targets = ("wte",) if transposed and setup.targets else setup.targets
    if transposed and "fan_in_fan_out" in bench.fields:
        extra["fan_in_fan_out"] = True
    model = bench.wrap(host, bench.language_config(host, **extra))
    randomise(model, host, required=False)
    model.save_pretrained(folder / "adapter")
    return logits(model, host)


def converted(folder: Path, host: Host, **options: Any) -> tuple[Any, Any]:
    """The report, and the outputs of what was written."""
    out = folder / "out"
    report = convert(folder / "adapter", base=folder / "base", output=out, **options)
    kind = type(host.model)
    if report.to == "merged":
        return report, logits(kind.from_pretrained(out), host)
    fresh = kind.from_pretrained(folder / "base")
    return report, logits(peft.PeftModel.from_pretrained(fresh, str(out)), host)


# --- every method ---


@pytest.mark.parametrize(("method", "variant"), VARIANTS)
def test_on_a_llama(method: str, variant: str | None, tmp_path: Path) -> None:
    host = llama_host(biases=method == "beft")
    wanted = saved(method, variant, host, tmp_path)
    if method in NO_WEIGHTS or (method, variant) in REFUSED_VARIANTS | NEED_START:
        for to in ("lora", "merged"):
            with pytest.raises(ConversionError):
                converted(tmp_path, host, to=to)
        return
    host.inputs.pop("task_ids", None)
    if method in MERGED_ONLY:
        with pytest.raises(ConversionError, match="merge it instead"):
            converted(tmp_path, host)
    else:
        report, found = converted(tmp_path, host)
        assert report.exact
        assert deviation(found, wanted) < SAME
        known = exact_rank(CATALOG.conversions, read_adapter(CATALOG, tmp_path / "adapter"))
        if known is not None:
            assert report.rank is not None
            assert report.rank <= known
    report, found = converted(tmp_path, host, to="merged", overwrite=True)
    assert report.exact
    assert deviation(found, wanted) < SAME


@pytest.mark.parametrize(
    ("method", "variant"), [pair for pair in VARIANTS if pair[0] in TRANSPOSED]
)
def test_on_a_gpt2(method: str, variant: str | None, tmp_path: Path) -> None:
    if (method, variant) in {*REFUSED_VARIANTS, *NEED_START}:
        pytest.skip("not converted on any model")
    if variant in {"olora", "kasa"}:
        pytest.skip("peft does not adapt transposed layers with it")
    host = gpt2_host()
    wanted = saved(method, variant, host, tmp_path)
    report, found = converted(tmp_path, host)
    assert report.exact
    assert deviation(found, wanted) < SAME


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        pair
        for pair in VARIANTS
        if pair[0] not in NO_WEIGHTS | SHARED and pair not in REFUSED_VARIANTS | NEED_START
    ],
)
def test_layers_of_the_other_methods_have_nothing_in_common(
    method: str, variant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer alone in its tree is what it is among all layers of the model."""
    saved(method, variant, llama_host(biases=True), tmp_path)
    source = open_adapter(CATALOG, tmp_path / "adapter")
    base = open_base(tmp_path / "base", task_type="CAUSAL_LM")
    found = plan(source, base)
    alone = [change_of(layer) for layer in layering.adapted_layers(source, base, found)]
    monkeypatch.setattr(layering, "SHARED", {method})
    monkeypatch.setattr(layering, "_READS_ALL", {method})
    together = [change_of(layer) for layer in layering.adapted_layers(source, base, found)]
    assert [one.name for one in alone] == [one.name for one in together]
    for one, other in zip(alone, together, strict=True):
        assert set(one.new) == set(other.new)
        for name, weight in one.new.items():
            assert relative(weight - other.new[name], weight) < 1e-6


def test_ranks_that_training_took_away(tmp_path: Path) -> None:
    """AdaLoRA as it comes out of a training: with ranks masked, and less than saved at first."""
    host = llama_host()
    host.model.save_pretrained(tmp_path / "base")
    config = peft.AdaLoraConfig(
        init_r=6,
        target_r=2,
        tinit=1,
        tfinal=2,
        total_step=10,
        deltaT=1,
        target_modules=list(LANGUAGE_TARGETS),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(host.model, config)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=50.0)
    for step in range(10):
        model(**host.inputs).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "adapter")
    pattern = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    left = [sum(mask) for mask in pattern.values()]
    assert min(left) < max(left)
    wanted = logits(model, host)
    report, found = converted(tmp_path, host)
    assert report.exact
    assert deviation(found, wanted) < SAME
    for layer in report.layers:
        assert layer.rank <= sum(pattern[f"{layer.name}.lora_E"])


# --- starts that change the base ---


@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora", "use_rslora": True},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
    ],
)
def test_the_untrained_adapter_tells_what_the_start_did(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    host = llama_host()
    host.model.save_pretrained(tmp_path / "base")
    start = settings["init_lora_weights"]
    overrides = dict(settings)
    if start == "lora_ga":
        overrides["lora_ga_config"] = {}
    bench = Bench("lora", SETUPS["lora"], tmp_path, overrides=overrides)
    model = bench.language_model(host)
    active = model.peft_config["default"]
    active.init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    active.init_lora_weights = start
    randomise(model, host)
    model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model, host)
    report, found = converted(tmp_path, host, initial=tmp_path / "start")
    assert (report.way, report.rank) == ("initial_model", 8)
    assert report.within_tolerance
    assert deviation(found, wanted) < SAME
    _, merged = converted(tmp_path, host, initial=tmp_path / "start", to="merged", overwrite=True)
    assert deviation(merged, wanted) < SAME
    other = tmp_path / "other"
    peft.get_peft_model(llama_host().model, peft.LoraConfig(r=2)).save_pretrained(other)
    with pytest.raises(ConversionError, match="not the same adapter before training"):
        converted(tmp_path, host, initial=other, overwrite=True)


# --- other layers, heads, files ---


@pytest.mark.parametrize("embeddings", [False, True])
def test_embeddings_and_the_head_with_their_own_adapters(embeddings: bool, tmp_path: Path) -> None:
    host = llama_host()
    host.model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4,
        target_modules=["embed_tokens", "q_proj", "lm_head"],
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(host.model, config)
    randomise(model, host)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=embeddings)
    wanted = logits(model, host)
    for to in ("lora", "merged"):
        report, found = converted(tmp_path, host, to=to, overwrite=True)
        assert report.exact
        assert deviation(found, wanted) < SAME


@pytest.mark.parametrize("tie", [False, True])
def test_tokens_trained_beside_a_lora(tie: bool, tmp_path: Path) -> None:
    host = llama_host(tie_word_embeddings=tie)
    host.model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4,
        target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [1, 2, 3]},
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(host.model, config)
    randomise(model, host)
    model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model, host)
    for to in ("lora", "merged"):
        report, found = converted(tmp_path, host, to=to, overwrite=True)
        assert report.exact
        assert deviation(found, wanted) < SAME


def test_a_tied_head_keeps_its_weight_when_the_embedding_changes(tmp_path: Path) -> None:
    host = llama_host(tie_word_embeddings=True)
    host.model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(host.model, config)
    randomise(model, host)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    wanted = logits(model, host)
    report, found = converted(tmp_path, host, to="merged")
    assert report.exact
    assert deviation(found, wanted) < SAME
    config_file = tmp_path / "out" / "config.json"
    assert json.loads(config_file.read_text())["tie_word_embeddings"] is False


def test_a_classifier_goes_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    llama_host().model.save_pretrained(tmp_path / "base")
    kind = transformers.LlamaForSequenceClassification
    model = kind.from_pretrained(tmp_path / "base", num_labels=3)
    config = peft.HRAConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")
    model = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(tmp_path / "adapter")
    ids = torch.randint(4, 64, (4, 6), generator=generator)
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "lora")
    assert report.exact
    assert report.modules_to_save == ("score",)
    fresh = kind.from_pretrained(tmp_path / "base", num_labels=3)
    loaded = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "lora")).eval()
    with torch.no_grad():
        assert deviation(loaded(input_ids=ids).logits, wanted) < SAME
    convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "whole", to="merged")
    merged = kind.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        assert deviation(merged(input_ids=ids).logits, wanted) < SAME


class _Convolutions(torch.nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 6, 3)

    def forward(self, x: Any) -> Any:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("name", ["LoraConfig", "LoHaConfig"])
def test_convolutions_of_a_live_model(name: str, tmp_path: Path) -> None:
    config = getattr(peft, name)(r=2, target_modules=["first", "second"])
    model = peft.get_peft_model(_Convolutions(), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(tmp_path / "adapter")
    inputs = {"x": torch.randn(2, 3, 7, 7, generator=generator)}
    report = convert(
        tmp_path / "adapter", base=_Convolutions(), output=tmp_path / "out", inputs=inputs
    )
    assert report.exact
    assert report.logits is not None
    fresh = peft.PeftModel.from_pretrained(_Convolutions(), str(tmp_path / "out"))
    with torch.no_grad():
        assert deviation(fresh(**inputs), model.eval()(**inputs)) < SAME
    whole = convert(
        tmp_path / "adapter",
        base=_Convolutions(),
        output=tmp_path / "whole",
        inputs=inputs,
        to="merged",
    )
    assert whole.exact


def test_a_diffusion_model_and_its_own_loader(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs peft-shop[test]")
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    model.save_pretrained(tmp_path / "base")
    inputs = {
        "sample": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([5]),
        "encoder_hidden_states": torch.randn(1, 3, 16),
    }
    config = peft.LoHaConfig(r=2, target_modules=["to_q", "to_v", "conv1"])
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape))
        wanted = adapted.eval()(**inputs).sample
    adapted.save_pretrained(tmp_path / "adapter")
    base = tmp_path / "base"
    report = convert(tmp_path / "adapter", base=base, output=tmp_path / "lora", inputs=inputs)
    assert report.exact
    state = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    fresh = diffusers.UNet2DConditionModel.from_pretrained(base)
    plain = {key.removeprefix("base_model.model."): one for key, one in state.items()}
    fresh.load_lora_adapter(plain, prefix=None)
    with torch.no_grad():
        assert deviation(fresh.eval()(**inputs).sample, wanted) < SAME
    convert(tmp_path / "adapter", base=base, output=tmp_path / "whole", inputs=inputs, to="merged")
    merged = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        assert deviation(merged(**inputs).sample, wanted) < SAME


def test_a_layer_that_peft_merges_wrongly_is_refused(tmp_path: Path) -> None:
    """OFT turns the patches of a convolution and averages them, which no kernel does."""
    model = _Convolutions()
    config = peft.OFTConfig(oft_block_size=9, target_modules=["first"])
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    adapted.save_pretrained(tmp_path / "adapter")
    for to in ("lora", "merged"):
        with pytest.raises(ConversionError, match="neither a LoRA nor a merged weight"):
            convert(tmp_path / "adapter", base=_Convolutions(), output=tmp_path / "out", to=to)


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_base_in_shards_and_one_without_its_prefix(prefixed: bool, tmp_path: Path) -> None:
    host = gpt2_host()
    wanted = saved("vera", None, host, tmp_path)
    state = load_file(tmp_path / "base" / "model.safetensors")
    if not prefixed:  # as the hub's GPT-2 has it
        state = {name.removeprefix("transformer."): one for name, one in state.items()}
    (tmp_path / "base" / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: state[name] for name in part}, tmp_path / "base" / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "base" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for to in ("lora", "merged"):
        report, found = converted(tmp_path, host, to=to, overwrite=True)
        assert report.exact
        assert deviation(found, wanted) < SAME


def test_a_mixture_whose_file_names_its_experts_otherwise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=3,
        use_cache=False,
        initializer_range=0.2,
        pad_token_id=0,
    )
    host = _host(transformers.MixtralForCausalLM(config), ("q_proj", "v_proj"))
    host.model.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(host.model, lora)
    randomise(model, host)
    model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model, host)
    for to in ("lora", "merged"):
        report, found = converted(tmp_path, host, to=to, overwrite=True)
        assert report.exact
        assert deviation(found, wanted) < SAME


# --- memory ---

MEASURE: Final = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from peft_shop import convert
base, adapter, out = sys.argv[1:]
report = convert(adapter, base=base, output=out, check="layers", rank=4)
print(report.peak_memory_bytes)
"""


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    """The weights in fp32 grow by 250 MB from the small model to the large one."""
    peaks, sizes = [], []
    for number in (2, 7):
        folder = tmp_path / str(number)
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=1024,
            intermediate_size=2816,
            num_hidden_layers=number,
            num_attention_heads=8,
            tie_word_embeddings=False,
        )
        model = transformers.LlamaForCausalLM(config)
        sizes.append(4 * sum(weight.numel() for weight in model.parameters()))
        model.save_pretrained(folder / "base")
        lora = peft.LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear")
        peft.get_peft_model(model, lora).save_pretrained(folder / "adapter")
        del model
        command = [sys.executable, "-c", MEASURE, *(str(folder / n) for n in ("base", "adapter"))]
        # blocks below 32 MB stay with glibc's allocator when they are freed, unless it is told: it
        # is not the allocator that is measured
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(
            [*command, str(folder / "out")], capture_output=True, text=True, check=True, env=env
        )
        peaks.append(int(done.stdout))
    assert sizes[1] - sizes[0] > 250e6
    assert peaks[1] - peaks[0] < 60e6
