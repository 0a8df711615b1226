"""Script that trains an adapter of FLUX.2-klein on a few images, as the image-gen runs did it.

Flow matching in plain PyTorch: images and prompts are encoded once, the transformer learns to
predict noise minus image at noise levels drawn uniformly from the scheduler's own.
"""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.source import Raw, call, imports

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Recipe
    from peft_shop.records import Json
    from peft_shop.scripts.source import Parts

__all__ = ["image_script"]

_SCRIPT: Final = Template("""\
$header
import itertools

import torch
from datasets import load_dataset
from diffusers import Flux2KleinPipeline
$imports
from PIL import ImageOps
from torch.utils.data import DataLoader
$from_transformers

# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = "peft-internal-testing/cat-image-dataset"  # with a column "image"
PROMPTS = ["a photo of sks cat"]  # one for all images, or one for each image (as measured)
OUTPUT_DIR = "adapter"

# --- as measured ---
STEPS = $steps
BATCH_SIZE = $batch_size
RESOLUTION = $max_length  # pixels, square
SEED = $seed

set_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"
pipeline = $pipeline


def encode_image(image):
    square = ImageOps.fit(image.convert("RGB"), (RESOLUTION, RESOLUTION))
    pixels = pipeline.image_processor.preprocess(square)
    return pipeline.prepare_image_latents([pixels], 1, None, device, pipeline.vae.dtype)[0]


def encode_prompt(prompt):
    return $encode_prompt


# Images and prompts stay the same: encode them once, then only the transformer needs the GPU.
with torch.no_grad():
    pipeline.vae.to(device)
    images = torch.cat([encode_image(row["image"]) for row in load_dataset(DATASET_ID)["train"]])
    pipeline.vae.to("cpu")
    pipeline.text_encoder.to(device)
    prompts, text_ids = map(torch.cat, zip(*map(encode_prompt, PROMPTS), strict=True))
    pipeline.text_encoder.to("cpu")
channels = pipeline.transformer.config.in_channels // 4
_, image_ids = pipeline.prepare_latents(
    1, channels, RESOLUTION, RESOLUTION, images.dtype, device, None
)

$config
base = pipeline.transformer.to(device)
$checkpointing
model = $model
model.print_trainable_parameters()

loader = DataLoader(range(len(images)), batch_size=BATCH_SIZE, shuffle=True)
batches = itertools.chain.from_iterable(itertools.repeat(loader))  # as many epochs as it takes

$optimizer

noise_levels = pipeline.scheduler
model.train()
for step, index in enumerate(itertools.islice(batches, STEPS), start=1):
    clean = images[index]
    noise = torch.randn_like(clean)
    level = torch.randint(len(noise_levels.timesteps), (len(index),))
    sigma = noise_levels.sigmas[level].to(clean).view(-1, 1, 1)
    predicted = model(
        hidden_states=(1 - sigma) * clean + sigma * noise,
        timestep=noise_levels.timesteps[level].to(device) / 1000,
        encoder_hidden_states=prompts[index % len(prompts)],
        txt_ids=text_ids[:1],
        img_ids=image_ids,
        return_dict=False,
    )[0]
    loss = torch.nn.functional.mse_loss(predicted.float(), (noise - clean).float())
$update
    if step % 50 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.4f}")

model.save_pretrained(OUTPUT_DIR)
# To use it, in a new pipeline:
# pipeline.transformer = peft.PeftModel.from_pretrained(pipeline.transformer, OUTPUT_DIR)
""")

_PROMPT_LAYERS: Final = (10, 20, 30)
"""Layers of the text encoder whose states make the prompt's embedding, in all runs on file."""
_PROMPT_LENGTH: Final = 512
"""Tokens that a prompt is padded to, in all runs on file."""


def image_script(recipe: Recipe, parts: Parts) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: a value of the recipe cannot be written as source.
    """
    training = recipe.training
    loading: dict[str, Json] = {"dtype": Raw(f"torch.{parts.dtype}")}
    encoding: dict[str, Json] = {
        "device": Raw("device"),
        "max_sequence_length": training.options.get("max_sequence_length", _PROMPT_LENGTH),
        "text_encoder_out_layers": tuple(
            training.options.get("text_encoder_out_layers", _PROMPT_LAYERS)
        ),
    }
    transformers_names = ["set_seed", *parts.transformers_names]
    return _SCRIPT.substitute(
        parts.shared,
        imports="\n".join(
            [imports("peft", *parts.peft_names, "get_peft_model"), *parts.optimizer_imports]
        ),
        from_transformers=imports("transformers", *transformers_names),
        max_length=training.max_length,
        pipeline=call("Flux2KleinPipeline.from_pretrained", loading, "MODEL_ID", used=11),
        encode_prompt=call("pipeline.encode_prompt", encoding, "prompt", indent=4, used=11),
        checkpointing=(
            "base.enable_gradient_checkpointing()" if training.gradient_checkpointing else ""
        ),
        model=parts.wrap("base"),
    )
