"""A verdict that hangs on the host says on what of it, and on nothing else."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.conditions import Circumstances
from peft_shop.curate.probe.runner import read_observations
from peft_shop.curate.probe.setups import Setup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.methods import Observation

pytest.importorskip("peft")

CATALOG = Path(__file__).parents[2] / "catalog"
MEMBERS: dict[str, tuple[Any, ...]] = {
    "bias": (False, True),
    "prepared": (False, True),
    "dtype": ("bfloat16", "float32"),
}


@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_alternatives_hold_just_where_it_works(works: list[bool]) -> None:
    from peft_shop.curate.probe.varying import Cell, alternatives

    worlds = [dict(zip(MEMBERS, values, strict=True)) for values in product(*MEMBERS.values())]
    terms = alternatives([Cell(one, ok) for one, ok in zip(worlds, works, strict=True)])
    if len(set(works)) == 1:
        assert terms == ()
        return
    for world, ok in zip(worlds, works, strict=True):
        known = {name: frozenset({value}) for name, value in world.items()}
        assert any(term.hold(known) for term in terms) == ok
    for term in terms:  # none could say less
        for name in term.model_dump(exclude_none=True):
            shorter = term.model_copy(update={name: None})
            covered = [
                ok
                for world, ok in zip(worlds, works, strict=True)
                if all(getattr(shorter, key) in (None, value) for key, value in world.items())
            ]
            assert not all(covered)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft_shop.curate.probe.bench import Bench

        yield Bench("lora", Setup(args={"r": 4, "lora_alpha": 8}), tmp_path)


def test_a_fault_on_biases_is_found_and_named(bench: Any, monkeypatch: Any) -> None:
    from peft.tuners.lora.layer import Linear

    from peft_shop.curate.probe.layers import probe_layers
    from peft_shop.curate.probe.persistence import probe_identity_at_start
    from peft_shop.curate.probe.varying import on_hosts

    right = Linear.forward

    def twice(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        out = right(self, x, *args, **kwargs)
        return out if self.base_layer.bias is None else out + self.base_layer.bias

    def flat(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if x.dim() != 3:
            raise RuntimeError("three dimensions, please")
        return right(self, x, *args, **kwargs)

    identity = "identity_at_start"
    answer = on_hosts(bench, {identity}, probe_identity_at_start)[identity]
    assert (answer.support, answer.conditions) == ("yes", ())
    monkeypatch.setattr(Linear, "forward", twice)
    answer = on_hosts(bench, {identity}, probe_identity_at_start)[identity]
    assert (answer.support, answer.conditions) == ("partial", (Circumstances(bias=False),))
    assert answer.note is not None
    assert answer.note.startswith("only on layers without a bias; otherwise a fresh adapter")
    monkeypatch.setattr(Linear, "forward", flat)
    linear = probe_layers(bench)["layer_types.linear"]
    assert (linear.support, linear.conditions) == ("partial", (Circumstances(inputs=(3,)),))


def test_what_fails_under_a_device_map_alone_is_told_and_does_not_count(
    bench: Any, monkeypatch: Any
) -> None:
    from peft_shop.curate.probe.persistence import probe_disable_adapter
    from peft_shop.curate.probe.varying import on_hosts

    wrap = type(bench).wrap

    def refuse(self: Any, host: Any, config: Any) -> Any:
        if getattr(host.model, "hf_device_map", None):
            raise StopIteration
        return wrap(self, host, config)

    monkeypatch.setattr(type(bench), "wrap", refuse)
    monkeypatch.setattr("peft_shop.curate.probe.judgement._PACKAGE", Path("/nowhere"))
    answer = on_hosts(bench, {"disable_adapter"}, probe_disable_adapter)["disable_adapter"]
    assert (answer.support, answer.conditions) == ("yes", ())
    assert answer.note == (
        "not where a device map puts the whole model on the CPU (failed: StopIteration)"
    )


# --- the committed files: verdicts that hung on one host, and what they are ---


@pytest.fixture(scope="module")
def committed() -> dict[str, Observation]:
    return read_observations(CATALOG)


NO_BIAS = Circumstances(bias=False)
THREE = Circumstances(inputs=(3,))


@pytest.mark.parametrize(
    ("method", "feature", "support", "conditions"),
    [
        ("adaption_prompt", "identity_at_start", "partial", (NO_BIAS,)),
        ("osf", "merging", "yes", ()),
        ("beft", "merging", "partial", (Circumstances(bias=True),)),
        ("poly", "layer_types.linear", "partial", (THREE,)),
        ("oft", "layer_types.linear", "partial", (Circumstances(inputs=(2, 3)),)),
        ("gralora", "layer_types.linear", "partial", (Circumstances(inputs=(2, 3)),)),
        ("prefix_tuning", "quantization.gptq", "yes", ()),
        ("cartridge", "quantization.gptq", "yes", ()),
        ("lora", "quantization.aqlm", "partial", (NO_BIAS,)),
        ("c3a", "quantization.bnb_8bit", "partial", (NO_BIAS,)),
        ("gralora", "quantization.bnb_8bit", "partial", (NO_BIAS,)),
        ("poly", "quantization.bnb_8bit", "partial", (NO_BIAS,)),
        ("adamss", "extractable_to_lora", "partial", (NO_BIAS,)),
        ("trainable_tokens", "extractable_to_lora", "partial", (Circumstances(tied=False),)),
    ],
)
def test_verdicts_that_hung_on_one_host(
    committed: dict[str, Observation],
    method: str,
    feature: str,
    support: str,
    conditions: tuple[Circumstances, ...],
) -> None:
    found = committed[method].capabilities[feature]
    assert (found.support, found.conditions) == (support, conditions)


@pytest.mark.parametrize("method", ["c3a", "gralora", "poly"])
def test_with_biases_four_bits_need_a_prepared_base_in_bfloat16(
    committed: dict[str, Observation], method: str
) -> None:
    found = committed[method].capabilities["quantization.bnb_4bit"].conditions
    assert found == (NO_BIAS, Circumstances(prepared=True, dtype="bfloat16"))


@pytest.mark.parametrize("method", ["boft", "miss", "oft", "shira", "vera"])
def test_code_that_tuners_share_counts_as_theirs(
    committed: dict[str, Observation], method: str
) -> None:
    for backend in ("eetq", "inc"):
        note = committed[method].capabilities[f"quantization.{backend}"].note or ""
        assert note.startswith("peft has code for it")


def test_other_rows_of_the_corrections(committed: dict[str, Observation]) -> None:
    assert committed["shadow"].category == "adapter"
    assert "rank_pattern" not in committed["hira"].options
    assert not {"rank_pattern", "alpha_pattern"} & set(committed["adalora"].options)
    assert {"rank_pattern", "alpha_pattern"} <= set(committed["lora"].options)
    note = committed["xlora"].capabilities["layer_types.parameter"].note or ""
    assert "TypeError" in note
    assert "scalings" in note
    for seen in committed.values():
        for feature, found in seen.capabilities.items():
            outside = feature not in {"quantization.eetq", "quantization.inc"}
            assert found.support != "unknown" or not outside, (seen.method, feature)
