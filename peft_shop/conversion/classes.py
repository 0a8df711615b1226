"""Which class a base model is built as: the one that it names, or one with an adapter's head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import transformers
from transformers.models.auto import modeling_auto

from peft_shop.conversion.headers import json_object
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["BaseClass", "base_classes", "read_config"]

_HEADED: Final = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
}
"""Tasks for which another class than the base's own is trained, by the tables of classes."""
_GENERATING: Final = {
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}
_OWN: Final = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""Entries of `auto_map`, where a model brings code of its own."""
_DEEPEST: Final = 2000
"""Largest number of layers or experts that is believed: building a million would take hours."""
_COUNTS: Final = (
    "decoder_layers",
    "depth",
    "encoder_layers",
    "layers_per_block",
    "n_layer",
    "n_layers",
    "n_routed_experts",
    "num_decoder_layers",
    "num_encoder_layers",
    "num_experts",
    "num_hidden_layers",
    "num_layers",
    "num_local_experts",
    "num_single_layers",
)


@dataclass(frozen=True, slots=True)
class BaseClass:
    """A class that a base can be built as.

    Attributes:
        config: for it; of diffusers, the plain object of `config.json`.
        builder: the class.
        options: keywords for building and loading, beyond the usual.
    """

    config: Any
    builder: Any
    options: Mapping[str, Any]


def read_config(folder: Path) -> dict[str, Any]:
    """The object in `config.json` of a model's folder.

    Raises:
        ConversionError: there is none, or one that no honest model has.
    """
    file = folder / "config.json"
    try:
        document = json_object(file, "a model's configuration")
    except FileNotFoundError as error:
        hint = (
            "is it an adapter's folder?"
            if (folder / "adapter_config.json").is_file()
            else "name the folder of a model; of a pipeline, the model's own, such as unet"
        )
        raise ConversionError(f"base {folder}: there is no config.json; {hint}") from error
    for place, value in _layer_counts(document):
        if isinstance(value, int) and not -1 <= value <= _DEEPEST:
            raise ConversionError(
                f"{file}: {place}: {value:.3g}, where no model has more than {_DEEPEST}"
            )
    return document


def _layer_counts(document: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in _COUNTS:
            yield f"{place}{name}", value
        elif isinstance(value, dict):
            yield from _layer_counts(value, f"{place}{name}.")


def base_classes(
    folder: Path, document: Mapping[str, Any], task_type: str | None, *, trust_remote_code: bool
) -> Iterator[BaseClass]:
    """Classes that the base may be built as, the likeliest first.

    Raises:
        ConversionError: transformers or diffusers does not know the model, or it needs code that
            comes with it.
    """
    if "_class_name" in document:
        yield BaseClass(document, _diffusers_class(document["_class_name"]), {})
        return
    config = _config(folder, document, trust_remote_code=trust_remote_code)
    own = (getattr(config, "auto_map", None) or {}) if trust_remote_code else {}
    auto = _OWN.get(task_type or "", "AutoModelForCausalLM")
    if auto in own or "AutoModel" in own:
        name = auto if auto in own else "AutoModel"
        yield BaseClass(config, getattr(transformers, name), {"trust_remote_code": True})
        return
    names = dict.fromkeys(_names(config, task_type))
    known = [kind for kind in map(_model_class, names) if kind is not None]
    if not known:
        raise ConversionError(
            f"base {folder}: the installed transformers {transformers.__version__} has no class "
            f"for {', '.join(map(str, names)) or getattr(config, 'model_type', '') or 'it'}"
            + _remote(document)
        )
    for kind in known:
        yield BaseClass(config, kind, {})


def _model_class(name: object) -> Any:
    """The class of models that has a name in transformers; `None` for anything else there."""
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    is_one = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    return kind if is_one else None


def _names(config: Any, task_type: str | None) -> Iterator[str]:
    """Names of classes, the likeliest first."""
    listing = getattr(config, "architectures", None)
    stated = tuple(filter(None, listing)) if isinstance(listing, list) else ()
    kind = getattr(config, "model_type", None)

    def listed(table: str) -> Iterator[str]:
        name = getattr(modeling_auto, table, {}).get(kind)
        yield from (name if isinstance(name, tuple) else (name,)) if name else ()

    headed = tuple(listed(_HEADED.get(task_type or "", "")))
    if task_type in _HEADED and not set(stated) & set(headed):
        # transformers writes the name of the class that was saved, which may have another head
        yield from headed
    yield from stated
    yield from headed
    yield from listed(_GENERATING.get(task_type or "", ""))
    for table in (*_GENERATING.values(), "MODEL_MAPPING_NAMES"):
        yield from listed(table)


def _config(folder: Path, document: Mapping[str, Any], *, trust_remote_code: bool) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        told = _remote(document) if not trust_remote_code else ""
        raise ConversionError(f"{folder / 'config.json'}: {told or text}") from error


def _remote(document: Mapping[str, Any]) -> str:
    """What to do about a model that brings its code."""
    own = document.get("auto_map")
    if not isinstance(own, dict) or not own:
        return ""
    files = {str(name).rpartition("--")[2].partition(".")[0] for name in own.values()}
    names = ", ".join(f"{name}.py" for name in sorted(files))
    return (
        f"the model brings code of its own ({names}), which is not run unless you say so: read it, "
        "then add --trust-remote-code (in Python: trust_remote_code=True)"
    )


def _diffusers_class(name: object) -> Any:
    try:
        import diffusers  # noqa: PLC0415 - only for image models
    except ImportError as error:
        raise ConversionError(
            f"the base is a {name}, which needs diffusers; run: pip install diffusers"
        ) from error
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, diffusers.ModelMixin):
        raise ConversionError(
            f"the installed diffusers {diffusers.__version__} has no model {name}"
        )
    return kind
