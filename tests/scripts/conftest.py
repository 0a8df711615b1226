"""Tiny models on disk, data sets without a network, and a way to run what a script says."""

from __future__ import annotations

import importlib.machinery
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def run_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, list[dict[str, Any]]], dict[str, Any]]:
    """Runs a script in an empty folder with a data set of these rows; gives its names."""

    def run(source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        # a `datasets` that needs no network
        module = types.ModuleType("datasets")
        module.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
        module.load_dataset = lambda _, split=None: rows if split else {"train": rows}  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {"__name__": "__main__"}
        with warnings.catch_warnings():
            # peft, transformers and torch warn about one another; the scripts cannot help it
            warnings.simplefilter("ignore")
            exec(compile(source, "script", "exec"), names)  # noqa: S102 - running it is the test
        return names

    return run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models as small as these are slower on several threads."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    if torch:
        torch.set_num_threads(1)
    yield
    if torch and before:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama as small as the sample of recipes allows."""
    return make_language_model(tmp_path_factory.mktemp("llama"), width=64, layers=1)


@pytest.fixture(scope="module")
def deep_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama that is deep and wide enough for every recipe."""
    return make_language_model(tmp_path_factory.mktemp("deep"), width=256, layers=28)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama of two layers."""
    return make_language_model(tmp_path_factory.mktemp("two"), width=64, layers=2)


def make_language_model(folder: Path, *, width: int, layers: int) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    unknown, end = "<unk>", "</s>"
    words = [unknown, end, "Question", "Answer", ":", "what", "is", "1", "2", "+", "sum"]
    words += ["You", "are", "a", "helpful", "math", "assistant", ".", ",", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        eos_token=end,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random FLUX.2-klein pipeline with the module names of the real one."""
    diffusers = pytest.importorskip("diffusers", minversion="0.40")
    import torch
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("flux")
    end = "<|endoftext|>"
    tokens = [end, *map(chr, range(97, 123))]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], unk_token=end
    )
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=16,
        )
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(8,), latent_channels=4, norm_num_groups=4, **blocks
        ),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(16, 16, 16, 16),
            guidance_embeds=False,
        ),
    ).save_pretrained(folder)
    return folder
