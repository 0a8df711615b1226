"""The bench on which one method is probed: configurations, wrapping, outputs, random weights."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoraConfig, PeftMixedModel, PeftModel, get_peft_model
from peft.config import PromptLearningConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType

from peft_shop.curate.probe.hosts import Host, language_host, layer_host
from peft_shop.curate.probe.judgement import last_line
from peft_shop.curate.probe.starting import started
from peft_shop.errors import ProbeError

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.catalog.features import LayerType
    from peft_shop.catalog.methods import Fidelity
    from peft_shop.curate.probe.setups import Setup

__all__ = [
    "Bench",
    "deviation",
    "forward",
    "logits",
    "randomise",
    "trainable",
    "wrapped_layers",
]

EFFECT: Final = 1e-2
"""Least relative change of the outputs that a randomised adapter must make."""


def forward(model: Any, host: Host, **extra: Any) -> Any:
    """Output of `model`, wrapped or not, for the host's inputs."""
    inputs = {**host.inputs, **extra}
    if "task_ids" in inputs:
        # a compiled model hides what it is
        if not isinstance(getattr(model, "_orig_mod", model), PeftModel | PeftMixedModel):
            del inputs["task_ids"]
        elif "labels" not in host.inputs:
            # peft passes task identifiers on for its task types only, not for plain models
            model = model.base_model
    return model(**inputs)


def logits(model: Any, host: Host, **extra: Any) -> Any:
    """Outputs of `model` in evaluation mode for the host's inputs, as float32, detached."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            # without labels: some methods add to the loss, and cannot once loaded for inference
            out = forward(model, host, labels=None, **extra).logits
    finally:
        model.train(was_training)
    length = host.inputs["input_ids"].shape[1] if "input_ids" in host.inputs else None
    if out.dim() == 3 and length is not None:
        out = out[:, -length:]  # without the positions of a prompt
    return out.detach().float()


def deviation(found: Any, expected: Any) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    scale = float(expected.abs().max())
    return float((found - expected).abs().max()) / (scale or 1.0)


def trainable(model: Any) -> dict[str, Any]:
    """Trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def randomise(
    model: Any,
    host: Host,
    *,
    seed: int = 1,
    least: float = EFFECT,
    adapter: str | None = None,
    required: bool = True,
) -> float:
    """Move every trainable weight of the adapter until it has a clear effect.

    Zero-initialised adapters prove nothing about merging, saving or converting.

    Args:
        model: the wrapped model.
        host: what to feed it.
        seed: of the noise.
        least: relative change of the outputs to aim at.
        adapter: only weights that carry this adapter's name, when several are trainable.
        required: whether an adapter without any effect is our mistake.

    Returns:
        Relative change of the outputs against those before.

    Raises:
        ProbeError: it is required, and no amount of noise gives the adapter an effect of 1 %.
    """
    before = logits(model, host)
    effect = 0.0
    named = trainable(model)
    # some methods keep their weights under no adapter's name: then only the active one's are there
    chosen = [w for name, w in named.items() if adapter in name.split(".")] or list(named.values())
    for trial in range(10):
        generator = torch.Generator().manual_seed(seed + 100 * trial)
        scale = 0.02 * 2**trial
        with torch.no_grad():
            for weight in chosen:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_((scale * noise).to(weight))
        effect = deviation(logits(model, host), before)
        if effect >= least:
            return effect
    if effect >= EFFECT or not required:
        return effect  # a gate among fixed experts, for example, can do no more
    msg = f"randomised weights change the outputs by {effect:.1e} only"
    raise ProbeError(msg)


