"""Exact ranks and wrong conversions of the catalog, measured with the installed peft."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog
from peft_shop.serve.adapter import Adapter
from peft_shop.serve.ranks import exact_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")
torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")

CATALOG = load_catalog()
EXACT = {
    rule.method: rule
    for rule in CATALOG.conversions
    if rule.verdict == "exact" and rule.way == "convert"
}
UPPER = {"fourierft", "waveft"}
"""Frequencies that share rows or columns make the rank lower than the rule, which stays exact."""
GRID: dict[str, list[dict[str, Any]]] = {
    "lora": [{"r": 3}, {"r": 8, "use_rslora": True}, {"r": 5, "lora_alpha": 20}],
    "loha": [{"r": 2}, {"r": 3}, {"r": 5}],
    "vera": [{"r": 3}, {"r": 8}],
    "vblora": [
        {"r": 4, "num_vectors": 16, "vector_length": 8},
        {"r": 6, "num_vectors": 24, "vector_length": 4},
    ],
    "delora": [{"r": 3}, {"r": 8}],
    "tinylora": [{"r": 2}, {"r": 5}],
    "unilora": [{"r": 3}, {"r": 8}],
    "miss": [{"r": 4}, {"r": 8}, {"r": 8, "init_weights": "mini", "mini_r": 8}],
    "psoft": [{"r": 3}, {"r": 8}],
    "gralora": [
        {"r": 4, "gralora_k": 2},
        {"r": 8, "gralora_k": 4},
        {"r": 4, "gralora_k": 2, "hybrid_r": 2},
    ],
    "fourierft": [{"n_frequency": 3}, {"n_frequency": 12}],
    "waveft": [{"n_frequency": 3}, {"n_frequency": 12}],
}
EXTRACTED: dict[str, list[dict[str, Any]]] = {
    "adalora": [{"init_r": 3, "total_step": 9, "tinit": 1, "tfinal": 1}],
    "deft": [{"r": 4}, {"r": 5, "para": True}],
    "hra": [{"r": 4}],
    "peanut": [{"r": 5}],
    "pvera": [{"r": 4}],
    "lora": [
        {"r": 3, "init_lora_weights": "pissa"},
        {"r": 4, "init_lora_weights": "olora"},
        {"r": 4, "kasa_config": {"gamma": 1e-3}},
        {"r": 4, "rank_pattern": {"layer": 7}},
    ],
}
"""What peft does not convert, or wrongly; the probe's grid has the data-driven starts too."""
SHAPES = [(48, 40), (40, 48), (48, 48)]
CASES = [
    (method, config, shape)
    for method, found in GRID.items()
    for config in found
    for shape in SHAPES
]


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of converting LoRA to LoRA
        yield
    torch.set_num_threads(threads)


