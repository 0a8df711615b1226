"""What the Copy button of the page gives is a configuration that peft takes, for every run."""

from __future__ import annotations

import copy
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog
from peft_shop.show.site.details import configurations
from peft_shop.upstream.configs import config_from_dict

if TYPE_CHECKING:
    from torch import nn

pytestmark = pytest.mark.slow
WIDTH = 256
FETCHED = frozenset({"shadow/flux2-klein-explicit"})
"""Recipes whose adapter is built from another model, which peft looks up on the hub."""


def language_model() -> nn.Module:
    """As deep as the measured one, which recipes name layers of, with its vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 28}
    return LlamaForCausalLM(LlamaConfig(vocab_size=128_256, num_attention_heads=4, **shape))


def image_model() -> nn.Module:
    diffusers = pytest.importorskip("diffusers", minversion="0.40")
    model: nn.Module = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=5,
        num_single_layers=5,
        attention_head_dim=128,
        num_attention_heads=4,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(32, 32, 32, 32),
        guidance_embeds=False,
    )
    return model


@pytest.mark.filterwarnings("ignore")  # what libraries say among themselves
@pytest.mark.parametrize(
    ("benchmark", "make"), [("metamathqa", language_model), ("image_gen", image_model)]
)
def test_every_copied_configuration_wraps_a_model(benchmark: str, make: Any) -> None:
    import peft

    catalog = load_catalog()
    base = make()
    failed = {}
    wrapped = 0
    details = configurations(catalog, catalog.benchmark_by_id[benchmark])
    for name, one in details.items():
        if one["config"] is None or name in FETCHED:
            continue
        copied = json.loads(json.dumps(one["config"], indent=2))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = peft.get_peft_model(copy.deepcopy(base), config_from_dict(copied))
        except Exception as error:  # noqa: BLE001 - all failures are told at once
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        assert any(weight.requires_grad for weight in model.parameters()), name
        wrapped += 1
    assert failed == {}
    assert wrapped > 25
