"""Factors of single layers: ranks and errors against a whole decomposition, peft as the oracle."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("peft", reason="needs peft-shop[peft]")

import peft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file
from torch import nn

from peft_shop.conversion import lora
from peft_shop.conversion.deltas import LayerChange
from peft_shop.conversion.layers import Adapted
from peft_shop.conversion.lora import LoraParts, target_modules
from peft_shop.conversion.ranks import Request
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.conversion.report import LayerReport

LAWS = settings(max_examples=25, deadline=None)


def matrix(rows: int, columns: int, rank: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(columns, rank, generator=generator)).Q
    return left @ torch.diag(torch.linspace(1, 3, rank)) @ right.T


def change(delta: Any, kind: str = "linear", noise: float = 0.0) -> LayerChange:
    return LayerChange("layer", kind, {}, delta, (), 1.0, noise, 0.0)


def made(
    folder: Path,
    request: Request,
    one: LayerChange,
    adapted: Adapted | None = None,
    *,
    must_be_peft: bool = False,
) -> LayerReport:
    parts = LoraParts(folder, request, "float32", adapted is not None, must_be_peft)
    parts.add(one, adapted, way="generic")
    (layer,) = parts.layers
    return layer


def lost(delta: Any, rank: int) -> float:
    """What the best matrix of a rank leaves out, relative to the whole."""
    values = torch.linalg.svdvals(delta.double())
    return float(values[rank:].norm() / values.norm())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("factors")


@LAWS
@given(
    st.tuples(st.integers(3, 20), st.integers(3, 20)),
    st.integers(1, 8),
    st.builds(
        Request,
        st.sampled_from(["auto", "share", "rank"]),
        st.integers(1, 24),
        st.sampled_from([0.0, 0.2, 0.5, 0.9]),
        st.sampled_from([None, 1, 4]),
    ),
)
def test_a_layer_gets_the_least_rank_that_loses_no_more_than_allowed(
    scratch: Path, shape: tuple[int, int], rank: int, request_: Request
) -> None:
    kind, most, share = request_.kind, request_.rank, request_.allowed
    side = min(shape)
    rank = min(rank, side)
    delta = matrix(*shape, rank, seed=shape[0] * 31 + shape[1])
    if kind == "rank" and most > side:
        with pytest.raises(ConversionError, match="no rank above"):
            made(scratch, request_, change(delta))
        return
    layer = made(scratch, request_, change(delta))
    allowed = {"auto": 1e-4, "share": max(share, 1e-4), "rank": 0.0}[kind]
    least = next((k for k in range(side + 1) if lost(delta, k) <= allowed), side)
    assert layer.rank == (most if kind == "rank" else min(least, most, side))
    assert layer.error == pytest.approx(lost(delta, layer.rank), abs=1e-4)
    # what would lose nothing is told besides
    assert layer.full_rank == rank


def test_rounding_beyond_the_configured_rank_raises_no_rank(scratch: Path) -> None:
    delta = matrix(12, 16, 3, 1)
    rounded = delta + 3e-5 * matrix(12, 16, 12, 2) * float(delta.norm()) / 8
    assert 1e-5 < lost(rounded, 3) < 1e-4
    assert made(scratch, Request("auto", 512, 0.0, 3), change(rounded)).rank == 3
    assert made(scratch, Request("auto", 512, 0.0, 3), change(rounded)).full_rank == 3
    assert made(scratch, Request("auto", 512, 0.0, None), change(rounded)).rank > 3
    assert made(scratch, Request("auto", 512, 0.0, 2), change(rounded)).rank > 3
    # a share and a rank that somebody states are taken at their word
    assert made(scratch, Request("rank", 6, 0.0, 3), change(rounded)).rank == 6
    assert made(scratch, Request("share", 512, 0.0, 3), change(rounded)).rank > 3
    # what may be rounding by the layer's own numbers counts as nothing
    assert made(scratch, Request("auto", 512, 0.0, None), change(rounded, noise=1e-4)).rank == 3


# --- peft's own conversion ---


def adapted(config: Any, rows: int = 10, columns: int = 14, kind: str = "linear") -> Adapted:
    torch.manual_seed(0)
    layer = nn.Embedding(columns, rows) if kind == "embedding" else nn.Linear(columns, rows)
    tree = nn.Module()
    tree.add_module("layer", layer)
    tree.forward = layer.forward  # type: ignore[method-assign] # peft calls nothing here
    model = peft.get_peft_model(tree, config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape))
    return Adapted("layer", model.base_model.model.layer.eval(), model, {})


@pytest.fixture
def lokr() -> tuple[Adapted, LayerChange]:
    one = adapted(peft.LoKrConfig(r=2, target_modules=["layer"], init_weights=False))
    return one, change(one.layer.get_delta_weight("default").detach())


def test_peft_converts_where_it_may(lokr: tuple[Adapted, LayerChange], tmp_path: Path) -> None:
    one, delta = lokr
    layer = made(tmp_path, Request("rank", 10, 0.0, None), delta, one)
    assert (layer.way, layer.rank, layer.full_rank) == ("peft", 10, 10)
    assert layer.error == pytest.approx(0.0, abs=1e-4)
    # a rank that loses something is no full rank
    low = made(tmp_path, Request("rank", 1, 0.0, None), delta, one)
    assert (low.way, low.rank, low.full_rank) == ("peft", 1, None)
    assert low.error == pytest.approx(lost(delta.delta, 1), abs=1e-4)


def test_peft_is_left_where_it_cannot(lokr: tuple[Adapted, LayerChange], tmp_path: Path) -> None:
    one, delta = lokr
    share, unknown = Request("share", 512, 0.5, 4), Request("auto", 512, 0.0, None)
    capped = Request("auto", 2, 0.0, 4)
    for request in (share, unknown, capped):
        layer = made(tmp_path, request, delta, one)
        assert layer.way == "generic"
        with pytest.raises(ConversionError, match="whole rank"):
            made(tmp_path, request, delta, one, must_be_peft=True)
    # what it would lose beyond rounding is not left to it, unless it must be
    guess = Request("auto", 512, 0.0, 1)
    assert made(tmp_path, guess, delta, one).way == "generic"
    forced = made(tmp_path, guess, delta, one, must_be_peft=True)
    assert (forced.way, forced.rank, forced.full_rank) == ("peft", 1, None)


@pytest.mark.parametrize("kind", ["embedding", "convolution"])
def test_only_matrices_that_multiply_go_to_peft(
    lokr: tuple[Adapted, LayerChange], kind: str, tmp_path: Path
) -> None:
    one, delta = lokr
    other = change(delta.delta, kind)
    assert made(tmp_path, Request("rank", 4, 0.0, None), other, one).way == "generic"
    forced = made(tmp_path, Request("rank", 4, 0.0, None), other, one, must_be_peft=True)
    assert forced.way == "generic"


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_what_peft_refuses_goes_the_other_way(
    lokr: tuple[Adapted, LayerChange],
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, delta = lokr

    def refuses(*_: object, **__: object) -> None:
        raise error("not this layer")

    monkeypatch.setattr(lora, "convert_to_lora", refuses)
    assert made(tmp_path, Request("rank", 4, 0.0, None), delta, one).way == "generic"
    with pytest.raises(ConversionError, match="not this layer"):
        made(tmp_path, Request("rank", 4, 0.0, None), delta, one, must_be_peft=True)


@pytest.mark.parametrize("side", [1024, 1025])
def test_matrices_that_take_peft_too_long_go_the_other_way(
    lokr: tuple[Adapted, LayerChange], side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, delta = lokr
    monkeypatch.setattr(lora, "_PEFT_SIDE", 10 + 1024 - side)
    way = made(tmp_path, Request("rank", 4, 0.0, None), delta, one).way
    assert way == ("peft" if side == 1024 else "generic")
    forced = made(tmp_path, Request("rank", 4, 0.0, None), delta, one, must_be_peft=True)
    assert forced.way == "peft"


@LAWS
@given(st.integers(1, 8), st.integers(0, 8))
def test_trimming_leaves_the_product_and_no_zero(rank: int, zeros: int) -> None:
    right = torch.linalg.qr(torch.randn(12, 8, generator=torch.Generator().manual_seed(1))).Q.T
    values = torch.cat([torch.linspace(3, 1, rank), torch.zeros(8 - rank)])[: max(1, 8 - zeros)]
    a, b = right[: len(values)], torch.randn(9, len(values)) * values
    less_a, less_b = lora._trimmed(a, b)
    assert less_a.shape[0] == less_b.shape[1] == min(rank, len(values))
    assert torch.allclose(less_b @ less_a, b @ a, atol=1e-5)
    # rows that are no singular vectors are factors of another kind
    assert lora._trimmed(2 * a, b)[0].shape == a.shape


def test_a_change_of_nothing_keeps_one_row() -> None:
    a, b = lora._trimmed(torch.eye(4), torch.zeros(3, 4))
    assert (a.shape, b.shape) == ((1, 4), (3, 1))


# --- names ---


@LAWS
@given(
    st.lists(
        st.lists(st.sampled_from(["q", "v", "attn", "0", "1"]), min_size=1, max_size=3).map(
            ".".join
        ),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.data(),
)
def test_targets_name_the_adapted_layers_and_no_others(
    leaves: list[str], data: st.DataObject
) -> None:
    root = nn.Module()
    for name in leaves:
        at = root
        for part in name.split("."):
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at._modules[part]  # type: ignore[assignment] # never None
    every = [name for name, _ in root.named_modules() if name]
    names = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))

    def matched(targets: list[str]) -> set[str]:
        config = peft.LoraConfig(target_modules=targets)
        return {name for name in every if check_target_module_exists(config, name)}

    try:
        chosen = target_modules(root, names)
    except ConversionError:
        assert matched(names) != set(names)
    else:
        assert matched(chosen) == set(names)
        assert len(chosen) <= len(names)
        # the last part of a name stands for it wherever that names no other layer
        for name in names:
            end = name.rpartition(".")[2]
            assert (end in chosen) == (matched([end]) <= set(names))


def test_errors_are_relative_and_finite(scratch: Path) -> None:
    layer = made(scratch, Request("auto", 8, 0.0, None), change(torch.zeros(4, 5)))
    assert (layer.rank, layer.full_rank, layer.error) == (0, 0, 0.0)
    assert math.isfinite(layer.error)


# --- what is written ---


class Tree(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    """A model of one layer of each kind, the second of which is smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.small = nn.Linear(14, 10), nn.Linear(5, 4)
        self.convolution = nn.Conv2d(4, 6, 3)
        self.embedding = nn.Embedding(11, 7)


