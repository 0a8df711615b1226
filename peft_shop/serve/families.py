"""Which model a name stands for: families of models by how their authors name them.

A name is weak evidence, and is asked only where the folder of an adapter holds nothing better: it
tells the class that models of such names have, not the class of the one at hand. Collected from
the names of models as their authors publish them, up to transformers 5.23 and diffusers 0.42.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from peft_shop.catalog.engines import BaseKind

__all__ = ["FAMILIES", "Family", "family_of"]


class Family(NamedTuple):
    """Models whose names match.

    Attributes:
        pattern: searched for in the last part of the name, in lower case, where a word begins.
        architecture: their class; `None` where it differs within the family.
        kinds: what they are.
    """

    pattern: str
    architecture: str | None
    kinds: tuple[BaseKind, ...]


_TEXT: Final[tuple[BaseKind, ...]] = ("decoder",)
_MIXED: Final[tuple[BaseKind, ...]] = ("decoder", "experts")
_HYBRID: Final[tuple[BaseKind, ...]] = ("decoder", "hybrid")
_HYBRID_MIXED: Final[tuple[BaseKind, ...]] = ("decoder", "hybrid", "experts")
_SEES: Final[tuple[BaseKind, ...]] = ("decoder", "multimodal")
_SEES_MIXED: Final[tuple[BaseKind, ...]] = ("decoder", "multimodal", "experts")
_PAIR: Final[tuple[BaseKind, ...]] = ("encoder_decoder",)
_READS: Final[tuple[BaseKind, ...]] = ("encoder",)
_LOOKS: Final[tuple[BaseKind, ...]] = ("vision",)
_HEARS: Final[tuple[BaseKind, ...]] = ("speech",)
_UNET: Final[tuple[BaseKind, ...]] = ("unet",)
_DIT: Final[tuple[BaseKind, ...]] = ("diffusion_transformer",)

FAMILIES: Final[tuple[Family, ...]] = tuple(
    Family(pattern, architecture, kinds)
    for pattern, architecture, kinds in (
        # names that hold another family's name come first
        (r"deepseek-r1-distill-llama", "LlamaForCausalLM", _TEXT),
        (r"deepseek-r1-distill-qwen", "Qwen2ForCausalLM", _TEXT),
        (r"llava-next|llava-v1\.6|llava-1\.6", "LlavaNextForConditionalGeneration", _SEES),
        (r"llava-onevision", "LlavaOnevisionForConditionalGeneration", _SEES),
        (r"llava|bakllava", "LlavaForConditionalGeneration", _SEES),
        (r"llama-?3\.2-(11|90)b-vision", "MllamaForConditionalGeneration", _SEES),
        (r"llama-?4", "Llama4ForConditionalGeneration", _SEES_MIXED),
        (r"llama-guard-4", "Llama4ForConditionalGeneration", _SEES_MIXED),
        (r"paligemma", "PaliGemmaForConditionalGeneration", _SEES),
        (r"t5gemma", "T5GemmaForConditionalGeneration", _PAIR),
        (r"recurrentgemma", "RecurrentGemmaForCausalLM", _HYBRID),
        (r"embeddinggemma", "Gemma3TextModel", _READS),
        (r"gemma-?4", "Gemma4ForConditionalGeneration", _SEES),
        (r"gemma-?3n", "Gemma3nForConditionalGeneration", _SEES),
        (r"gemma-?3-(1b|270m)", "Gemma3ForCausalLM", _TEXT),
        (r"gemma-?3|medgemma", "Gemma3ForConditionalGeneration", _SEES),
        (r"gemma-?2(?!b)", "Gemma2ForCausalLM", _TEXT),
        (r"gemma|codegemma", "GemmaForCausalLM", _TEXT),
        (
            r"qwen-?3\.5-.*a\d+b",
            "Qwen3_5MoeForConditionalGeneration",
            (*_HYBRID_MIXED, "multimodal"),
        ),
        (r"qwen-?3\.[56]", "Qwen3_5ForConditionalGeneration", (*_HYBRID, "multimodal")),
        (r"qwen-?3-next|qwen-?3-coder-next", "Qwen3NextForCausalLM", _HYBRID_MIXED),
        (r"qwen-?3-omni", "Qwen3OmniMoeForConditionalGeneration", _SEES_MIXED),
        (r"qwen-?3-vl-.*a\d+b", "Qwen3VLMoeForConditionalGeneration", _SEES_MIXED),
        (r"qwen-?3-vl", "Qwen3VLForConditionalGeneration", _SEES),
        (r"qwen-?3-.*a\d+(\.\d+)?b", "Qwen3MoeForCausalLM", _MIXED),
        (r"qwen-?3-embedding|qwen-?3-reranker|qwen-?3", "Qwen3ForCausalLM", _TEXT),
        (r"qwen-?2\.5-omni", "Qwen2_5OmniForConditionalGeneration", _SEES),
        (r"qwen-?2\.5-vl", "Qwen2_5_VLForConditionalGeneration", _SEES),
        (r"qwen-?2-vl", "Qwen2VLForConditionalGeneration", _SEES),
        (r"qwen-?2-audio", "Qwen2AudioForConditionalGeneration", _SEES),
        (r"qwen-image|qwenimage", "QwenImageTransformer2DModel", _DIT),
        (r"qwen(-?1\.5-moe|-?2-57b-a14b)", "Qwen2MoeForCausalLM", _MIXED),
        (r"qwen-?(2|1\.5)|qwq|codeqwen", "Qwen2ForCausalLM", _TEXT),
        (r"smollm3", "SmolLM3ForCausalLM", _TEXT),
        (r"smolvlm", "SmolVLMForConditionalGeneration", _SEES),
        (r"idefics2|idefics3", "Idefics3ForConditionalGeneration", _SEES),
        (r"pixtral", "PixtralForConditionalGeneration", _SEES),
        (
            r"mistral-small-3\.[1-9]|mistral-small-4|ministral-3",
            "Mistral3ForConditionalGeneration",
            _SEES,
        ),
        (r"falcon-?mamba", "FalconMambaForCausalLM", _HYBRID),
        (r"falcon-?h1", "FalconH1ForCausalLM", _HYBRID),
        (r"codestral-mamba|mamba-?2", "Mamba2ForCausalLM", _HYBRID),
        (r"mamba", "MambaForCausalLM", _HYBRID),
        (r"rwkv", "RwkvForCausalLM", _HYBRID),
        (r"zamba-?2", "Zamba2ForCausalLM", _HYBRID),
        (r"zamba", "ZambaForCausalLM", _HYBRID),
        (r"jamba", "JambaForCausalLM", _HYBRID_MIXED),
        (r"nemotron-?h|nvidia-nemotron-(nano|3)|nemotron-3", "NemotronHForCausalLM", _HYBRID),
        (r"granite-?4\.0", "GraniteMoeHybridForCausalLM", _HYBRID_MIXED),
        (r"lfm2", None, _HYBRID),
        (r"kimi-linear", "KimiLinearForCausalLM", _HYBRID_MIXED),
        (r"mixtral", "MixtralForCausalLM", _MIXED),
        (r"mistral|ministral|codestral|zephyr|openhermes|mathstral", "MistralForCausalLM", _TEXT),
        (r"olmo-?hybrid", "OlmoHybridForCausalLM", _HYBRID),
        (r"olmoe", "OlmoeForCausalLM", _MIXED),
        (r"olmo-?2(?!b)", "Olmo2ForCausalLM", _TEXT),
        (r"olmo-?3", "Olmo3ForCausalLM", _TEXT),
        (r"olmo", "OlmoForCausalLM", _TEXT),
        (r"phi-?4-multimodal", "Phi4MMForCausalLM", _SEES),
        (r"phi-?3(\.5)?-vision", "Phi3VForCausalLM", _SEES),
        (r"phi-?3\.5-moe", "PhiMoEForCausalLM", _MIXED),
        (r"phi-?[34]", "Phi3ForCausalLM", _TEXT),
        (r"phi-?(1|2)", "PhiForCausalLM", _TEXT),
        (r"gpt-?oss", "GptOssForCausalLM", _MIXED),
        (r"dialogpt|distilgpt2|gpt2", "GPT2LMHeadModel", _TEXT),
        (r"gpt-?j", "GPTJForCausalLM", _TEXT),
        (r"gpt-?neox|pythia|dolly", "GPTNeoXForCausalLM", _TEXT),
        (r"gpt-?neo", "GPTNeoForCausalLM", _TEXT),
        (r"gpt_?bigcode|santacoder|starcoder(?!2)", "GPTBigCodeForCausalLM", _TEXT),
        (r"starcoder2", "Starcoder2ForCausalLM", _TEXT),
        (r"bloomz?", "BloomForCausalLM", _TEXT),
        (r"opt-\d", "OPTForCausalLM", _TEXT),
        (r"stablelm", "StableLmForCausalLM", _TEXT),
        (r"granite-vision", "LlavaNextForConditionalGeneration", _SEES),
        (r"granite-?3\.\d-(1|3)b-a", "GraniteMoeForCausalLM", _MIXED),
        (r"granite", "GraniteForCausalLM", _TEXT),
        (r"deepseek-vl2", "DeepseekVLV2ForCausalLM", _SEES_MIXED),
        (r"deepseek-ocr", "DeepseekOCRForCausalLM", _SEES_MIXED),
        (r"deepseek-(v3\.2)", "DeepseekV32ForCausalLM", _MIXED),
        (r"deepseek-(v3|r1)", "DeepseekV3ForCausalLM", _MIXED),
        (r"deepseek-(coder-)?v2", "DeepseekV2ForCausalLM", _MIXED),
        (r"deepseek-moe", "DeepseekForCausalLM", _MIXED),
        (r"dbrx", "DbrxForCausalLM", _MIXED),
        (r"command-r|aya-23", "CohereForCausalLM", _TEXT),
        (r"internvl", "InternVLChatModel", _SEES),
        (r"internlm2", "InternLM2ForCausalLM", _TEXT),
        (r"glm-4\.\d*v|glm-4v", "Glm4vForConditionalGeneration", _SEES),
        (r"glm-4\.[5-9]", "Glm4MoeForCausalLM", _MIXED),
        (r"chatglm|glm-4-9b", None, _TEXT),
        (r"minicpm-?v|minicpm-?o", "MiniCPMV", _SEES),
        (r"falcon-?3", "LlamaForCausalLM", _TEXT),
        (r"falcon", "FalconForCausalLM", _TEXT),
        (r"yi-vl", None, _SEES),
        (
            r"(code|tiny|open_?|long)?llama|vicuna|alpaca|smollm2?|deepseek-(coder|llm)|yi-\d|solar-10|open_llama",
            "LlamaForCausalLM",
            _TEXT,
        ),
        # an encoder and a decoder of text
        (
            r"(flan-|google-|code|m|by|um|long-?|switch-|v1_1-)?t5|flan-ul2|ul2|codet5p?",
            None,
            _PAIR,
        ),
        (r"t5gemma|prot_?t5|madlad", None, _PAIR),
        (r"(m)?bart|pegasus|opus-mt|marian|nllb|m2m100|blenderbot|led-", None, _PAIR),
        # speech
        (r"(distil-)?whisper", "WhisperForConditionalGeneration", _HEARS),
        (
            r"wav2vec2?|hubert|wavlm|mms-|seamless|speecht5|parakeet|canary|xls-r|w2v-bert",
            None,
            _HEARS,
        ),
        # diffusion
        (r"(.*-)?(sdxl|stable-diffusion-xl|animagine|juggernaut)", "UNet2DConditionModel", _UNET),
        (r"stable-diffusion-3|sd3", "SD3Transformer2DModel", _DIT),
        (
            r"stable-diffusion|sd-turbo|sd-v?1|sd-?2|dreamshaper|dreamlike|realistic-vision|kolors",
            "UNet2DConditionModel",
            _UNET,
        ),
        (r"flux\.?-?2", "Flux2Transformer2DModel", _DIT),
        (r"flux", "FluxTransformer2DModel", _DIT),
        (
            r"wan-?2|wan2|hunyuan-?(video|dit|image)|ltx|cogvideo|cogview|z-image|sana|pixart|lumina|auraflow|chroma|mochi|dit-xl|hidream|omnigen",
            None,
            _DIT,
        ),
        # encoders of text, and models of images
        (
            r"clip-|siglip|vit-|deit|swin|dino|beit|convnext|segformer|resnet|sam-|sam2|detr|mobilenet|efficientnet|mask2former|depth-anything|videomae|upernet",
            None,
            _LOOKS,
        ),
        (r"blip-?2|instructblip|kosmos|florence|fuyu|molmo|aria|ovis", None, _SEES),
        (
            r"(distil|modern|legal-|sci|bio|code|fin|camem|prot_?|neo)?bert|(xlm-|distil)?roberta|deberta|electra|albert|mpnet|all-minilm|minilm|e5-|bge-|gte-|esm-?2|esm2|xlm-r|jina-embeddings|nomic-embed|ernie-\d",
            None,
            _READS,
        ),
    )
)


def family_of(name: str) -> Family | None:
    """The family that a model's name points to; `None` where it points to none.

    Args:
        name: hub id or path, such as `meta-llama/Llama-3.1-8B`; only its last part counts.
    """
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()[:120]
    for family in FAMILIES:
        if re.search(rf"(?:^|[^a-z0-9])(?:meta-|google-)?(?:{family.pattern})", last):
            return family
    return None
