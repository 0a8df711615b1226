"""Adapted layers, one at a time: a tree with the base's names that holds single real weights.

peft finds its targets by name and needs no more of a model than the modules it adapts. So a tree
of empty modules with one real layer stands for the whole model, the adapter is put on that, and
memory holds one layer. Methods whose layers share something get a tree with all their layers, where
a stand-in without memory takes the place of every weight until its turn comes.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import (
    PeftModel,
    TrainableTokensConfig,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_shop.conversion.plan import SHARED, TOKENS
from peft_shop.conversion.reading import PREFIX
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.reading import AdapterFolder

__all__ = ["Adapted", "adapted_layers", "kind_of", "module_weights", "release"]

_READS_ALL: Final = frozenset(("frod",))
"""Of those, the ones that read the weights of all layers before they make the first adapter."""


@dataclass
class Adapted:
    """One layer of the base with its adapter, in fp32 and evaluation mode.

    Attributes:
        name: of the module in the base.
        layer: peft's layer; its base layer holds the weights as the adapter needs them, which are
            not always those of the base.
        model: the tree that holds it, for peft's own conversion.
        base: weights of the base's module by their names within it, fp32, never changed.
    """

    name: str
    layer: Any
    model: Any
    base: dict[str, Any]

    @property
    def module(self) -> Any:
        """The module inside peft's layer."""
        return self.layer.get_base_layer()


def kind_of(module: Any) -> Any:
    """What a module of the base is, in the words of a report."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, Conv1D):
        return "conv1d"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "convolution"
    return "other"


# --- one layer after the other ---


def adapted_layers(source: AdapterFolder, base: BaseWeights, found: Plan) -> Iterator[Adapted]:
    """Every adapted layer, in the model's order; the last one is gone when the next one comes."""
    if source.adapter.method in SHARED:
        yield from _together(source, base, found)
    else:
        for name in found.targets:
            adapted = _alone(source, base, name)
            yield adapted
            _release(adapted)
    for name in found.tokens:
        adapted = _token_rows(source, base, name)
        yield adapted
        _release(adapted)


def _release(adapted: Adapted) -> None:
    release(adapted.model)
    adapted.base.clear()


def release(root: Any) -> None:
    """Frees a module's tensors now: peft's refer to themselves, and would wait for a collection."""
    for module in root.modules():
        for table in (module._parameters, module._buffers):  # noqa: SLF001 - nobody uses it again
            table.update(dict.fromkeys(table))


def _alone(source: AdapterFolder, base: BaseWeights, name: str) -> Adapted:
    weights = module_weights(base, name)
    config = source.peft_config()
    _narrow(config, name, base.skeleton().get_submodule(name))
    model = _wrapped(_tree(base, {name: weights}), config, source)
    _fill(model, source, source.tensors(source.under(name)))
    return _adapted(model, name, weights)


def _together(source: AdapterFolder, base: BaseWeights, found: Plan) -> Iterator[Adapted]:
    reads_all = source.adapter.method in _READS_ALL
    held = {
        name: module_weights(base, name) if reads_all else _stand_ins(base, name)
        for name in found.targets
    }
    model = _wrapped(_tree(base, held), source.peft_config(), source)
    keys = [key for name in found.targets for key in source.under(name)]
    _fill(model, source, source.tensors([*keys, *found.shared]))
    for name in found.targets:
        weights = module_weights(base, name)
        layer = model.base_model.model.get_submodule(name)
        if not reads_all:
            _put(layer.get_base_layer(), weights)
        yield _adapted(model, name, weights)
        if not reads_all:
            _put(layer.get_base_layer(), _stand_ins(base, name))


def _token_rows(source: AdapterFolder, base: BaseWeights, name: str) -> Adapted:
    """Rows of an embedding that LoRA trained beside its matrices."""
    keys = source.under(name)
    tensors = {key.replace(TOKENS, ""): tensor for key, tensor in source.tensors(keys).items()}
    listed = source.config["trainable_token_indices"]
    if isinstance(listed, dict):
        last = name.rpartition(".")[2]
        listed = next(value for key, value in listed.items() if key.rpartition(".")[2] == last)
    weights = module_weights(base, name)
    config = TrainableTokensConfig(
        token_indices=list(listed), target_modules=[name], inference_mode=True
    )
    model = _wrapped(_tree(base, {name: weights}), config, source)
    _fill(model, source, tensors)
    return _adapted(model, name, weights)


def _adapted(model: Any, name: str, weights: dict[str, Any]) -> Adapted:
    layer = model.base_model.model.get_submodule(name)
    if not isinstance(layer, BaseTunerLayer):
        raise ConversionError(
            f"{name}: peft wraps it in a {type(layer).__name__}, which is no adapted layer"
        )
    return Adapted(name, layer, model, weights)