DELTAS = {
    "linear": (matrix(10, 14, 3, 1), ()),
    "small": (matrix(4, 5, 2, 2), ()),
    "convolution": (matrix(6, 36, 3, 3), (4, 3, 3)),
    "embedding": (matrix(7, 11, 2, 4), ()),
}


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION"])
@pytest.mark.parametrize(
    "names", [["linear", "small"], ["convolution", "embedding", "linear"], ["small"]]
)
def test_peft_reads_the_changes_that_were_written(
    names: list[str], task: str | None, tmp_path: Path
) -> None:
    parts = LoraParts(
        tmp_path / "scratch", Request("auto", 16, 0.0, None), "float32", by_peft=False
    )
    parts.scratch.mkdir()
    for name in names:
        kind = "linear" if name == "small" else name
        delta, kernel = DELTAS[name]
        parts.add(LayerChange(name, kind, {}, delta, kernel, 1.0, 0.0, 0.0), None, way="generic")
    base: Any = SimpleNamespace(skeleton=Tree, name="of mine")
    stated = {"task_type": task, "revision": "main"}
    source: Any = SimpleNamespace(config=stated)
    (tmp_path / "out").mkdir()
    parts.write(tmp_path / "out", source, base, SimpleNamespace(saved={}))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_bytes())
    assert (config["base_model_name_or_path"], config["revision"]) == ("of mine", "main")
    assert config["r"] == config["lora_alpha"] == max(2, *(2 + (n != "small") for n in names))
    assert sorted(config["target_modules"]) == sorted(names)
    # a model's class is told where no task tells it
    told = {"base_model_class": "Tree", "parent_library": Tree.__module__}
    assert config["auto_mapping"] == (told if task is None else None)
    if task is not None:
        config["task_type"] = None  # the tree has none of its methods
        (tmp_path / "out" / "adapter_config.json").write_text(json.dumps(config))
    loaded = peft.PeftModel.from_pretrained(Tree(), str(tmp_path / "out"))
    for name in names:
        read = getattr(loaded.base_model.model, name).get_delta_weight("default").detach()
        delta = DELTAS[name][0]
        expected = delta.T if name == "embedding" else delta.reshape(read.shape)
        assert torch.allclose(read, expected, atol=1e-4), name
    size = sum(w.numel() for key, w in loaded.state_dict().items() if "lora_" in key)
    assert parts.size() == 4 * size


@pytest.mark.parametrize("scale", ["alpha", ""])
def test_the_same_matrices_are_written_for_an_engine(scale: str, tmp_path: Path) -> None:
    parts = LoraParts(tmp_path, Request("auto", 16, 0.0, None), "float32", by_peft=False)
    for name in ("linear", "small"):
        delta, kernel = DELTAS[name]
        parts.add(
            LayerChange(name, "linear", {}, delta, kernel, 1.0, 0.0, 0.0), None, way="generic"
        )
    keys: Any = SimpleNamespace(ends=("down", "up", scale), key=lambda name: f"unet_{name}")
    parts.write_for_engine(tmp_path / "file.safetensors", keys)
    found = load_file(tmp_path / "file.safetensors")
    ends = {"down", "up", *([scale] if scale else [])}
    assert set(found) == {f"unet_{name}.{end}" for name in ("linear", "small") for end in ends}
    for name in ("linear", "small"):
        down, up = found[f"unet_{name}.down"], found[f"unet_{name}.up"]
        assert down.shape[0] == up.shape[1] == 3
        assert torch.allclose(up @ down, DELTAS[name][0], atol=1e-4)
        # kohya divides by the rank
        assert not scale or float(found[f"unet_{name}.alpha"]) == 3.0
