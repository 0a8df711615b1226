"""What test examples are scored by besides their loss: classes, choices, and generated answers.

It runs in the process that trained, after training. Answers are generated greedily, with settings
of this file alone: what the model's own generation_config says is ignored.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import InputError
from peft_shop.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Judge", "own_function"]

_LARGEST: Final = 2**20

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scores the test examples of one trained model.

    Attributes:
        order: what to score: `kind`, and with it `function` and its `file` and `sha256`, or
            `max_new_tokens`, `stop`, `max_length`, `chat`, `choices`, `labels`.
        model: what was trained, in evaluation mode.
        tokenizer: of the model.
        device: where it runs.
        encode: makes one batch of rows, with their labels.
        losses: summed loss and number of predicted tokens of rows.
    """

    order: Mapping[str, Any]
    model: Any
    tokenizer: Any
    device: str
    encode: Callable[[list[Row]], Any]
    losses: Callable[[list[Row]], list[tuple[float, int]]]

    @cached_property
    def _function(self) -> Callable[[str, str, str], Any] | None:
        return own_function(self.order) if self.order["kind"] == "own" else None

    def scores(self, rows: list[Row], size: int) -> list[float]:
        """Score of every row, `size` of them at a time.

        Raises:
            InputError: the function of the user's own gives no number.
        """
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        if self.order["kind"] == "choice":
            return [self._choice(row) for row in rows]
        if self.order["labels"]:
            return [score for part in parts for score in self._classes(part)]
        ends = self._ends(rows)
        return [score for part in parts for score in self._generated(part, ends)]

    def _classes(self, rows: list[Row]) -> list[float]:
        batch = self.encode(rows).to(self.device)
        batch.pop("labels")
        names = [
            self.order["labels"][place] for place in self.model(**batch).logits.argmax(-1).tolist()
        ]
        return [
            self._judged(row["text"], name, row["label"])
            for row, name in zip(rows, names, strict=True)
        ]

    def _choice(self, row: Row) -> float:
        """Whether the right completion is the likeliest of all that stand for choice."""
        choices = row.get("choices") or self.order["choices"]
        sums = dict(
            zip(
                choices,
                (loss for loss, _ in self.losses([{**row, "completion": c} for c in choices])),
                strict=True,
            )
        )
        right = sums.pop(row["completion"], math.inf)
        return float(right < min(sums.values()))

    def _generated(self, rows: Sequence[Row], ends: list[int]) -> list[float]:
        import torch

        prompts = [self._ids(row["prompt"])[-self.order["max_length"] :] for row in rows]
        longest = max(map(len, prompts))
        padding = self.tokenizer.pad_token_id
        ids = torch.tensor([[padding] * (longest - len(each)) + each for each in prompts])
        real = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        produced = self._answers(ids.to(self.device), real.to(self.device), ends)
        return [
            self._judged(row["prompt"], self._text(answer, ends), self._reference(row, ends))
            for row, answer in zip(rows, produced, strict=True)
        ]

    def _answers(self, ids: Any, real: Any, ends: list[int]) -> list[list[int]]:
        """Tokens that the model goes on with."""
        from transformers import GenerationConfig, StoppingCriteriaList

        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.order["max_new_tokens"],
            eos_token_id=ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        stopping = [self._stopping(ids.shape[1])] if self.order["stop"] else []
        # what the model brings would stand in for whatever these settings leave at its default
        theirs, self.model.generation_config = self.model.generation_config, settings
        try:
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=real,
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList(stopping),
            )
        finally:
            self.model.generation_config = theirs
        answers: list[list[int]] = whole[:, ids.shape[1] :].tolist()
        return answers

    def _stopping(self, begun: int) -> Callable[..., Any]:
        """Tells which rows have one of the stop strings behind their first `begun` tokens."""
        import torch

        def stopped(ids: Any, _scores: Any, **_: Any) -> Any:
            texts = self.tokenizer.batch_decode(ids[:, begun:], skip_special_tokens=True)
            over = [any(stop in text for stop in self.order["stop"]) for text in texts]
            return torch.tensor(over, device=ids.device)

        return stopped

    def _ids(self, text: str) -> list[int]:
        special = not self.order["chat"]
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _ends(self, rows: Sequence[Row]) -> list[int]:
        """Tokens that an answer ends with: special ones that stand in the completions."""
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        used = {
            token
            for row in rows
            for token in self.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        }
        return sorted(special & used)

    def _text(self, tokens: list[int], ends: list[int]) -> str:
        """What an answer says, up to its end."""
        end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        for stop in self.order["stop"]:
            text = text.partition(stop)[0]
        return str(text).strip()

    def _reference(self, row: Row, ends: list[int]) -> str:
        ids = self.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        return self._text(ids, ends)

    def _judged(self, prompt: str, answer: str, reference: str) -> float:
        """Score of one answer: whether it is the reference, unless a function says otherwise."""
        if self._function is None:
            return float(answer == reference)
        value = self._function(prompt, answer, reference)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{self.order['function']} gave {value!r}, which is no number")
        return number


def own_function(order: Mapping[str, Any]) -> Callable[[str, str, str], Any]:
    """The user's own score function, from a file whose bytes are those that the trial froze.

    Raises:
        InputError: the file changed, or has no such function.
    """
    path, name = Path(order["file"]), order["function"]
    content = read_bounded(path, _LARGEST, "a score function")
    if hashlib.sha256(content).hexdigest() != order["sha256"]:
        raise InputError(f"{path}: the score function changed since the trial began")
    with tempfile.TemporaryDirectory() as folder:
        # the bytes that were looked at, away from compiled files that may lie beside the original
        copy = Path(folder) / "score.py"
        copy.write_bytes(content)
        spec = importlib.util.spec_from_file_location("peft_shop_own_score", copy)
        if spec is None or spec.loader is None:
            raise InputError(f"{path}: cannot be loaded as Python")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    function: Callable[[str, str, str], Any] | None = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path}: no function {name}")
    return function
