"""Script that trains an adapter of a diffusion transformer on a few images, as measured.

Flow matching in plain PyTorch: images and prompts are encoded once, the transformer learns to
predict noise minus image at noise levels drawn uniformly from the scheduler's own.
"""

from __future__ import annotations

from string import Template
from textwrap import indent
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.loading import loading_options, preparation
from peft_shop.scripts.loop import backward, check, precise
from peft_shop.scripts.source import Raw, call, imports, literal

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.parts import ScriptParts

__all__ = ["image_script"]

_SCRIPT: Final = Template("""\
$header
import itertools

import torch
$imports

# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = $dataset  # with a column "image"
PROMPTS = ["a photo of sks cat"]  # one for all images, or one for each image (as measured)
OUTPUT_DIR = "adapter"

# --- $origin ---
STEPS = $steps
LEARNING_RATE = $learning_rate
BATCH_SIZE = $batch_size
ACCUMULATION = $accumulation  # batches of one step
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
channels = images.shape[-1] // 4
_, image_ids = pipeline.prepare_latents(
    1, channels, RESOLUTION, RESOLUTION, images.dtype, device, None
)

$config
$base
$checkpointing
model = $model
model.print_trainable_parameters()

loader = DataLoader(range(len(images)), batch_size=BATCH_SIZE * ACCUMULATION, shuffle=True)
steps = itertools.chain.from_iterable(itertools.repeat(loader))  # as many epochs as it takes

$optimizer

$check

noise_levels = pipeline.scheduler
model.train()
for step, index in enumerate(itertools.islice(steps, STEPS), start=1):
    clean = images[index]
    noise = torch.randn_like(clean)
    level = torch.randint(len(noise_levels.timesteps), (len(index),))
    sigma = noise_levels.sigmas[level].to(clean).view(-1, 1, 1)
    noisy = (1 - sigma) * clean + sigma * noise
    times = noise_levels.timesteps[level].to(device) / 1000
    loss = 0.0
    for batch in torch.arange(len(index)).split(BATCH_SIZE):
$forward
        part_loss = part_loss * (len(batch) / len(index))  # every image of a step counts alike
        $backward
        loss = loss + part_loss.detach()
$update
    if step % 50 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.4f}")

model.save_pretrained(OUTPUT_DIR)
# To use it, in a new pipeline:
# pipeline.transformer = peft.PeftModel.from_pretrained(pipeline.transformer, OUTPUT_DIR)
""")

_FORWARD: Final = """\
predicted = model(
    hidden_states=noisy[batch],
    timestep=times[batch],
    encoder_hidden_states=prompts[index[batch] % len(prompts)],
    txt_ids=text_ids[:1],
    img_ids=image_ids,
    return_dict=False,
)[0]
target = (noise - clean)[batch]
part_loss = torch.nn.functional.mse_loss(predicted.float(), target.float())"""

_PROMPT_LAYERS: Final = (10, 20, 30)
"""Layers of the text encoder whose states make the prompt's embedding, in all runs on file."""
_PROMPT_LENGTH: Final = 512
"""Tokens that a prompt is padded to, in all runs on file."""
_BACKBONE: Final = "Flux2Transformer2DModel"


def image_script(parts: ScriptParts) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: a value of the recipe cannot be written as source.
    """
    step = parts.step
    options = parts.recipe.training.options
    modules = parts.modules(
        {
            "datasets": ["load_dataset"],
            "diffusers": ["Flux2KleinPipeline"],
            "PIL": ["ImageOps"],
            "torch.utils.data": ["DataLoader"],
            "transformers": ["set_seed"],
        }
    )
    loading: dict[str, Json] = {"dtype": Raw(f"torch.{step.dtype}")}
    base = ["base = pipeline.transformer.to(device)"]
    if step.backend is not None:
        # the transformer comes by itself, in bits, when the text encoder has left the GPU
        loading = {"transformer": None, **loading}
        modules["diffusers"] += [_BACKBONE, *(["BitsAndBytesConfig"] if step.quantize else [])]
        arguments = {"subfolder": "transformer", **loading_options(step)}
        made = call(f"{_BACKBONE}.from_pretrained", arguments, "MODEL_ID", used=7)
        base = [f"base = {made}", *preparation(step)]
    encoding: dict[str, Json] = {
        "device": Raw("device"),
        "max_sequence_length": step.prompt_length or _PROMPT_LENGTH,
        "text_encoder_out_layers": tuple(options.get("text_encoder_out_layers", _PROMPT_LAYERS)),
    }
    return _SCRIPT.substitute(
        parts.shared,
        imports=imports(modules),
        max_length=literal(step.max_length),
        pipeline=call("Flux2KleinPipeline.from_pretrained", loading, "MODEL_ID", used=11),
        encode_prompt=call("pipeline.encode_prompt", encoding, "prompt", indent=4, used=11),
        base="\n".join(base),
        checkpointing="base.enable_gradient_checkpointing()" if step.checkpointing else "",
        check=check(step),
        forward=indent(precise(step, _FORWARD), " " * 8),
        backward=backward(step),
        update=indent(parts.update, " " * 4),
    )
