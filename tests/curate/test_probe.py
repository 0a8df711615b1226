"""The capability probe: how it judges, what it writes, and what the committed files say."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.features import FEATURE_IDS, FEATURES
from peft_shop.catalog.methods import Capability, Environment, Fidelity, MeasuredRank, Observation
from peft_shop.curate.probe.comparing import _same_note, differences
from peft_shop.curate.probe.judgement import Outcome, attempt, found, order
from peft_shop.curate.probe.matrix import matrix
from peft_shop.curate.probe.runner import dump, probe, read_observations, write
from peft_shop.curate.probe.setups import Setup, load_setups
from peft_shop.errors import CatalogError, ProbeError, QuantityError, UnknownNameError
from peft_shop.units import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CATALOG = Path(__file__).parents[2] / "catalog"
DEAR = {"torch_compile", *(name for name in FEATURE_IDS if name.startswith("quantization."))}


def _raise() -> None:
    raise ERROR  # noqa: F821 - in the globals that `raising` gives it


def raising(error: BaseException | type, *, module: str = "peft.tuners.fake") -> Callable[[], Any]:
    """A function that lives in `module`, such as a tuner that peft never had, and raises."""
    return FunctionType(_raise.__code__, {"__name__": module, "ERROR": error})


# --- judging ---


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Target module Conv1d(3, 4) is not supported. Currently, only X"),
        TypeError("FooModel supports only 1 trainable adapter"),
        NotImplementedError,
        ValueError("Hotswapping only supports LORA but FOO was passed."),
    ],
)
def test_words_of_refusal_are_no_crash(error: Any) -> None:
    outcome = attempt(raising(error))
    assert (outcome.kind, outcome.level) == ("refused", "declared")
    assert outcome.note.startswith("refused: ")


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (RuntimeError("mat1 and mat2\nsecond line"), "failed: RuntimeError: mat1 and mat2"),
        (KeyError("model_type"), "failed: KeyError: 'model_type'"),
        (StopIteration, "failed: StopIteration"),
        (ValueError("at 0x7f00aa in /home/x/y.py"), "failed: ValueError: at 0x... in <path>"),
    ],
)
def test_other_errors_are_failures_with_their_closing_line(error: Any, note: str) -> None:
    outcome = attempt(raising(error))
    assert (outcome.kind, outcome.level, outcome.note) == ("failed", "injected", note)


def test_words_of_refusal_outside_peft_are_a_failure() -> None:
    outcome = attempt(raising(ValueError("X is not supported"), module="elsewhere"))
    assert outcome.kind == "failed"


def test_complaints_of_arguments_are_our_mistake() -> None:
    call = raising(ValueError("`r` should be a positive integer value but is 0"))
    with pytest.raises(ProbeError, match="the set-up is wrong"):
        attempt(call)
    assert attempt(call, proven=True).kind == "failed"


def test_errors_of_this_package_propagate() -> None:
    with pytest.raises(QuantityError):
        attempt(lambda: parse_quantity("much", "bytes"))


def test_a_call_that_returns_is_done() -> None:
    assert attempt(lambda: 7) == Outcome("done", value=7)


def test_long_refusals_come_to_a_few_words() -> None:
    long = "The provided `peft_type` 'FOO' is not compatible with the `PeftMixedModel`. " + "x" * 99
    assert attempt(raising(ValueError(long))).message == "not a mixable type"


@given(st.floats(min_value=0, max_value=1e6))
def test_order_is_the_next_power_of_ten(value: float) -> None:
    found_order = order(value)
    exponent = math.log10(found_order)
    assert exponent == pytest.approx(round(exponent))
    assert found_order >= 1e-6
    assert value <= found_order * (1 + 1e-6)
    assert found_order <= max(value, 1e-6) * 10 * (1 + 1e-6)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_order_of_no_number_is_beyond_every_tolerance(value: float) -> None:
    assert order(value) == 1e9


# --- comparing and writing ---


def observation(**measured: float) -> Observation:
    capabilities = {name: Capability(support="no", level="declared") for name in FEATURE_IDS}
    capabilities["merging"] = found("yes", "verified", measured=measured)
    return Observation(
        method="lora",
        config_class="LoraConfig",
        category="adapter",
        environments={"cpu": Environment(peft="0.21.2", python="3.11")},
        capabilities=capabilities,
    )


def test_equal_observations_have_no_difference() -> None:
    one = observation(merge=1e-6)
    assert differences({"lora": one}, {"lora": one}) == []


@given(st.integers(-6, 3), st.integers(-6, 3))
def test_deviations_may_differ_by_one_order(one: int, other: int) -> None:
    before, now = observation(merge=float(f"1e{one}")), observation(merge=float(f"1e{other}"))
    changes = differences({"lora": before}, {"lora": now})
    assert bool(changes) == (abs(one - other) > 1)
    assert [change.where for change in changes] in ([], ["capabilities.merging.measured.merge"])


@given(st.sampled_from(FEATURE_IDS), st.sampled_from(["yes", "partial", "unknown"]))
def test_every_changed_support_is_reported(feature: str, support: Any) -> None:
    before = observation(merge=1e-6)
    changed = before.capabilities[feature].model_copy(update={"support": support})
    now = before.model_copy(update={"capabilities": {**before.capabilities, feature: changed}})
    where = [change.where for change in differences({"lora": before}, {"lora": now})]
    same = before.capabilities[feature].support == support
    assert where == ([] if same else [f"capabilities.{feature}.support"])


def test_a_new_method_and_another_version_are_reported() -> None:
    before = observation()
    newer = {"cpu": Environment(peft="0.22.0", python="3.11")}
    now = before.model_copy(update={"environments": newer})
    changes = differences({"lora": before}, {"lora": now, "new": now})
    assert [(change.method, change.where) for change in changes] == [
        ("lora", "environments.cpu"),
        ("new", ""),
    ]
    assert "0.22.0" in str(changes[0])


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "observed").mkdir()
    one = {"lora": observation(merge=1e-6)}
    assert [path.name for path in write(one, tmp_path)] == ["lora.json"]
    assert write(one, tmp_path) == []
    assert read_observations(tmp_path) == one


def test_a_broken_file_names_its_places(tmp_path: Path) -> None:
    (tmp_path / "observed").mkdir()
    (tmp_path / "observed" / "lora.json").write_text('{"method": "lora", "category": "x"}')
    with pytest.raises(CatalogError, match=r"lora\.json: config_class"):
        read_observations(tmp_path)


# --- set-ups ---


def curated(folder: Path, text: str) -> Path:
    (folder / "curated").mkdir()
    (folder / "curated" / "lora.toml").write_text(text)
    return folder


def test_a_method_without_a_set_up_fails(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"lora\.toml: there is no \[probe\] table"):
        load_setups(curated(tmp_path, 'title = "LoRA"'))


def test_an_unknown_key_of_a_set_up_fails_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"probe\.argz"):
        load_setups(curated(tmp_path, "[probe]\nargz = {}"))


def test_an_unknown_method_or_feature_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'lora'"):
        load_setups(CATALOG, ["lorra"])
    with pytest.raises(UnknownNameError, match="'merging'"):
        probe(["lora"], ["mergin"], catalog=CATALOG)


VARIANT = """
[[variants]]
id = "dora"
when = [{ config = "use_dora", equals = true }]
[[variants]]
id = "kasa"
when = [{ config = "kasa_config", is_set = true }]
[[variants]]
id = "fast"
when = [{ training = "optimizer", equals = "x" }]
[probe]
"""


def test_variants_get_what_their_conditions_demand(tmp_path: Path) -> None:
    text = VARIANT + "variant_args.kasa = { kasa_config = {} }"
    setup = load_setups(curated(tmp_path, text))["lora"]
    assert setup.variants == {"dora": {"use_dora": True}, "kasa": {"kasa_config": {}}}


def test_a_variant_that_cannot_be_made_up_fails(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"variants\.kasa"):
        load_setups(curated(tmp_path, VARIANT))


def test_an_untried_variant_is_left_out(tmp_path: Path) -> None:
    text = VARIANT + 'untried.kasa = "no"'
    assert set(load_setups(curated(tmp_path, text))["lora"].variants) == {"dora"}


def test_every_curated_method_has_a_set_up() -> None:
    assert len(load_setups(CATALOG)) == len(list((CATALOG / "curated").glob("*.toml"))) == 45


# --- the committed files ---


@pytest.fixture(scope="module")
def committed() -> dict[str, Observation]:
    return read_observations(CATALOG)


def test_all_methods_and_features_are_filled(committed: dict[str, Observation]) -> None:
    assert set(committed) == set(load_setups(CATALOG))
    for method, seen in committed.items():
        assert (seen.method, set(seen.capabilities)) == (method, set(FEATURE_IDS))


def test_files_are_byte_stable(committed: dict[str, Observation]) -> None:
    for method, seen in committed.items():
        assert (CATALOG / "observed" / f"{method}.json").read_bytes() == dump(seen)


def facts(committed: dict[str, Observation]) -> Iterator[tuple[str, str, Capability]]:
    for method, seen in committed.items():
        for feature, capability in seen.capabilities.items():
            yield method, feature, capability
        for variant, differing in seen.variants.items():
            for feature, capability in differing.capabilities.items():
                yield f"{method}/{variant}", feature, capability


def test_half_answers_carry_a_note_and_verified_ones_a_number(
    committed: dict[str, Observation],
) -> None:
    for method, feature, capability in facts(committed):
        place = f"{method} {feature}"
        if capability.support in {"partial", "unknown"}:
            assert capability.note, place
        if capability.level == "verified":
            assert capability.measured, place
        assert capability.environment in committed[method.split("/")[0]].environments, place


def test_unknown_is_left_only_where_a_cpu_cannot_tell(committed: dict[str, Observation]) -> None:
    unknown = {f for _, f, capability in facts(committed) if capability.support == "unknown"}
    assert unknown <= {"quantization.eetq", "quantization.inc"}


def test_variants_hold_differences_only(committed: dict[str, Observation]) -> None:
    for seen in committed.values():
        for differing in seen.variants.values():
            for feature, capability in differing.capabilities.items():
                known = seen.capabilities[feature]
                told = (capability.support, capability.conditions)
                assert told != (known.support, known.conditions)


@pytest.mark.parametrize(
    ("method", "feature", "support"),
    [
        ("shadow", "merging", "no"),
        ("xlora", "merging", "no"),
        ("lora", "merging", "yes"),
        ("adalora", "multiple_adapters", "partial"),
        ("adamss", "layer_types.linear", "yes"),
        ("lora", "layer_types.parameter", "yes"),
        ("lora", "hot_swapping", "yes"),
        ("prefix_tuning", "gradient_checkpointing", "no"),
        ("prompt_tuning", "quantization.bnb_4bit", "yes"),
        ("unilora", "quantization.bnb_8bit", "no"),
    ],
)
def test_known_truths(
    committed: dict[str, Observation], method: str, feature: str, support: str
) -> None:
    assert committed[method].capabilities[feature].support == support


def adapting(committed: dict[str, Observation], feature: str) -> set[str]:
    return {m for m, seen in committed.items() if seen.capabilities[feature].support != "no"}


def test_known_counts(committed: dict[str, Observation]) -> None:
    copies = {"ln_tuning"}  # adapts any module by training a whole copy of it
    conv2d = {"lora", "adalora", "ia3", "loha", "lokr", "oft", "boft", "hra", "hira"}
    assert adapting(committed, "layer_types.conv2d") - copies == conv2d
    assert len(adapting(committed, "layer_types.transformers_conv1d") - copies) == 16
    assert adapting(committed, "layer_types.parameter") - copies == {"lora"}
    prompts = {m for m, seen in committed.items() if seen.category == "prompt_learning"}
    assert not prompts & adapting(committed, "layer_types.linear")


def test_the_matrix_is_complete(committed: dict[str, Observation]) -> None:
    page = matrix(committed)
    for method in committed:
        assert page.count(f"| {method} | ") == 3
    for feature in FEATURES:
        assert f" {feature.title} |" in page
        assert f"| {feature.id} | " in page


# --- really probing ---


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft_shop.curate.probe.bench import Bench

        setup = Setup(args={"r": 4, "lora_alpha": 8})
        yield Bench("lora", setup, tmp_path)


def test_a_merge_that_scales_wrongly_is_caught(bench: Any, monkeypatch: Any) -> None:
    from peft.tuners.lora.layer import Linear

    from peft_shop.curate.probe.merging import probe_merging

    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 2 * right(self, name))
    wrong = probe_merging(bench)["merging"]
    assert (wrong.support, wrong.level) == ("no", "verified")
    assert wrong.measured["merge_fp32"] > 1e-3
    monkeypatch.undo()
    assert probe_merging(bench)["merging"].support == "yes"


def test_a_layer_type_is_trained_and_its_base_kept(bench: Any, monkeypatch: Any) -> None:
    from peft_shop.curate.probe import layers

    assert layers.probe_layers(bench)["layer_types.linear"].support == "yes"
    wrap = type(bench).wrap

    def open_base(self: Any, host: Any, config: Any) -> Any:
        model = wrap(self, host, config)
        host.model.head.weight.requires_grad_(requires_grad=True)
        return model

    monkeypatch.setattr(type(bench), "wrap", open_base)
    opened = layers.probe_layers(bench)["layer_types.linear"]
    assert (opened.support, opened.note) == ("no", "trains the base's own head.weight")


def test_wrong_arguments_fail_the_run_instead_of_the_method(bench: Any, tmp_path: Path) -> None:
    bench.setup = Setup(args={"rank": 4})
    with pytest.raises(ProbeError, match="LoraConfig has no rank"):
        bench.config()
    text = "[probe]\nargs = { r = 0 }"
    with pytest.raises(ProbeError, match="lora: the set-up is wrong"):
        probe(["lora"], ["merging"], catalog=curated(tmp_path, text))


def test_what_changes_a_layer_is_seen_from_outside(bench: Any) -> None:
    """Against A and B, which the oracle does not look at."""
    from peft_shop.curate.probe.deltas import delta_of, numerical_rank, singular_values

    delta, _, model = delta_of(bench, "linear", (48, 40))
    weights = {
        name.split(".")[-3]: w.detach().double()
        for name, w in model.named_parameters()
        if ("lora_" in name)
    }
    expected = 2 * weights["lora_B"] @ weights["lora_A"]
    assert float((delta.weight - expected).norm() / expected.norm()) < 1e-5
    assert numerical_rank(singular_values(delta.weight)) == 4
    assert (delta.bias, delta.fixed, delta.base_changed) == (False, True, False)


@pytest.mark.parametrize(
    ("layer", "shape", "flat"),
    [("conv2d", (16, 32), 144), ("embedding", (64, 32), 32), ("transformers_conv1d", (32, 48), 48)],
)
def test_every_layer_type_has_its_oracle(
    bench: Any, layer: Any, shape: tuple[int, int], flat: int
) -> None:
    """Against merging, which the probe has compared with the outputs."""
    from peft_shop.curate.probe.deltas import delta_of, single_host

    delta, _, model = delta_of(bench, layer, shape)
    (before,) = single_host(bench, layer, shape).model.model.values()
    (after,) = model.merge_and_unload().model.values()
    expected = (after.weight - before.weight).detach().double().reshape(len(before.weight), -1)
    assert delta.weight.shape == (len(before.weight), flat)
    assert float((delta.weight - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    ("overrides", "kinds", "support", "changed"),
    [
        ({}, ("weight",), "yes", False),
        ({"init_lora_weights": "pissa"}, ("weight",), "yes", True),
        ({"use_dora": True}, ("weight",), "partial", False),
        ({"lora_bias": True}, ("weight", "bias"), "no", False),
        ({"alora_invocation_tokens": [1]}, ("input_dependent",), "no", False),
    ],
)
def test_fidelity_of_lora_and_its_variants(
    bench: Any, overrides: dict[str, Any], kinds: tuple[str, ...], support: str, *, changed: bool
) -> None:
    from peft_shop.curate.probe.fidelity import EXTRACTABLE, probe_fidelity

    bench.overrides = overrides
    answer = probe_fidelity(bench)[EXTRACTABLE]
    assert (bench.fidelity.delta, answer.support) == (kinds, support)
    assert bench.fidelity.base_changed == changed
    if overrides.get("use_dora"):
        assert bench.fidelity.errors[0] > bench.fidelity.errors[-1] > 0.05
    else:
        assert bench.fidelity.errors == ()


def test_another_fidelity_is_reported() -> None:
    one = observation(merge=1e-6)
    held = Fidelity(rank=128, errors=(0.9, 0.8, 0.6, 0.3), layers=("linear",))
    before = one.model_copy(update={"fidelity": held})
    close = held.model_copy(update={"errors": (0.9, 0.8, 0.61, 0.3)})
    for other, where in (
        (close, []),
        (held.model_copy(update={"errors": (0.9, 0.8, 0.62, 0.3)}), ["fidelity.errors"]),
        (held.model_copy(update={"rank": 9}), ["fidelity.rank"]),
        (held.model_copy(update={"grid": (MeasuredRank(ranks={"4x4": 1}),)}), ["fidelity.grid"]),
        (None, ["fidelity"]),
    ):
        now = one.model_copy(update={"fidelity": other})
        changes = differences({"lora": before}, {"lora": now})
        assert [change.where for change in changes] == where


@pytest.mark.slow
def test_probing_again_says_what_is_committed(committed: dict[str, Observation]) -> None:
    cheap = [name for name in FEATURE_IDS if name not in DEAR]
    changes = differences(committed, probe(None, cheap, catalog=CATALOG, jobs=2))
    # another version of a package explains itself; anything else is a change
    assert [change for change in changes if not change.where.startswith("environments")] == []


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (
            "loses 87 % at rank 8 and 31 % at rank 64",
            "loses 86 % at rank 8 and 31 % at rank 64",
            True,
        ),
        ("loses 87 % at rank 8", "loses 85 % at rank 8", False),
        ("loses 87 % at rank 8", "loses 87 % at rank 16", False),
        ("loses 87 % of it", "loses 87 % of it and 1 %", False),
        ("refused", "refused", True),
    ],
)
def test_shares_in_a_note_may_be_rounded_otherwise(old: str, new: str, same: bool) -> None:
    assert _same_note(old, new) is same
