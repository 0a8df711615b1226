"""An adapter on a model without weights is the adapter that the real model would get."""

from __future__ import annotations

import copy
import inspect
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peft_shop.catalog.store import load
from peft_shop.curate.probe.bench import Bench
from peft_shop.curate.probe.hosts import WIDTH
from peft_shop.curate.probe.setups import load_setups
from peft_shop.errors import ConfigError, UnknownNameError, WeightsNeededError
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.saving import saved_state
from peft_shop.preflight.stand_ins import READ_IN, STAND_INS, approximations, owner_of
from peft_shop.preflight.wrapping import inject
from peft_shop.upstream.configs import build_config

if TYPE_CHECKING:
    from peft_shop.catalog.features import LayerType
    from peft_shop.catalog.runs import Run

# peft tells what it changes about a configuration; the tests ask for it on purpose
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",
    "ignore::RuntimeWarning",
    "ignore:.*is_gradient_checkpointing:FutureWarning",  # between libraries
)

SETUPS: Final = load_setups(Path(__file__).parents[2] / "catalog")
VARIANTS: Final = [
    (method, variant)
    for method, setup in SETUPS.items()
    for variant in setup.variants
    if variant != "corda"  # the real one needs a run over data first; it has a test of its own
]
LAYERS: Final[tuple[LayerType, ...]] = (
    "linear",
    "transformers_conv1d",
    "conv1d",
    "conv2d",
    "conv3d",
    "embedding",
    "layer_norm",
    "multihead_attention",
    "parameter",
)
CLUSTERED: Final = {"adamss"}
"""Methods whose shapes depend on the weights themselves."""

Parts = dict[str, tuple[Any, ...]]


def bench_of(method: str, folder: Path, variant: str | None = None) -> Bench:
    setup = SETUPS[method]
    return Bench(method, setup, folder, overrides=setup.variants[variant] if variant else {})


def parts(model: Any) -> tuple[Parts, Parts]:
    parameters = {
        name: (tuple(one.shape), one.dtype, one.requires_grad)
        for name, one in model.named_parameters()
    }
    buffers = {name: (tuple(one.shape), one.dtype) for name, one in model.named_buffers()}
    return parameters, buffers


def without_sizes(found: Parts) -> dict[str, Any]:
    return {name: (len(shape), *rest) for name, (shape, *rest) in found.items()}


def written(model: Any, folder: Path) -> Parts:
    """What stands in the file that peft writes."""
    model.save_pretrained(folder)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return {name: (tuple(one.shape), one.dtype) for name, one in tensors.items()}


