"""Architectures that break an invariant of the sweep, each with the reason why that is right."""

from __future__ import annotations

from typing import Final

__all__ = ["EXCEPTIONS"]

EXCEPTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    # (invariant, pattern of class names, reason)
    (
        "attention",
        r"Gemma3n(ForCausalLM|TextModel)",
        "later layers reuse the keys and values of earlier ones",
    ),
    ("attention", r"JetMoe\w+", "queries and outputs are experts, held in parameters"),
    ("attention", r"Reformer\w+", "query and key are one layer in the hashed attention"),
    ("attention", r"Rwkv\w+", "a recurrence that is called attention"),
    ("attention", r"SwiftFormer\w+", "additive attention has no values"),
    (
        "attention",
        r"(MM)?GroundingDino\w+",
        "two modalities query each other: one layer is query to one and key to the other",
    ),
    ("attention", r"LuminaNextDiT2DModel", "two attentions share the output of the second"),
    ("mlp", r"Ernie4_5_VLMoe\w+", "four patches go in, one comes out"),
    ("mlp", r"EfficientLoFTR\w+|LightGlue\w+", "takes a state and a message side by side"),
    ("mlp", r"(DFine|Deimv2)\w+", "a score per box comes out"),
    ("mlp", r"OneFormer\w+", "projects a task to the width of the queries"),
    ("mlp", r"GroupViT\w+", "mixes tokens, of which fewer come out"),
    ("mlp", r"SanaWM\w+", "projects captions to the width of the model"),
    ("routers", r"Inkling\w+", "also weighs the shared experts"),
    ("routers", r"LongcatFlash\w+", "also chooses among experts that do nothing"),
    ("routers", r"Zaya\w+", "also chooses to skip all experts"),
    ("heads", r"FSMT\w+", "the decoder's token embedding is its output layer"),
    (
        "understood",
        r"Gemma3n\w+",
        "learned residuals and embeddings per layer are parts of their own",
    ),
    (
        "understood",
        r"Zamba2\w+",
        "its own low-rank adapters of shared blocks are part of the model",
    ),
    ("understood", r"Glm5NextText\w+", "forget gates and an indexer stand beside the attention"),
    ("understood", r"Sam3LiteTextTextModel", "one linear layer in all, after convolutions"),
    ("understood", r"PatchTSMixer\w+", "gates of a mixer of time series, which has no attention"),
    ("understood", r"RFD4Proteina\w+", "pair and triangle updates of a protein model"),
    ("understood", r"StableCascadeUNet", "mixes channels and maps conditions between convolutions"),
)
