"""Wrapping for initialisations that look at data first: CorDA, EVA, LoRA-GA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft import initialize_lora_eva_weights
from peft.tuners.lora import preprocess_loraga
from peft.tuners.lora.corda import preprocess_corda

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.curate.probe.hosts import Host

__all__ = ["started"]


def started(host: Host, config: Any, wrap: Callable[[Any, Any], Any]) -> Any:
    """`wrap(host.model, config)`, with the host's inputs shown to a data-driven initialisation."""
    kind = getattr(config, "init_lora_weights", None)

    def run() -> Any:
        return host.model(**host.inputs)

    def run_singly() -> None:
        first = next(iter(host.inputs.values()))
        if first.is_floating_point() and first.dim() == 2:
            run()  # rows of one sample
            return
        size = first.shape[0]
        for number in range(size):  # CorDA's hook takes batches of one only
            host.model(**{name: value[number : number + 1] for name, value in host.inputs.items()})

    if kind == "corda":
        preprocess_corda(host.model, config, run_model=run_singly)
    elif kind == "lora_ga":

        def step() -> None:
            out = run()
            (out.loss if "labels" in host.inputs else out.logits.pow(2).mean()).backward()

        preprocess_loraga(host.model, config, step)
        host.model.zero_grad()
    model = wrap(host.model, config)
    if kind == "eva":
        initialize_lora_eva_weights(
            model,
            [host.inputs],
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=_rows,
            show_progress_bar=False,
        )
    return model


def _rows(layer_input: Any, _model_input: Any, _layer_name: str) -> Any:
    """Inputs of a layer as one matrix: all tokens count."""
    inputs = layer_input[0] if isinstance(layer_input, tuple | list) else layer_input
    if not inputs.is_floating_point():
        # token identifiers: as one row a token, or peft waits for more rows without end
        return inputs.reshape(-1, 1).float()
    return inputs.reshape(-1, inputs.shape[-1])