class Allocations(TorchDispatchMode):
    """Largest tensor outside meta that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for one in tree_leaves(given):
            if isinstance(one, torch.Tensor) and one.device.type != "meta":
                self.largest = max(self.largest, one.numel())
        return given


def compare(method: str, base: Any, config: Any, folder: Path) -> None:
    """Wrap and save `base` for real and on meta, and compare everything but the numbers.

    On meta, nothing of the width of the model (or larger) is computed meanwhile.
    """
    bare = inspect_model(base).skeleton()
    real = get_peft_model(base, copy.deepcopy(config))
    with Allocations() as seen:
        ours = inject(bare, config)
        forecast = saved_state(ours)
    assert seen.largest < WIDTH or SETUPS[method].experts, "reads adapters from files"
    places = {str(one.device) for one in (*ours.parameters(), *ours.buffers())}
    assert places == {"meta"}
    assert ours.get_nb_trainable_parameters() == real.get_nb_trainable_parameters()
    stored = written(real, folder)
    if method in CLUSTERED:
        for mine, theirs in zip((*parts(ours), forecast), (*parts(real), stored), strict=True):
            assert without_sizes(mine) == without_sizes(theirs)
        return
    assert parts(ours) == parts(real)
    assert [*parts(ours)[0]] == [*parts(real)[0]], "another order"
    assert forecast == stored


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=[pytest.mark.slow] * (one in CLUSTERED)) for one in SETUPS],
)
def test_every_method_is_wrapped_and_saved_as_for_real(method: str, tmp_path: Path) -> None:
    bench = bench_of(method, tmp_path)
    host = bench.language_host()
    config = bench.language_config(host)
    compare(method, host.model.to(torch.bfloat16), config, tmp_path / "saved")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "variant"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_variant_is_wrapped_and_saved_as_for_real(
    method: str, variant: str, dtype: Any, tmp_path: Path
) -> None:
    bench = bench_of(method, tmp_path, variant)
    host = bench.language_host()
    compare(method, host.model.to(dtype), bench.language_config(host), tmp_path / "saved")


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", [one for one in SETUPS if SETUPS[one].blocks is None])
def test_on_every_type_of_layer_it_wraps_or_refuses_as_for_real(
    method: str, layer: LayerType, tmp_path: Path
) -> None:
    bench = bench_of(method, tmp_path)
    if bench.prompt or SETUPS[method].experts:
        pytest.skip("adapts no layers, or adapts what it was given")
    if layer == "parameter" and "target_parameters" not in bench.fields:
        pytest.skip("has no way to name a parameter")
    host = bench.layer_host(layer)
    config = bench.layer_config(layer, host)
    bare = inspect_model(host.model).skeleton()
    try:
        real = get_peft_model(host.model, copy.deepcopy(config))
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        with pytest.raises(ConfigError):
            inject(bare, config)
        return
    ours = inject(bare, config)
    if method not in CLUSTERED:
        assert parts(ours) == parts(real)
    assert ours.get_nb_trainable_parameters() == real.get_nb_trainable_parameters()


OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "copied head": {"modules_to_save": ["lm_head"]},
    "new tokens": {"trainable_token_indices": [1, 5]},
    "biases": {"bias": "all"},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 1}},
    "one layer": {"layers_to_transform": [1]},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "everything": {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    "tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "half precision kept": {"use_dora": True},
}


TYING: Final = {"copied head", "new tokens", "embeddings", "tied"}
"""Options that touch what may be tied."""


@pytest.mark.parametrize(
    ("option", "tie"), [(one, False) for one in OPTIONS] + [(one, True) for one in sorted(TYING)]
)
def test_options_of_lora_act_as_for_real(option: str, tie: bool, tmp_path: Path) -> None:
    fields = {"r": 4, "target_modules": ["q_proj", "v_proj"], **OPTIONS[option]}
    host = bench_of("lora", tmp_path).language_host(tie=tie)
    config = LoraConfig(task_type="CAUSAL_LM", **fields)
    compare("lora", host.model.to(torch.bfloat16), config, tmp_path / "saved")


def tiny() -> Any:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    model.config = {"model_type": "custom"}
    return model


def bare() -> Any:
    return tiny().to("meta")


def test_adapters_may_keep_the_precision_of_the_base() -> None:
    config = LoraConfig(target_modules=["0"])
    kept = inject(bare().to(torch.bfloat16), config, autocast_adapter_dtype=False)
    assert {one.dtype for one in kept.parameters()} == {torch.bfloat16}


def test_a_preprocessed_variant_has_the_shapes_of_plain_lora(tmp_path: Path) -> None:
    host = bench_of("lora", tmp_path).language_host()
    model = host.model.to("meta")
    plain = bench_of("lora", tmp_path).language_config(host)
    special = bench_of("lora", tmp_path, "corda").language_config(host)
    assert parts(inject(copy.deepcopy(model), special)) == parts(
        inject(copy.deepcopy(model), plain)
    )


def test_the_configuration_and_the_random_state_stay_as_they_are() -> None:
    for peft_type, fields in {
        "SHIRA": {},
        "ADAMSS": {"use_dynamic_rank": True},
        "LORA": {"base_model_name_or_path": "some/model"},
    }.items():
        cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(peft_type)]
        config = cls(r=1, target_modules=["0"], **fields)
        before = {name: value for name, value in vars(config).items() if name != "runtime_config"}
        base = bare()
        state = torch.get_rng_state()
        model = inject(base, config)
        assert torch.equal(torch.get_rng_state(), state)
        assert {name: vars(config)[name] for name in before} == before
        inside = model.peft_config["default"]
        assert inside is not config
        assert all(
            getattr(inside, name) == getattr(config, name) for name in fields if "base" not in name
        )


def test_a_table_of_fields_does_as_well_as_a_configuration() -> None:
    model = inject(bare(), {"peft_type": "LORA", "r": 2, "target_modules": ["0", "1"]})
    assert model.get_nb_trainable_parameters()[0] == 2 * (8 + 8) + 2 * (8 + 4)


def test_what_was_replaced_is_put_back_after_an_error() -> None:
    found = [(owner_of(one.place), one) for one in STAND_INS]
    before = [owner[0].__dict__[owner[1]] for owner, _ in found if owner]
    for method in {one.method for one in STAND_INS}:
        cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method)]
        if "target_modules" in inspect.signature(cls).parameters:
            with pytest.raises(ConfigError):
                inject(bare(), cls(target_modules=["nowhere"]))
    assert [owner[0].__dict__[owner[1]] for owner, _ in found if owner] == before


@pytest.mark.skipif(peft.__version__ != READ_IN, reason="stand-ins were read in another peft")
@pytest.mark.parametrize("one", STAND_INS, ids=lambda one: one.place)
def test_stand_ins_replace_something_that_is_there(one: Any) -> None:
    found = owner_of(one.place)
    assert found is not None
    owner, name = found
    original = owner.__dict__[name]
    if inspect.isfunction(original) and inspect.isfunction(one.replacement):
        required = [
            parameter
            for parameter in inspect.signature(one.replacement).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is parameter.empty
        ]
        assert len(required) <= len(inspect.signature(original).parameters)


def test_a_model_with_weights_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"parameters on cpu; .*Target\.skeleton"):
        inject(tiny(), LoraConfig(target_modules=["0"]))


def test_what_peft_refuses_is_told_in_its_words() -> None:
    with pytest.raises(ConfigError, match=r"refuses LORA on Sequential: .*nowhere") as caught:
        inject(bare(), LoraConfig(target_modules=["nowhere"]))
    assert not isinstance(caught.value, WeightsNeededError)


def test_a_step_that_needs_numbers_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(layer: Any, adapter: str, _: Any) -> None:
        float(layer.lora_A[adapter].weight.sum())

    monkeypatch.setattr("peft.tuners.lora.layer.LoraLayer.reset_lora_parameters", greedy)
    with pytest.raises(WeightsNeededError, match="LORA cannot be wrapped around a model without"):
        inject(bare(), LoraConfig(target_modules=["0"]))


def test_an_adapter_that_is_not_there_is_named() -> None:
    model = inject(bare(), LoraConfig(target_modules=["0"]), adapter_name="mine")
    with pytest.raises(UnknownNameError, match="mine"):
        saved_state(model, "other")
    assert saved_state(model, "mine")


def test_threads_do_not_disturb_each_other() -> None:
    failed: list[BaseException] = []

    def work(peft_type: str) -> None:
        try:
            for _ in range(5):
                model = inject(bare(), {"peft_type": peft_type, "r": 1, "target_modules": ["0"]})
                assert model.get_nb_trainable_parameters()[0] > 0
        except BaseException as error:  # noqa: BLE001 - told by the test, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in ("LORA", "SHIRA", "ADAMSS")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_what_depends_on_weights_is_said() -> None:
    cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.ADAMSS]
    assert not approximations(cls(subspace_rank=1))
    assert len(approximations(cls(subspace_rank=2))) == 1
    assert len(approximations(cls(subspace_rank=2, use_dynamic_rank=True))) == 2
    assert not approximations(LoraConfig())


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_clusters_found_in_weights_train_at_most_what_is_said(dynamic: bool) -> None:
    cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.ADAMSS]
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(24, 30))
        config = cls(
            r=6, num_subspaces=5, subspace_rank=4, target_modules=["0"], use_dynamic_rank=dynamic
        )
        said = inject(copy.deepcopy(model).to("meta"), config).get_nb_trainable_parameters()[0]
        assert get_peft_model(model, config).get_nb_trainable_parameters()[0] <= said


# --- runs on record, at full size ---

OTHERWISE: Final = {
    "adalora/llama-3.2-3B-rank32": "ranknum is trainable in peft 0.21.2: one number a layer more",
    "adalora/flux2-klein-default": "as above",
    "adamss/flux2-klein-default": "clusters smaller than subspace_rank",
    "lora/llama-3.2-3B-rank32-lorafa": "its optimizer froze A before the parameters were counted",
}
"""Runs whose recorded count is another one, and why."""


def newest(benchmark: str) -> list[Run]:
    """Runs of the newest snapshot but full fine-tuning, and one whose shadow is on the hub."""
    runs = load().runs_by_benchmark[benchmark]
    last = max(snapshot for run in runs for snapshot in run.snapshots)
    return [
        run
        for run in runs
        if last in run.snapshots
        and run.recipe.peft_type
        and run.experiment != "shadow/flux2-klein-explicit"
    ]


@pytest.fixture(scope="module")
def full_size() -> dict[str, Any]:
    from diffusers import Flux2Transformer2DModel
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        text = LlamaForCausalLM(llama)
        image = Flux2Transformer2DModel(
            in_channels=128,
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
            mlp_ratio=3,
            rope_theta=2000,
        )
    models = {"metamathqa": text, "image_gen": image}
    for model in models.values():
        for one in model.parameters():
            one.data = one.data.to(torch.bfloat16)
    return models


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_runs_on_record_have_the_counts_that_injection_gives(
    benchmark: str, full_size: dict[str, Any]
) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    other: dict[str, tuple[int, int]] = {}
    runs = newest(benchmark)
    for run in runs:
        model = inject(copy.deepcopy(full_size[benchmark]), build_config(run.recipe))
        trainable, total = model.get_nb_trainable_parameters()
        recorded = run.metrics["trainable_parameters"], run.metrics["total_parameters"]
        if (trainable, total) != recorded:
            other[run.experiment] = (trainable, int(recorded[0]))
    assert len(runs) > 30
    assert other.keys() == {run.experiment for run in runs} & OTHERWISE.keys()
    for experiment, (trainable, recorded_trainable) in other.items():
        if "lorafa" not in experiment:
            assert recorded_trainable < trainable < 1.004 * recorded_trainable, experiment
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, "kilobytes, where one of the models alone has gigabytes"
