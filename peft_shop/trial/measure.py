"""The meter that a trial's copy of a training script has: it looks, and changes nothing.

It runs in the process that trains. Scoring leaves the generators of random numbers, the gradients
and the mode of the model as they were, so that the losses are those of the plain script.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.files import read_bounded, write_atomically
from peft_shop.records import parse_json
from peft_shop.trial.halving import Briefing, hopeless
from peft_shop.trial.results import Measured
from peft_shop.trial.scoring import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DIVERGED", "HALF", "HALVED", "MEASURED", "Meter"]

MEASURED: Final = "measured.json"
"""What the meter leaves in the run's folder."""
DIVERGED: Final = 87
"""Exit code of a training whose loss is no number, or far above the base's."""
HALVED: Final = 88
"""Exit code of a training that was stopped at half its steps, as significantly worse."""
HALF: Final = "half.json"
"""What the meter leaves then: the validation loss there."""
_ORDER_LIMIT: Final = 2**28
_DATA_LIMIT: Final = 2**31
_WARMING: Final = 3
"""Steps that are slower than the rest."""
_LOOKS: Final = 4
"""Times that the validation set is scored while training."""
_FAR: Final = 3.0
"""Times the base's loss from which on training has gone wrong."""
_LIVES: Final = 3
"""Looks in a row that may be so."""


