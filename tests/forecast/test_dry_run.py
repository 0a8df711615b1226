"""The dry run: the allocator's laws, what tracing sees, what is read out of a trace."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from peft_shop.catalog.store import load
from peft_shop.curate.calibration.dry_run_accuracy import (
    COSTS,
    constants_of,
    costs_of,
    entries_in,
    measure_one,
)
from peft_shop.curate.calibration.structures import build_models, load_structures
from peft_shop.curate.calibration.suites import cases_of
from peft_shop.errors import ForecastError
from peft_shop.forecast.dry_run.allocator import CachingAllocator
from peft_shop.forecast.dry_run.constants import constants
from peft_shop.forecast.dry_run.extrapolation import depth_of, extrapolated, shorten
from peft_shop.forecast.dry_run.forecasting import dry_run, measure
from peft_shop.forecast.dry_run.replay import WORKSPACE_BYTES, replay
from peft_shop.forecast.dry_run.steps import TracedStep, trace
from peft_shop.forecast.dry_run.timing import work_of
from peft_shop.forecast.dry_run.trace import EMPTY_CACHE
from peft_shop.forecast.records import Settings
from peft_shop.forecast.reference import plain_lora
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.batches import make_batch

if TYPE_CHECKING:
    from peft_shop.forecast.dry_run.trace import Trace

MIB = 2**20

requests = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), st.integers(1, 64 * MIB)),
        st.tuples(st.just("release"), st.integers(0, 100)),
        st.tuples(st.just("empty"), st.just(0)),
    ),
    max_size=60,
)


def play(requests: list[tuple[str, int]]) -> CachingAllocator:
    memory = CachingAllocator()
    live: list[int] = []
    for number, (what, value) in enumerate(requests):
        if what == "allocate":
            memory.allocate(number, value)
            live.append(number)
        elif what == "release" and live:
            memory.release(live.pop(value % len(live)))
        elif what == "empty":
            memory.empty_cache()
    return memory


class TestAllocator:
    @given(requests)
    def test_what_is_in_use_is_reserved_and_disjoint(self, asked: list[tuple[str, int]]) -> None:
        memory = play(asked)
        blocks = sorted(memory.in_use().values())
        assert memory.allocated == sum(size for _, size in blocks)
        assert memory.allocated <= memory.reserved <= memory.peak_reserved
        assert memory.allocated <= memory.peak_allocated
        for (address, size), (following, _) in pairwise(blocks):
            assert address + size <= following

    @given(requests)
    def test_releasing_everything_and_emptying_leaves_nothing(
        self, asked: list[tuple[str, int]]
    ) -> None:
        memory = play(asked)
        for key in list(memory.in_use()):
            memory.release(key)
        assert memory.allocated == 0
        memory.empty_cache()
        assert memory.reserved == 0

    @given(st.lists(st.integers(1, 64 * MIB), max_size=30))
    def test_the_same_requests_again_need_no_new_segment(self, sizes: list[int]) -> None:
        memory = CachingAllocator()
        for key, size in enumerate(sizes):
            memory.allocate(key, size)
        before = memory.reserved
        for key in range(len(sizes)):
            memory.release(key)
        # largest first: a smaller one may otherwise take a piece of what a larger one needs
        for key, size in sorted(enumerate(sizes), key=lambda one: -one[1]):
            memory.allocate(key, size)
        assert memory.reserved <= 2 * before
        assert memory.reserved >= memory.allocated

    @pytest.mark.parametrize(
        ("size", "allocated", "reserved"),
        [
            (1, 512, 2 * MIB),
            (512, 512, 2 * MIB),
            (513, 1024, 2 * MIB),
            (MIB, MIB, 2 * MIB),
            (MIB + 1, MIB + 512, 20 * MIB),
            (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
            (10 * MIB, 10 * MIB, 10 * MIB),
            # what is left of a large segment is split off only where it is over 1 MiB
            (11 * MIB, 12 * MIB, 12 * MIB),
            (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
            (0, 0, 0),
        ],
    )
    def test_rounding_and_segments(self, size: int, allocated: int, reserved: int) -> None:
        memory = CachingAllocator()
        memory.allocate(1, size)
        assert (memory.allocated, memory.reserved) == (allocated, reserved)

    def test_the_smallest_free_block_that_fits_is_taken_and_split(self) -> None:
        memory = CachingAllocator()
        memory.allocate(1, 40 * MIB)
        memory.allocate(2, 12 * MIB)
        memory.release(1)
        memory.release(2)
        memory.allocate(3, 11 * MIB)
        memory.allocate(4, 30 * MIB)
        assert memory.reserved == 52 * MIB
        memory.allocate(5, 9 * MIB)
        assert memory.reserved == 52 * MIB
        memory.allocate(6, 5 * MIB)
        assert memory.reserved == 72 * MIB

    def test_small_requests_never_use_large_segments(self) -> None:
        memory = CachingAllocator()
        memory.allocate(1, 30 * MIB)
        memory.release(1)
        memory.allocate(2, 1000)
        assert memory.reserved == 32 * MIB

    def test_a_segment_in_use_is_not_returned(self) -> None:
        memory = CachingAllocator()
        memory.allocate(1, 30 * MIB)
        memory.release(1)
        memory.allocate(2, 2 * MIB)
        memory.empty_cache()
        assert memory.reserved == 30 * MIB

    def test_a_key_in_use_is_refused(self) -> None:
        memory = CachingAllocator()
        memory.allocate(1, 5)
        with pytest.raises(ValueError, match="in use"):
            memory.allocate(1, 5)


class Net(nn.Module):
    """Two layers of a perceptron, or several that are run again in the backward pass."""

    def __init__(self, width: int, hidden: int, blocks: int = 1, *, again: bool = False) -> None:
        super().__init__()
        self.again = again
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, hidden, bias=False),
                nn.ReLU(),
                nn.Linear(hidden, width, bias=False),
            )
            for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.again else block(x)
        return x


def perceptron(*, blocks: int = 1, rows: int = 64, again: bool = False) -> Trace:
    with torch.device("meta"):
        model = Net(512, 2048, blocks, again=again)

    def batch() -> dict[str, Any]:
        return {"x": torch.empty(rows, 512, device="meta")}

    return trace(model, [TracedStep(batch)], Settings())


def at_end(found: Trace) -> int:
    live = set()
    for event in found.events:
        if event == EMPTY_CACHE:
            continue
        if event >= 0:
            live.add(event)
        else:
            live.discard(~event)
    return sum(found.blocks[one].size for one in live)


class TestTracing:
    def test_a_perceptron_is_as_reckoned_by_hand(self) -> None:
        found = perceptron()
        weights = 2 * 512 * 2048 * 4
        assert found.static("base") == weights
        kept = {}
        for block in found.blocks:
            kept.setdefault(block.kind, []).append(block.size)
        assert sum(kept["gradients"]) == weights
        assert sum(kept["optimizer"]) == 2 * weights
        forward = [b for b in found.blocks if b.phase == "forward"]
        # the input belongs to the batch; two products, the activation, the squared mean's parts
        hidden, out = 64 * 2048 * 4, 64 * 512 * 4
        assert [b.size for b in forward if b.op == "aten.mm.default"] == [hidden, out]
        assert [b.size for b in forward if b.op == "aten.relu.default"] == [hidden]
        # weights, states, gradients, and the last outputs that a loop holds on to
        assert at_end(found) - 4 * weights < 64 * 512 * 4 * 2 + 64

    def test_products_are_counted_as_they_are(self) -> None:
        found = perceptron()
        product = 2 * 64 * 512 * 2048
        # forward: 2, backward: 2 for weights and 1 for the hidden layer; the input needs none
        assert work_of(found).full_flops == 5 * product
        assert work_of(found).half_flops == 0

    def test_no_computation_runs_and_no_memory_is_taken(self) -> None:
        with torch.device("meta"):
            model = Net(2**14, 2**16)
        found = trace(
            model, [TracedStep(lambda: {"x": torch.empty(2**12, 2**14, device="meta")})], Settings()
        )
        assert replay(found).peak_reserved > 4 * 2 * 2**30 * 4

    def test_running_blocks_again_lowers_the_peak_and_costs_products(self) -> None:
        plain, again = perceptron(blocks=8, rows=4096), perceptron(blocks=8, rows=4096, again=True)
        assert replay(again).peak_allocated < replay(plain).peak_allocated
        assert work_of(again).full_flops > work_of(plain).full_flops
        # the same parameters at the end
        assert at_end(again) == at_end(plain)

    def test_more_rows_never_need_less(self) -> None:
        found = [perceptron(rows=rows) for rows in (1, 64, 1000, 4096, 20000)]
        peaks = [replay(one).peak_allocated for one in found]
        assert peaks == sorted(peaks)
        assert len({one.launches for one in found}) == 1

    def test_terms_add_up(self) -> None:
        found = replay(perceptron(blocks=3))
        assert sum(found.terms.values()) == found.peak_reserved
        assert min(found.terms.values()) >= 0
        assert found.terms["temporary"] >= WORKSPACE_BYTES

    def test_what_is_read_back_is_counted(self) -> None:
        class Reads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.empty(3, device="meta"))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.weight if x.sum() > 0 else x + self.weight

        found = trace(
            Reads(), [TracedStep(lambda: {"x": torch.empty(3, device="meta")})], Settings()
        )
        assert found.synchronizations == 1

    def test_nothing_trainable_is_an_error(self) -> None:
        with torch.device("meta"):
            model = nn.Linear(2, 2).requires_grad_(False)  # noqa: FBT003 - torch's own name
        with pytest.raises(ForecastError, match="nothing is trainable"):
            trace(
                model, [TracedStep(lambda: {"input": torch.empty(1, 2, device="meta")})], Settings()
            )


def llama(layers: int = 2, **changes: Any) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, vocab_size=4096, dtype=torch.bfloat16, **changes,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(config).to(torch.bfloat16)


def llama_trace(settings: Settings, layers: int = 2, model: Any = None) -> Trace:
    model = llama(layers) if model is None else model
    return trace(model, [TracedStep(lambda: make_batch(model, model.config, settings))], settings)


class TestLanguageModel:
    def test_logits_and_loss_are_as_reckoned_by_hand(self) -> None:
        settings = Settings(batch_size=2, sequence_length=96)
        found = llama_trace(settings)
        rows, vocabulary = 2 * 96, 4096
        logits = [b for b in found.blocks if b.kind == "logits"]
        loss = [b for b in found.blocks if b.kind == "loss"]
        assert [b.size for b in logits] == [2 * rows * vocabulary]
        # float32 logits, log-probabilities and two gradients, one gradient in half precision
        assert sum(b.size for b in loss) == (4 + 4 + 4 + 4 + 2) * rows * vocabulary

    def test_kernels_of_attention_keep_what_they_keep(self) -> None:
        found = {}
        for name, more in (
            ("packed", {"padding": False}),
            ("padded", {}),
            ("eager", {"attention": "eager"}),
        ):
            settings = Settings(batch_size=2, sequence_length=1024, **more)
            model = llama()
            model.set_attn_implementation("eager" if name == "eager" else "sdpa")
            found[name] = replay(llama_trace(settings, model=model)).peak_allocated
        # a mask of its own per layer; then probabilities per head as well
        assert found["packed"] + 2 * 2 * 2 * 1024**2 <= found["padded"]
        assert found["padded"] + 2 * 2 * 4 * 1024**2 <= found["eager"]

    @pytest.mark.parametrize("field", ["batch_size", "sequence_length"])
    def test_larger_batches_need_more(self, field: str) -> None:
        peaks = []
        for size in (8, 32, 64):
            settings = Settings(**{"batch_size": 4, "sequence_length": 64, field: size})
            peaks.append(replay(llama_trace(settings)).peak_allocated)
        assert peaks == sorted(peaks)
        assert len(set(peaks)) == 3

    def test_few_layers_tell_of_all(self) -> None:
        settings = Settings(batch_size=4, sequence_length=256)
        results = []
        for layers in (2, 4):
            found = llama_trace(settings, layers)
            results.append((replay(found), work_of(found)))
        whole = llama_trace(settings, 9)
        memory, work = extrapolated(results, (2, 4), 9)
        assert work.half_flops == work_of(whole).half_flops
        assert work.traffic == work_of(whole).traffic
        real = replay(whole)
        assert memory.peak_allocated == pytest.approx(real.peak_allocated, rel=0.01)
        assert memory.peak_reserved == pytest.approx(real.peak_reserved, rel=0.05)

    def test_a_shortened_model_is_a_model_with_fewer_layers(self) -> None:
        model = llama(6)
        assert depth_of(model) == 6
        shorten(model, 3)
        settings = Settings(batch_size=2, sequence_length=32)
        short, built = llama_trace(settings, model=model), llama_trace(settings, 3)
        assert work_of(short) == work_of(built)
        assert replay(short).peak_allocated == replay(built).peak_allocated

    def test_optimizers_keep_what_they_keep(self) -> None:
        parameters = sum(p.numel() for p in llama().parameters())
        states = {}
        for name in ("adamw", "sgd", "adamw_8bit", "adafactor"):
            found = llama_trace(Settings(batch_size=1, sequence_length=16, optimizer=name))
            states[name] = sum(b.size for b in found.blocks if b.kind == "optimizer")
        assert states["adamw"] == 2 * 2 * parameters
        assert states["sgd"] == 0
        assert 2 * parameters < states["adamw_8bit"] < 2.2 * parameters
        assert 0 < states["adafactor"] < 0.2 * parameters


LORA = {"peft_type": "LORA", "r": 32, "lora_alpha": 64, "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def target() -> Any:
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, vocab_size=4096, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    return inspect_model(config)


class TestForecast:
    def test_plain_lora_takes_as_long_as_plain_lora(self, target: Any) -> None:
        settings = Settings(batch_size=2, sequence_length=64, accelerator="NVIDIA L40S")
        found = dry_run(target, plain_lora(target.structure), settings)
        assert found.method == "lora"
        assert found.way == "dry_run"
        assert {one.benchmark for one in found.step_time} == {"metamathqa", "image_gen"}
        assert all(one.factor.value == 1 for one in found.step_time)
        assert all(one.seconds is not None for one in found.step_time)
        assert sum(term.bytes for term in found.terms) == found.peak_memory.value
        # A and B on query and value, as peft counts them
        assert found.trainable_parameters == 3 * 32 * ((256 + 256) + (256 + 128))
        assert found.checkpoint_bytes is not None
        assert found.checkpoint_bytes > 4 * found.trainable_parameters

    def test_seconds_are_told_for_measured_hardware_only(self, target: Any) -> None:
        settings = Settings(batch_size=2, sequence_length=64, accelerator="NVIDIA A100")
        found = dry_run(target, {**LORA, "target_modules": ["q_proj"]}, settings)
        assert all(one.seconds is None for one in found.step_time)

    def test_full_fine_tuning_has_no_adapter(self, target: Any) -> None:
        found = dry_run(target, None, Settings(batch_size=1, sequence_length=32))
        assert found.method == "full_finetuning"
        assert found.checkpoint_bytes is None
        assert found.trainable_parameters == found.total_parameters
        assert not [term for term in found.terms if term.name == "adapter"]

    def test_a_quantized_base_is_smaller_and_not_sure(self, target: Any) -> None:
        config = {**LORA, "target_modules": ["q_proj", "v_proj"]}
        plain, packed = (
            dry_run(target, config, Settings(batch_size=1, sequence_length=32, **more))
            for more in ({}, {"quantization": "bnb_4bit", "prepare_kbit": False})
        )
        base, small = (
            next(term.bytes for term in one.terms if term.name == "base") for one in (plain, packed)
        )
        assert small < base
        spread = [one.peak_memory.high / one.peak_memory.low for one in (plain, packed)]
        assert spread[0] < spread[1]
        assert any("quantized" in one for one in packed.warnings)

    def test_checkpointing_lowers_the_peak(self, target: Any) -> None:
        config = {**LORA, "target_modules": ["q_proj", "v_proj"]}
        peaks = [
            measure(
                target,
                config,
                Settings(batch_size=8, sequence_length=512, gradient_checkpointing=again),
            ).memory.peak_allocated
            for again in (False, True)
        ]
        assert peaks[1] < peaks[0]

    def test_the_target_stays_as_it_was(self, target: Any) -> None:
        before = {name: p.dtype for name, p in target.skeleton().named_parameters()}
        measure(target, {**LORA, "target_modules": ["q_proj"]}, Settings(dtype="float32"))
        assert {name: p.dtype for name, p in target.skeleton().named_parameters()} == before

    def test_methods_that_ask_for_a_task_are_told_one(self, target: Any) -> None:
        config = {"peft_type": "POLY", "task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
        found = dry_run(target, config, Settings(batch_size=2, sequence_length=32))
        assert found.trainable_parameters > 0
        assert "never compared" in found.peak_memory.basis

    def test_few_layers_of_a_target_tell_of_all(self, target: Any) -> None:
        config = {**LORA, "target_modules": ["q_proj"]}
        settings = Settings(batch_size=2, sequence_length=128)
        whole = measure(target, config, settings)
        few = measure(target, config, settings, layers=(1, 2))
        assert few.work.half_flops == whole.work.half_flops
        assert few.memory.peak_allocated == pytest.approx(whole.memory.peak_allocated, rel=0.02)
        assert sum(few.memory.terms.values()) == few.memory.peak_reserved
        assert any("follows" in note for note in few.notes)

    def test_a_model_without_a_known_batch_says_what_to_pass(self) -> None:
        model = inspect_model(nn.Sequential(nn.Linear(8, 8)))
        config = {"peft_type": "LORA", "target_modules": ["0"]}
        with pytest.raises(ForecastError, match="pass one as `batch`"):
            dry_run(model, config, Settings())
        found = measure(
            model,
            config,
            Settings(dtype="float32"),
            batch=lambda _model, length: {"input": torch.empty(length or 512, 8, device="meta")},
        )
        assert found.prepared.trainable == 2 * 8 * 8

    def test_what_cannot_run_on_meta_says_so(self, target: Any) -> None:
        with pytest.raises(ForecastError, match="cannot be run on the meta device"):
            measure(
                target,
                {**LORA, "target_modules": ["q_proj"]},
                Settings(),
                batch=lambda _model, _length: {"input_ids": None, "wrong": 1},
            )


FIGURES = Path(__file__).parents[2] / "data" / "forecast_dry_run.json"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


class TestAccuracy:
    def test_the_constants_come_from_the_figures(self, figures: dict[str, Any]) -> None:
        assert constants_of(figures) == constants()
        entries = entries_in(figures)
        for one in constants().steps:
            own = [entry for entry in entries if entry["benchmark"] == one.benchmark]
            fitted = costs_of(own)
            assert fitted == pytest.approx([getattr(one, name) for name in COSTS], rel=1e-4)

    def test_errors_are_those_of_the_runs(self, figures: dict[str, Any]) -> None:
        for suite in figures["suites"].values():
            kept = [
                one
                for one in suite["memory"]["runs"]
                if not one["excluded"] and not one["held_out"]
            ]
            sizes = [abs(one["forecast"] / one["recorded"] - 1) for one in kept]
            said = suite["memory"]["method_left_out"]
            assert said["mean"] == pytest.approx(sum(sizes) / len(sizes), abs=1e-5)
            inside = [one for one in kept if one["low"] <= one["recorded"] <= one["high"]]
            assert said["inside"] == len(inside)

    def test_memory_is_as_good_as_promised(self, figures: dict[str, Any]) -> None:
        text = figures["suites"]["metamathqa"]["memory"]["method_left_out"]
        image = figures["suites"]["image_gen"]["memory"]["method_left_out"]
        assert text["mean"] < 0.008
        assert text["median"] <= 0.0015
        assert image["mean"] < 0.02
        for one in (text, image):
            assert 0.85 <= one["coverage"] <= 0.95

    def test_step_time_is_as_good_as_promised(self, figures: dict[str, Any]) -> None:
        for suite in figures["suites"].values():
            assert suite["time"]["method_left_out"]["mean"] < 0.11

    @pytest.mark.slow
    @pytest.mark.parametrize("suite", ["metamathqa", "image_gen"])
    def test_tracing_again_gives_the_figures(self, suite: str, figures: dict[str, Any]) -> None:
        model = build_models()[suite]
        looked_at = inspect_model(model)
        known = {one["experiment"]: one for one in figures["suites"][suite]["memory"]["runs"]}
        cases = cases_of(load(), load_structures(FIGURES.parent))
        chosen = {"lora", "miss", "vera", "oft", "loha", "fourierft", "adaption_prompt"}
        for case in cases:
            if case.run.benchmark == suite and case.run.method in chosen:
                found = measure_one(case, looked_at)
                assert abs(found["error"]) <= abs(known[case.run.experiment]["error"]) + 0.0005