class Host(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One linear layer, so that the identity shows its weight."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(*shape, bias=False)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def randomised(method: str, config: dict[str, Any], shape: tuple[int, int]) -> tuple[Any, Any]:
    """A wrapped layer with a random adapter, and the base's weight as it was before."""
    torch.manual_seed(0)
    host = Host(shape)
    weight = host.layer.weight.detach().clone()
    cls = getattr(peft, CATALOG.method_by_id[method].config_class)
    model = peft.get_peft_model(host, cls(target_modules=["layer"], **config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape).to(parameter))
    return model.eval(), weight


def difference(model: Any, weight: Any, inputs: int) -> Any:
    """What the adapter adds to the weight, seen from outside, (out, in)."""
    with torch.no_grad():
        return model(torch.eye(inputs)).T - weight


def error_of_conversion(model: Any, wanted: Any, rank: int) -> float:
    """Relative error of peft's conversion at a rank."""
    _, state = peft.convert_to_lora(model, rank)
    (b,) = [tensor for name, tensor in state.items() if "lora_B" in name]
    (a,) = [tensor for name, tensor in state.items() if "lora_A" in name]
    return float((b.float() @ a.float() - wanted).norm() / wanted.norm())


def rank_by_rule(method: str, config: dict[str, Any]) -> int:
    found = exact_rank(CATALOG.conversions, Adapter("it", method, (), config))
    assert found is not None
    return found


def measured_rank(wanted: Any) -> int:
    values = torch.linalg.svdvals(wanted)
    return int((values > 1e-5 * values[0]).sum())


def test_every_exact_rule_is_measured() -> None:
    assert set(GRID) == set(EXACT)


@pytest.mark.parametrize(("method", "config", "shape"), CASES)
def test_a_conversion_is_exact_at_its_rank_and_not_below(
    method: str, config: dict[str, Any], shape: tuple[int, int]
) -> None:
    model, weight = randomised(method, config, shape)
    wanted = difference(model, weight, shape[0])
    rank = rank_by_rule(method, config)
    assert error_of_conversion(model, wanted, rank) < 1e-4
    found = measured_rank(wanted)
    assert found == rank or (method in UPPER and found < rank)


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize(
    ("method", "config"), [(method, one) for method, found in EXTRACTED.items() for one in found]
)
def test_what_peft_does_not_convert_has_the_rank_that_its_rule_tells(
    method: str, config: dict[str, Any], shape: tuple[int, int]
) -> None:
    model, weight = randomised(method, config, shape)
    assert measured_rank(difference(model, weight, shape[0])) == rank_by_rule(method, config)


def test_what_has_no_fixed_rank_has_no_exact_one() -> None:
    for method, config in (
        ("lora", {"r": 4, "use_dora": True}),
        ("miss", {"r": 4, "init_weights": "bat"}),
        ("oft", {}),
        ("lokr", {"r": 4}),
    ):
        assert exact_rank(CATALOG.conversions, Adapter("it", method, (), config)) is None


@pytest.mark.parametrize("method", sorted(GRID))
def test_defaults_are_those_of_peft(method: str) -> None:
    config = getattr(peft, CATALOG.method_by_id[method].config_class)()
    for field, value in EXACT[method].defaults.items():
        assert getattr(config, field) == value


@pytest.mark.parametrize(
    "rule",
    [
        # AdaMSS brings scikit-learn, which takes seconds to load
        pytest.param(one, marks=[pytest.mark.slow] if one.method == "adamss" else [])
        for one in CATALOG.conversions
        if one.verdict == "exact" and one.way == "extract"
    ],
    ids=lambda one: ":".join([one.method, *one.traits]),
)
def test_defaults_of_extraction_are_those_of_peft(rule: Any) -> None:
    cls = getattr(peft, CATALOG.method_by_id[rule.method].config_class)
    config = cls(total_step=9) if rule.method == "adalora" else cls()
    for field, value in rule.defaults.items():
        found = getattr(config, field)
        assert (len(found) if isinstance(found, list) else found) == value


def test_bat_has_full_rank() -> None:
    model, weight = randomised("miss", {"r": 8, "init_weights": "bat"}, (48, 40))
    values = torch.linalg.svdvals(difference(model, weight, 48))
    assert int((values > 1e-4 * values[0]).sum()) == 40


@pytest.mark.parametrize(
    ("config", "least"),
    [({"r": 8, "use_dora": True}, 0.01), ({"r": 8, "init_lora_weights": "pissa"}, 0.01)],
)
def test_what_is_called_wrong_is_wrong_at_any_rank(config: dict[str, Any], least: float) -> None:
    model, weight = randomised("lora", config, (48, 40))
    wanted = difference(model, weight, 48)
    assert error_of_conversion(model, wanted, 40) > least


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_saving_against_the_untrained_adapter_doubles_the_rank(start: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    host = Host((48, 40))
    weight = host.layer.weight.detach().clone()
    config = peft.LoraConfig(r=5, lora_alpha=10, init_lora_weights=start, target_modules=["layer"])
    model = peft.get_peft_model(host, config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    wanted = difference(model.eval(), weight, 48)
    model.save_pretrained(
        tmp_path / "end", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    torch.manual_seed(0)
    again = peft.PeftModel.from_pretrained(Host((48, 40)), tmp_path / "end").eval()
    assert again.peft_config["default"].r == 10
    found = difference(again, weight, 48)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4
    adapter = Adapter("it", "lora", (), {"r": 5, "lora_alpha": 10, "init_lora_weights": start})
    saved = adapter.saved_against_start()
    loaded = again.peft_config["default"]
    assert (saved.ranks[0], saved.alpha) == (loaded.r, loaded.lora_alpha)
