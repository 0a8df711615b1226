"""One conversion from beginning to end: check, measure layer by layer, write, compare, judge."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from peft_shop.conversion import checking
from peft_shop.conversion.bases import tied
from peft_shop.conversion.deltas import LayerChange, change_of
from peft_shop.conversion.folders import open_base
from peft_shop.conversion.initial import Start, open_start
from peft_shop.conversion.keys import Keys, keys_for
from peft_shop.conversion.layers import Adapted, adapted_layers
from peft_shop.conversion.lora import LoraParts, refuse_biases
from peft_shop.conversion.merging import MergedParts
from peft_shop.conversion.outcome import Outcome, excuse
from peft_shop.conversion.plan import adapted_modules, fitted, plan, refuse_other_sizes
from peft_shop.conversion.probes import probe_of
from peft_shop.conversion.ranks import exact_rank, peft_is_right, requested
from peft_shop.conversion.reading import PREFIX, WEIGHTS_FILE, AdapterFolder, open_adapter
from peft_shop.conversion.refusals import refuse_without_start
from peft_shop.conversion.report import REPORT_FILE
from peft_shop.conversion.writing import destination, output_folder, require_space
from peft_shop.errors import ConversionError, InexactError
from peft_shop.serve.adapter import read_adapter
from peft_shop.serve.bases import base_of_class
from peft_shop.serve.cases import Way
from peft_shop.serve.routes import resolve_engine
from peft_shop.serve.ways import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Engine
    from peft_shop.catalog.new_folder import NewFolder
    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.options import Options
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.probes import Probe
    from peft_shop.conversion.report import ConversionReport, LogitsCheck

__all__ = ["ConversionJob"]


_SPARE: Final = 2**20


@dataclass
class ConversionJob:
    """One conversion."""

    options: Options
    catalog: Catalog
    source: AdapterFolder
    base: BaseWeights
    plan: Plan
    engine: Engine | None
    start: Start | None
    not_peft: str | None
    """Why peft's own conversion is not used; `None` where it is."""
    began: float

    @classmethod
    def of(cls, options: Options, catalog: Catalog) -> ConversionJob:
        """Checks everything that can be checked before the first layer."""
        began = time.monotonic()
        engine = resolve_engine(catalog, options.engine) if options.engine is not None else None
        source = open_adapter(catalog, options.adapter_dir)
        if options.makes_adapter and "parameters" in source.adapter.traits:
            raise ConversionError(
                f"{source.folder}: it adapts bare parameters (target_parameters), such as those of "
                "experts, for which a plain LoRA has no layers; merge it instead (--to merged)"
            )
        not_peft = peft_is_right(catalog, source.adapter)
        if options.way == "peft" and not_peft is not None:
            raise ConversionError(f"{source.folder}: {not_peft}; use --way generic or auto")
        start = None
        if options.initial is not None:
            start = open_start(catalog, source, options.initial)
        else:
            refuse_without_start(source.adapter, source.folder)
        base = open_base(
            options.base,
            task_type=source.config.get("task_type"),
            classes=_classes(source),
            modules=adapted_modules(source),
            trust_remote_code=options.trust_remote_code,
        )
        places = [source.folder, *([base.folder] if base.folder else [])]
        destination(options.output, sources=places, overwrite=options.overwrite)
        source = fitted(source, base)
        made = plan(source, base)
        refuse_other_sizes(source, base, made)
        return cls(
            options=options,
            catalog=catalog,
            source=source,
            base=base,
            plan=made,
            engine=engine,
            start=start,
            not_peft="the generic way was asked for" if options.way == "generic" else not_peft,
            began=began,
        )

    def run(self, progress: Callable[[int, int, str], None] | None) -> ConversionReport:
        """Converts, measures, and puts the folder in its place."""
        target = self.options.output
        with output_folder(target, overwrite=self.options.overwrite) as made:
            parts = self._parts(made.scratch)
            self._fill(parts, progress)
            require_space(target, parts.size() + _SPARE)
            if isinstance(parts, LoraParts):
                config = parts.write(made.path, self.source, self.base, self.plan)
                checking.check_layout(self.base, config, made.path / WEIGHTS_FILE)
                keys = self._keys(parts)
                if isinstance(keys, Keys):
                    parts.write_for_engine(made.path / self._engine_file(keys), keys)
            else:
                parts.write(made.path)
            logits, because = self._logits(made)
            seconds = time.monotonic() - self.began
            outcome = self._outcome(parts, made.path)
            report = outcome.report(logits, because, self.options.tolerance, seconds)
            if not self.options.allow_inexact:
                self._judge(report)
            (made.path / REPORT_FILE).write_text(
                report.model_dump_json(indent=2) + "\n", encoding="utf-8"
            )
        return report

    def _parts(self, scratch: Path) -> LoraParts | MergedParts:
        asked = self.options
        if asked.to == "merged":
            return MergedParts(scratch, self.base, asked.dtype)
        known = exact_rank(self.catalog, self.source.adapter)
        request = requested(asked.rank, known=known[0] if known else None, engine=self.engine)
        usable = self.not_peft is None and self.start is None
        dtype = asked.dtype or "float32"
        return LoraParts(scratch, request, dtype, usable, must_be_peft=asked.way == "peft")

    def _fill(
        self,
        parts: LoraParts | MergedParts,
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        if isinstance(parts, LoraParts) and self.plan.replaced:
            names = sorted(self.plan.replaced.values())
            raise ConversionError(
                f"{self.source.weights}: {names[0]} was trained too (and {len(names) - 1} more), "
                "for which a plain LoRA has no place; merge it instead (--to merged)"
            )
        total = len(self.plan.targets) + len(self.plan.tokens)
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
            parts.copy(self.source, self.plan)
            moved = moved or any(layer.size > 0 for layer in parts.layers)
        if isinstance(parts, LoraParts) and not parts.layers:
            raise ConversionError(
                f"{self.source.folder}: it holds whole modules only, and adapts no layer; merge it "
                "instead (--to merged)"
            )
        if not moved and not self.plan.saved:
            raise ConversionError(
                f"{self.source.folder}: the adapter changes nothing: its weights are as they were "
                "before training (all zero, or such that they cancel)"
            )
        if progress is not None:
            progress(total, total, "")

    def _changes(self) -> Iterator[tuple[LayerChange, Adapted | None]]:
        if self.start is not None:
            for change in self.start.changes(self.base, self.plan):
                yield change, None
            return
        for adapted in adapted_layers(self.source, self.base, self.plan):
            change = change_of(adapted)
            yield change, adapted
            if adapted.name in self.plan.tokens or self.source.adapter.method == "trainable_tokens":
                yield from ((twin, None) for twin in self._twins(change))

    def _twins(self, change: LayerChange) -> Iterator[LayerChange]:
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

    def _logits(self, made: NewFolder) -> tuple[LogitsCheck | None, str | None]:
        """The comparison of outputs, or why there is none."""
        asked = self.options
        if asked.check == "layers":
            return None, "only the layers were to be checked"
        short = None if asked.check == "logits" else checking.memory_is_short(self.base)
        probe = short or probe_of(self.base, asked.inputs)
        compared = probe if isinstance(probe, str) else self._compared(made, probe)
        if not isinstance(compared, str):
            return compared, None
        if asked.check == "logits":
            raise ConversionError(f"cannot compare the outputs: {compared}")
        return None, compared

    def _compared(self, made: NewFolder, probe: Probe) -> LogitsCheck | str:
        def original(model: Any) -> Any:
            folder = self.source.write_for_peft(made.scratch / "original")
            if self.start is not None:
                return self.start.model(model)
            return checking.with_adapter(model, folder)

        def result(base: BaseWeights) -> Any:
            if self.options.makes_adapter:
                return checking.with_adapter(base.whole(), made.path)
            return checking.merged_model(base, made.path)

        return checking.compare(self.base, probe, original, result)

    def _outcome(self, parts: LoraParts | MergedParts, folder: Path) -> Outcome:
        loads: Way | None = None
        if isinstance(parts, LoraParts) and self.engine is not None:
            written = read_adapter(self.catalog, folder)
            known = base_of_class(self.base.name, type(self.base.skeleton()).__name__)
            loads = native(self.engine, written.on(known) if known.kinds else written)
            keys = self._keys(parts)
            if isinstance(keys, Keys):
                file = self._engine_file(keys)
                told = f"Give it {file}: the keys there are those that {self.engine.title} reads; "
                told += f"{WEIGHTS_FILE} has peft's."
                loads = Way(kind="native", works="yes", conditions=(told,))
            elif keys is not None and loads.works != "no":
                told = f"{WEIGHTS_FILE} has peft's key names, and {keys}: rename them as it wants."
                loads = loads.model_copy(update={"works": "unknown", "conditions": (told,)})
        return Outcome(
            source=self.source,
            base=self.base,
            found=self.plan,
            parts=parts,
            target=self.options.output,
            rank=self.options.rank,
            known=exact_rank(self.catalog, self.source.adapter),
            not_peft=self.not_peft,
            engine=self.engine,
            loads=loads,
        )

    def _keys(self, parts: LoraParts) -> Keys | str | None:
        """How the engine names the layers; why nobody knows; `None` where peft's names will do."""
        if self.engine is None:
            return None
        return keys_for(self.engine.id, self.base.config, [layer.name for layer in parts.layers])

    def _engine_file(self, keys: Keys) -> str:
        return keys.file or f"{self.options.output.resolve().name}.safetensors"

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