class Meter:
    """Measures one training.

    Args:
        order: JSON file: `test`, `valid` and perhaps `general` (files of examples), `batch_size`,
            `steps`, `briefing`, and `score` (or null), what a judge is told.
        model: what is trained.
        encode: makes one batch of rows; its labels of -100 are not predicted.
        device: where it runs.
        tokenizer: of the model.
    """

    def __init__(
        self,
        order: str,
        model: Any,
        encode: Callable[[list[Any]], Any],
        device: str,
        tokenizer: Any,
    ) -> None:
        import torch

        self._torch = torch
        self._folder = Path(order).parent
        self._order = parse_json(read_bounded(Path(order), _ORDER_LIMIT, "an order"))
        self._model, self._encode, self._device = model, encode, device
        self._tokenizer = tokenizer
        self._steps: list[float] = []
        self._cpu = 0.0
        self._losses: list[tuple[float, int]] = []
        self._curve: list[tuple[int, float]] = []
        self._far = 0
        self._peaks = {"train": 0, "score": 0}
        self._began = (0.0, 0.0)
        total = int(self._order["steps"])
        self._looks = {total * part // (_LOOKS + 1) for part in range(1, _LOOKS + 1)} - {0, total}
        self._briefing = Briefing.model_validate(self._order["briefing"])
        self._half_items: list[tuple[float, int]] = []

    def begin(self) -> None:
        """A step begins."""
        if not self._steps and self._gpu:
            self._torch.cuda.reset_peak_memory_stats()
        self._rest()
        self._began = (time.perf_counter(), time.process_time())

    def end(self, step: int, loss: Any, tokens: int) -> None:
        """Step number `step`, from 1 on, is over; `tokens` were predicted in it.

        Raises:
            SystemExit: training has gone wrong for good.
        """
        self._rest()
        clock, cpu = self._began
        self._steps.append(time.perf_counter() - clock)
        self._cpu += time.process_time() - cpu
        value = float(loss)
        if not math.isfinite(value):
            self._give_up(f"the loss of step {step} is {value}")
        self._losses.append((value, tokens))
        if step in self._looks or step == self._briefing.half:
            valid, items = self._score("valid")
            self._curve.append((step, valid))
            base = self._briefing.base_valid_loss
            self._far = self._far + 1 if base and valid > _FAR * base else 0
            if not math.isfinite(valid):
                self._give_up(f"the validation loss after step {step} is {valid}")
            if self._far >= _LIVES:
                self._give_up(f"{_LIVES} validation losses above {_FAR:g} times the base's")
            if step == self._briefing.half:
                self._half_items = items
                self._hold_against_the_bar(step, valid, items)
        print(f"step {step} loss {value:.6f}", file=sys.stderr, flush=True)  # noqa: T201 - the log

    def finish(self, adapter: str | None = None) -> None:
        """Training is over: scores everything, saves an adapter into `adapter`, writes the figures.

        Raises:
            SystemExit: a score is no number.
        """
        if self._gpu:
            self._peaks["train"] = max(self._peaks["train"], self._torch.cuda.max_memory_reserved())
        valid, valid_items = self._score("valid")
        test, test_items = self._score("test")
        general = self._score("general")[0] if self._order.get("general") else None
        marks = self._judge()
        scores = [valid, test, *([] if general is None else [general])]
        if not all(map(math.isfinite, scores)):
            self._give_up("a loss after training is no number")
        parameters = list(self._model.parameters())
        size = None
        if adapter is not None:
            folder = self._folder / adapter
            self._model.save_pretrained(str(folder))
            size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        last = self._losses[-max(1, len(self._losses) // 10) :]
        weight = sum(tokens for _, tokens in last)
        settled = self._steps[_WARMING:]
        measured = Measured(
            test_loss=test,
            valid_loss=valid,
            general_loss=general,
            curve=tuple(self._curve),
            train_loss=sum(value * tokens for value, tokens in last) / weight if weight else None,
            tokens=sum(tokens for _, tokens in self._losses),
            trainable_parameters=sum(each.numel() for each in parameters if each.requires_grad),
            total_parameters=sum(each.numel() for each in parameters),
            step_seconds=math.fsum(self._steps),
            step_median_seconds=statistics.median(settled) if settled else None,
            cpu_seconds=self._cpu,
            peak_memory_bytes=self._peaks["train"] if self._gpu and self._steps else None,
            eval_peak_memory_bytes=self._peaks["score"] if self._gpu else None,
            checkpoint_bytes=size,
            device=self._torch.cuda.get_device_name() if self._gpu else "cpu",
            test_items=tuple(test_items),
            valid_items=tuple(valid_items),
            half_items=tuple(self._half_items),
            score=math.fsum(marks) / len(marks) if marks else None,
            score_items=tuple(marks),
        )
        write_atomically(self._folder / MEASURED, measured.model_dump_json().encode())

    @property
    def _gpu(self) -> bool:
        return self._device != "cpu"

    def _rest(self) -> None:
        if self._gpu:
            self._torch.cuda.synchronize()

    def _hold_against_the_bar(
        self, step: int, valid: float, items: list[tuple[float, int]]
    ) -> None:
        """Stops a run that is significantly worse than the yardstick was.

        Raises:
            SystemExit: it is.
        """
        if self._briefing.bar is None:
            return
        stops, gap, error = hopeless(items, self._briefing.bar)
        if stops:
            write_atomically(self._folder / HALF, json.dumps(valid).encode())
            told = f"validation loss {valid:.4f} at step {step}, {gap:.4f} above the yardstick's"
            print(f"halved: {told}, standard error {error:.4f}", file=sys.stderr, flush=True)  # noqa: T201 - the log
            raise SystemExit(HALVED)

    def _give_up(self, reason: str) -> None:
        print(f"diverged: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - the log
        raise SystemExit(DIVERGED)

    def _score(self, part: str) -> tuple[float, list[tuple[float, int]]]:
        """Mean loss of a part by predicted tokens [nats], and loss and tokens of each example."""
        rows = self._rows(part)
        size = int(self._order["batch_size"])
        with self._looking():
            items = [
                item
                for start in range(0, len(rows), size)
                for item in self._items(rows[start : start + size])
            ]
        tokens = sum(count for _, count in items)
        return math.fsum(loss for loss, _ in items) / max(tokens, 1), items

    def _judge(self) -> list[float]:
        """Score of each test example; empty where only the loss counts."""
        order = self._order.get("score")
        if order is None:
            return []
        judge = Judge(
            order=order,
            model=self._model,
            tokenizer=self._tokenizer,
            device=self._device,
            encode=self._encode,
            losses=self._items,
        )
        with self._looking():
            return judge.scores(self._rows("test"), int(self._order["batch_size"]))

    def _rows(self, part: str) -> list[dict[str, Any]]:
        content = read_bounded(Path(self._order[part]), _DATA_LIMIT, "examples").decode()
        return [json.loads(line) for line in content.split("\n") if line]

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Evaluates: no gradient, no random number, no peak of memory is training's."""
        torch = self._torch
        if self._gpu:
            self._peaks["train"] = max(self._peaks["train"], torch.cuda.max_memory_reserved())
            torch.cuda.reset_peak_memory_stats()
        training = self._model.training
        self._model.eval()
        devices = [self._device] if self._gpu else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
        self._model.train(training)
        if self._gpu:
            self._peaks["score"] = max(self._peaks["score"], torch.cuda.max_memory_reserved())
            torch.cuda.reset_peak_memory_stats()

    def _items(self, rows: list[dict[str, Any]]) -> list[tuple[float, int]]:
        """Summed loss and predicted tokens of rows; a class is one prediction."""
        batch = self._encode(rows).to(self._device)
        if batch["labels"].dim() > 1:
            return self._batch(batch)
        labels = batch.pop("labels")
        logits = self._model(**batch).logits.float()
        losses = self._torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return [(loss, 1) for loss in losses.double().tolist()]

    def _batch(self, batch: Any) -> list[tuple[float, int]]:
        torch = self._torch
        labels = batch.pop("labels")
        logits = self._model(**batch).logits
        # virtual tokens in front have logits but no labels
        logits = logits[:, -labels.shape[1] :][:, :-1].float()
        predicted = labels[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), predicted, ignore_index=-100, reduction="none"
        )
        sums = losses.double().sum(1).tolist()
        counts = (predicted != -100).sum(1).tolist()
        return list(zip(sums, counts, strict=True))