@dataclasses.dataclass
class Bench:
    """One method on the probe's models.

    Attributes:
        method: identifier of the method.
        setup: what it needs.
        folder: an empty folder for checkpoints.
        device: where the models live.
        overrides: configuration arguments of a variant.
        bias: whether the layers of its hosts have a bias.
        device_map: whether its language models say that a device map placed them.
        fidelity: what the room of that name measured; `None` until then, and where it failed.
    """

    method: str
    setup: Setup
    folder: Path
    device: str = "cpu"
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    bias: bool = False
    device_map: bool = False
    fidelity: Fidelity | None = None

    def on(self, *, bias: bool = False, device_map: bool = False) -> Bench:
        """The same bench with other hosts, and a folder of its own."""
        kind = f"{'biased' if bias else 'plain'}{'_mapped' if device_map else ''}"
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(self, folder=folder, bias=bias, device_map=device_map)

    @cached_property
    def peft_type(self) -> PeftType:
        """The member of peft's enumeration."""
        return PeftType(self.method.upper())

    @cached_property
    def config_class(self) -> Any:
        """The method's configuration class."""
        return PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type]

    @cached_property
    def tuner_class(self) -> Any:
        """The method's model or prompt encoder class."""
        return PEFT_TYPE_TO_TUNER_MAPPING[self.peft_type]

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the configuration fields."""
        return frozenset(item.name for item in dataclasses.fields(self.config_class))

    @cached_property
    def prompt(self) -> bool:
        """Whether it learns virtual tokens instead of adapting layers."""
        return issubclass(self.config_class, PromptLearningConfig)

    @cached_property
    def is_tuner(self) -> bool:
        """Whether its model is one of peft's tuners, with merging and the like."""
        return inspect.isclass(self.tuner_class) and issubclass(self.tuner_class, BaseTuner)

    def _plain(self, extra: dict[str, Any]) -> dict[str, Any]:
        args = {**self.setup.args, **extra, **self.overrides}
        return {name: value for name, value in args.items() if value is not None}

    def config(self, **extra: Any) -> Any:
        """A fresh configuration (peft changes the one it is given).

        Raises:
            ProbeError: the configuration class refuses the arguments.
        """
        args = self._plain(extra)
        unknown = sorted(set(args) - self.fields)
        if unknown:
            msg = f"{self.method}: {self.config_class.__name__} has no {', '.join(unknown)}"
            raise ProbeError(msg)
        try:
            return self.config_class(**args)
        except (TypeError, ValueError, ImportError) as error:
            msg = f"{self.method}: {last_line(error, limit=300)}"
            raise ProbeError(msg) from error

    def layer_host(self, layer: LayerType, *, shapes: str = "both", inputs: int = 3) -> Host:
        """A host with layers of one type."""
        host = layer_host(
            layer,
            shapes=shapes,
            bias=self.bias,
            inputs=inputs,
            device=self.device,
            task_ids=self.setup.task_ids,
        )
        if "alora_invocation_tokens" in self.overrides:
            # without token identifiers peft cannot find where the adapter begins to act: say it
            size = next(iter(host.inputs.values())).shape[0]
            host.inputs["alora_offsets"] = [100] * size
        return host

    def layer_config(self, layer: LayerType, host: Host) -> Any:
        """Configuration that targets the host's layers."""
        extra: dict[str, Any] = dict(self.setup.layer_args.get(layer, {}))
        if layer == "transformers_conv1d" and "fan_in_fan_out" in self.fields:
            extra.setdefault("fan_in_fan_out", True)
        if self.setup.experts:
            return self.config(adapters=self._experts(host, extra))
        if host.targets_are_parameters:
            extra |= {"target_parameters": list(host.targets), "target_modules": []}
        else:
            extra["target_modules"] = list(host.targets)
        return self.config(**extra)

    def language_host(self, *, dtype: Any = torch.float32, tie: bool = False) -> Host:
        """The tiny Llama with this method's targets."""
        return language_host(
            device=self.device,
            dtype=dtype,
            task_ids=self.setup.task_ids,
            targets=self.setup.targets,
            tie=tie,
            bias=self.bias,
            device_map=self.device_map,
        )

    def language_config(self, host: Host, **extra: Any) -> Any:
        """Configuration for the tiny Llama."""
        args: dict[str, Any] = {"task_type": "CAUSAL_LM", **self.setup.language_args, **extra}
        if "hidden_size" in self.setup.args:
            args["hidden_size"] = host.model.config.hidden_size
        if self.setup.experts:
            args["adapters"] = self._experts(host, {})
        elif self.setup.targets and "target_modules" in self.fields:
            args.setdefault("target_modules", list(host.targets))
        return self.config(**args)

    def wrap(self, host: Host, config: Any, *, seed: int = 2) -> Any:
        """The host's model with a new adapter, in training mode."""
        torch.manual_seed(seed)
        return started(host, config, get_peft_model).train()

    def language_model(self, host: Host, **extra: Any) -> Any:
        """The tiny Llama with a new adapter."""
        return self.wrap(host, self.language_config(host, **extra))

    def _experts(self, host: Host, extra: dict[str, Any]) -> dict[str, str]:
        """Folders of two randomised LoRA adapters for the host's targets."""
        folders = {}
        for number in range(2):
            folder = self.folder / f"expert{number}"
            plain = _float_copy(host)
            config = LoraConfig(
                r=4,
                target_modules=None if host.targets_are_parameters else list(host.targets),
                target_parameters=list(host.targets) if host.targets_are_parameters else None,
                fan_in_fan_out=bool(extra.get("fan_in_fan_out", False)),
                task_type="CAUSAL_LM" if "labels" in host.inputs else None,
            )
            torch.manual_seed(number)
            expert = get_peft_model(plain.model, config)
            randomise(expert, plain, seed=10 + number, least=0.3)
            expert.save_pretrained(str(folder))
            folders[str(number)] = str(folder)
        return folders


def _float_copy(host: Host) -> Host:
    """A copy of the host that shares nothing, not quantized."""
    if "labels" in host.inputs:
        config = host.model.config
        model = language_host(
            width=config.hidden_size, other=config.intermediate_size, bias=config.attention_bias
        ).model
    else:
        model = copy.deepcopy(host.model)
    return dataclasses.replace(host, model=model)


def wrapped_layers(model: Any) -> list[Any]:
    """Tuner layers inside a wrapped model."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
