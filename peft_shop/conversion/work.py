"""One conversion from beginning to end: check, measure layer by layer, write, compare, judge."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.store import load
from peft_shop.conversion import checking
from peft_shop.conversion.bases import tied
from peft_shop.conversion.deltas import Change, change_of
from peft_shop.conversion.folders import open_base
from peft_shop.conversion.initial import Start, open_start
from peft_shop.conversion.layers import Adapted, adapted_layers
from peft_shop.conversion.lora import LoraParts, refuse_biases
from peft_shop.conversion.merging import MergedParts
from peft_shop.conversion.outcome import Outcome, excuse
from peft_shop.conversion.plan import plan
from peft_shop.conversion.ranks import exact_rank, peft_is_right, requested
from peft_shop.conversion.reading import PREFIX, WEIGHTS_FILE, AdapterFolder, open_adapter
from peft_shop.conversion.refusals import refuse_without_start
from peft_shop.conversion.report import REPORT_FILE
from peft_shop.conversion.writing import DTYPES, destination, new_folder, require_space
from peft_shop.errors import ConversionError, InexactError, UnknownNameError
from peft_shop.serve.adapter import read_adapter
from peft_shop.serve.routes import resolve_engine
from peft_shop.serve.ways import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Engine
    from peft_shop.conversion.bases import Base
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.report import ConversionReport, LogitsCheck
    from peft_shop.conversion.verb import Check, To
    from peft_shop.serve.cases import Way

__all__ = ["Job"]


_SPARE: Final = 2**20


@dataclass
class Job:
    """One conversion."""

    catalog: Catalog
    source: AdapterFolder
    base: Base
    found: Plan
    to: To
    target: Path
    rank: str | float
    engine: Engine | None
    start: Start | None
    dtype: str | None
    not_peft: str | None
    """Why peft's own conversion is not used; `None` where it is."""
    must_be_peft: bool
    began: float

    @classmethod
    def of(
        cls,
        adapter_dir: Any,
        base: Any,
        output: Any,
        *,
        to: str,
        rank: Any,
        engine: str | None,
        way: str,
        initial: Any,
        dtype: str | None,
        overwrite: bool,
        catalog: Catalog | None,
    ) -> Job:
        """Checks everything that can be checked before the first layer."""
        began = time.monotonic()
        catalog = catalog or load()
        for kind, value, valid in (
            ("target", to, ("lora", "merged")),
            ("way", way, ("auto", "peft", "generic")),
            ("dtype", dtype, tuple(DTYPES)),
        ):
            if value is not None and value not in valid:
                raise UnknownNameError(kind, str(value), valid)
        chosen = resolve_engine(catalog, engine) if engine is not None else None
        source = open_adapter(catalog, Path(adapter_dir))
        not_peft = peft_is_right(catalog, source.adapter)
        if way == "peft" and not_peft is not None:
            raise ConversionError(f"{source.folder}: {not_peft}; use --way generic or auto")
        start = open_start(catalog, source, Path(initial)) if initial is not None else None
        if start is None:
            refuse_without_start(source.adapter, source.folder)
        opened = open_base(base, task_type=source.config.get("task_type"), classes=_classes(source))
        places = [source.folder, *([opened.folder] if opened.folder else [])]
        target = destination(output, sources=places, overwrite=overwrite)
        return cls(
            catalog=catalog,
            source=source,
            base=opened,
            found=plan(source, opened),
            to="merged" if to == "merged" else "lora",
            target=target,
            rank=rank,
            engine=chosen,
            start=start,
            dtype=dtype,
            not_peft="the generic way was asked for" if way == "generic" else not_peft,
            must_be_peft=way == "peft",
            began=began,
        )

    def run(
        self,
        tolerance: float | None,
        check: Check,
        inputs: Mapping[str, Any] | None,
        progress: Callable[[int, int, str], None] | None,
        *,
        allow_inexact: bool,
    ) -> ConversionReport:
        """Converts, measures, and puts the folder in its place."""
        with (
            new_folder(self.target) as folder,
            tempfile.TemporaryDirectory(
                dir=self.target.parent, prefix=f".{self.target.name}-layers-"
            ) as scratch,
        ):
            parts = self._parts(Path(scratch))
            self._fill(parts, progress)
            require_space(self.target, parts.size() + _SPARE)
            if isinstance(parts, LoraParts):
                config = parts.write(folder, self.source, self.base, self.found)
                checking.check_layout(self.base, config, folder / WEIGHTS_FILE)
            else:
                parts.write(folder)
            logits, because = self._logits(folder, check, inputs)
            seconds = time.monotonic() - self.began
            report = self._outcome(parts, folder).report(logits, because, tolerance, seconds)
            if not allow_inexact:
                self._judge(report)
            (folder / REPORT_FILE).write_text(
                report.model_dump_json(indent=2) + "\n", encoding="utf-8"
            )
        return report

    def _parts(self, scratch: Path) -> LoraParts | MergedParts:
        if self.to == "merged":
            return MergedParts(scratch, self.base, self.dtype)
        known = exact_rank(self.catalog, self.source.adapter)
        request = requested(self.rank, known=known[0] if known else None, engine=self.engine)
        usable = self.not_peft is None and self.start is None
        return LoraParts(scratch, request, self.dtype or "float32", usable, self.must_be_peft)

    def _fill(
        self,
        parts: LoraParts | MergedParts,
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        if isinstance(parts, LoraParts) and self.found.replaced:
            names = sorted(self.found.replaced.values())
            raise ConversionError(
                f"{self.source.weights}: {names[0]} was trained too (and {len(names) - 1} more), "
                "for which a plain LoRA has no place; merge it instead (--to merged)"
            )
        total = len(self.found.targets) + len(self.found.tokens)
        moved = False
        for number, (change, adapted) in enumerate(self._changes()):
            if progress is not None:
                progress(min(number, total), total, change.name)
            moved = moved or change.size > 0 or change.bias > 0
            if isinstance(parts, MergedParts):
                parts.add(change)
            else:
                refuse_biases(change)
                parts.add(change, adapted, way="generic" if self.start is None else "initial_model")
        if isinstance(parts, MergedParts):
            parts.copy(self.source, self.found)
            moved = moved or any(layer.size > 0 for layer in parts.layers)
        if isinstance(parts, LoraParts) and not parts.layers:
            raise ConversionError(
                f"{self.source.folder}: it holds whole modules only, and adapts no layer; merge it "
                "instead (--to merged)"
            )
        if not moved and not self.found.saved:
            raise ConversionError(
                f"{self.source.folder}: the adapter changes nothing: its weights are as they were "
                "before training (all zero, or such that they cancel)"
            )
        if progress is not None:
            progress(total, total, "")

    def _changes(self) -> Iterator[tuple[Change, Adapted | None]]:
        if self.start is not None:
            for change in self.start.changes(self.base, self.found):
                yield change, None
            return
        for adapted in adapted_layers(self.source, self.base, self.found):
            change = change_of(adapted)
            yield change, adapted
            if (
                adapted.name in self.found.tokens
                or self.source.adapter.method == "trainable_tokens"
            ):
                yield from ((one, None) for one in self._twins(change))

    def _twins(self, change: Change) -> Iterator[Change]:
        """The same change of weights that are one with an embedding: peft trains both."""
        for names in tied(self.base.skeleton()):
            if f"{change.name}.weight" not in names:
                continue
            for name in names:
                owner = name.rpartition(".")[0]
                if owner != change.name:
                    yield replace(
                        change, name=owner, kind="linear", delta=change.delta.T.contiguous()
                    )

    # --- measuring ---

    def _logits(
        self, folder: Path, check: Check, inputs: Mapping[str, Any] | None
    ) -> tuple[LogitsCheck | None, str | None]:
        if check == "layers":
            return None, "only the layers were to be checked"
        batch = checking.probe_batch(self.base, inputs)
        short = None if check == "logits" else checking.memory_is_short(self.base)
        if isinstance(batch, str) or short is not None:
            because = batch if isinstance(batch, str) else short
            if check == "logits":
                raise ConversionError(f"cannot compare the outputs: {because}")
            return None, because
        values, described = batch

        def original(model: Any) -> Any:
            if self.start is not None:
                return self.start.model(model)
            return checking.with_adapter(model, self.source.folder)

        def result(base: Base) -> Any:
            if self.to == "lora":
                return checking.with_adapter(base.whole(), folder)
            return checking.merged_model(base, folder)

        return checking.compare(self.base, values, described, original, result), None

    def _outcome(self, parts: LoraParts | MergedParts, folder: Path) -> Outcome:
        loads: Way | None = None
        if isinstance(parts, LoraParts) and self.engine is not None:
            loads = native(self.engine, read_adapter(self.catalog, folder))
        return Outcome(
            source=self.source,
            base=self.base,
            found=self.found,
            parts=parts,
            target=self.target,
            rank=self.rank,
            known=exact_rank(self.catalog, self.source.adapter),
            not_peft=self.not_peft,
            engine=self.engine,
            loads=loads,
        )

    def _judge(self, report: ConversionReport) -> None:
        if report.engine is not None and report.engine.works == "no" and self.engine is not None:
            raise ConversionError(
                f"{self.engine.title} {self.engine.version} does not load the result: "
                f"{'; '.join(report.engine.reasons)}; merge it (--to merged), or write it anyway "
                "(--allow-inexact)"
            )
        if not report.within_tolerance:
            raise InexactError(excuse(report), report.model_copy(update={"output": None}))


def _classes(source: AdapterFolder) -> int | None:
    """Outputs of the head that the adapter brings."""
    if source.config.get("task_type") not in {"SEQ_CLS", "TOKEN_CLS"}:
        return None
    for key, shape in source.shapes.items():
        inner = key.removeprefix(PREFIX)
        if inner.endswith("score.weight") or inner.split(".")[0] == "classifier":
            return shape[0]
    return None