def _narrow(config: Any, name: str, module: Any) -> None:
    """Leaves out what is about other layers: peft looks for all that a configuration names."""
    held = {one for one, _ in module.named_parameters(recurse=False)}
    named = getattr(config, "target_parameters", None) or ()
    if named:
        here = [one for one in named if one.rpartition(".")[2] in held]
        here = [one for one in here if f".{name}".endswith(f".{one}".rpartition(".")[0])]
        config.target_parameters = here or None
        config.target_modules = [] if here else config.target_modules
    pattern = getattr(config, "rank_pattern", None)
    if pattern and str(config.peft_type).endswith("ADALORA"):
        config.rank_pattern = {
            key: value
            for key, value in pattern.items()
            if f".{name}." in f".{key.removeprefix(PREFIX)}." or f".{name}." in f".{key}."
        }


def module_weights(base: BaseWeights, name: str) -> dict[str, Any]:
    """Parameters and buffers of one module in fp32, by their names within it."""
    module = base.skeleton().get_submodule(name)
    names = [one for one, _ in module.named_parameters(remove_duplicate=False)]
    names += [one for one, _ in module.named_buffers() if one in module.state_dict()]
    return {one: base.weight(f"{name}.{one}").to(torch.float32).clone() for one in names}


def _stand_ins(base: BaseWeights, name: str) -> dict[str, Any]:
    """Zeros of the right shapes that take no memory."""
    module = base.skeleton().get_submodule(name)
    return {
        one: torch.zeros(()).expand(weight.shape)
        for one, weight in module.named_parameters(remove_duplicate=False)
    }


def _tree(base: BaseWeights, held: Mapping[str, Mapping[str, Any]]) -> Any:
    """Empty modules with the base's names, and in them those of `held` with their weights."""
    skeleton = base.skeleton()
    root = nn.Module()
    # without a model_type: peft would look for transformers' conversions between its versions
    root.config = {"model_type": "custom", "tie_word_embeddings": False}
    for name, weights in held.items():
        *parents, last = name.split(".")
        here = root
        for parent in parents:
            if parent not in dict(here.named_children()):
                here.add_module(parent, nn.Module())
            here = here.get_submodule(parent)
        leaf = copy.deepcopy(skeleton.get_submodule(name)).eval()
        _put(leaf, weights)
        here.add_module(last, leaf)
    return root


def _put(module: Any, weights: Mapping[str, Any]) -> None:
    """Gives a module its weights, whatever it held before."""
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path) if path else module
        if last in owner._parameters:  # noqa: SLF001 - the device changes, so no copy_
            owner._parameters[last] = nn.Parameter(  # noqa: SLF001 - as above
                weight.clone()
                if weight.numel() and weight.stride() != (0,) * weight.dim()
                else weight,
                requires_grad=False,
            )
        else:
            owner._buffers[last] = weight.clone()  # noqa: SLF001 - as above


def _wrapped(tree: Any, config: Any, source: AdapterFolder) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the tree, which is no model of anyone's
        try:
            torch.manual_seed(0)  # what a file does not hold must not differ from call to call
            return PeftModel(tree, config, autocast_adapter_dtype=False).eval()
        except (ValueError, TypeError, RuntimeError, NotImplementedError, ImportError) as error:
            raise ConversionError(
                f"{source.folder}: peft cannot put this adapter on the base: {error}"
            ) from error


def _fill(model: Any, source: AdapterFolder, tensors: dict[str, Any]) -> None:
    """Loads the adapter's tensors; every one must have its place."""
    whole = [key for key, tensor in tensors.items() if not tensor.is_floating_point()]
    if whole:
        places = get_peft_model_state_dict(model, save_embedding_layers=False)
        odd = [key for key in whole if key in places and places[key].is_floating_point()]
        if odd:
            raise ConversionError(
                f"{source.weights}: {odd[0]} holds whole numbers ({tensors[odd[0]].dtype}), where "
                "peft has fractions: it was quantized or damaged; save the adapter again in fp32"
            )
    floats = {
        key: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for key, tensor in tensors.items()
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as when it was wrapped
            done = set_peft_model_state_dict(model, floats)
    except (RuntimeError, KeyError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConversionError(
            f"{source.weights}: does not fit the base: {text}; is this the base that the adapter "
            "was trained on?"
        ) from error
    if done.unexpected_keys:
        raise ConversionError(
            f"{source.weights}: {done.unexpected_keys[0]} has no place in the layer that peft "
            f"{source.config.get('peft_version') or ''} makes; was the file changed?"
        )
