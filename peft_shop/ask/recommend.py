"""The verb: what people write, read into a query -> Recommendation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from peft_shop.ask.answer import answer
from peft_shop.ask.backends import backend_of
from peft_shop.ask.demanding import ATTRIBUTES, SERVE, TRAINER
from peft_shop.ask.keywords import check_keywords
from peft_shop.ask.model import read_memory, read_training
from peft_shop.ask.picks import resolve_picks
from peft_shop.ask.reading import build_query
from peft_shop.ask.requirements import AnyOf
from peft_shop.catalog.catalog import Catalog
from peft_shop.catalog.features import SINGLES
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError, Keyword, QueryError
from peft_shop.model.structure import Structure
from peft_shop.units import read_quantity
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from peft_shop.adapt.records import TargetOptions
    from peft_shop.ask.query import MemoryLimit, Query
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.features import (
        Category,
        EvidenceLevel,
        Family,
        LayerType,
        QuantizationBackend,
        TaskType,
    )
    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target
    from peft_shop.names import BenchmarkName, Bounds, MethodName, MetricName, OptionName
    from peft_shop.units import Quantity

__all__ = ["DEMANDS", "installed_peft_version", "read_question", "recommend"]

ANY_VERSION = "any"
DEMANDS: Final = (
    *("quantization", "layer_types"),
    *(single.id for single in SINGLES),
    *(*ATTRIBUTES, SERVE, TRAINER),
)
"""Keywords that say what a method must be or be able to do."""


_PASSED: Final = (
    *("benchmark", "objectives", "snapshot", "era", "evidence", "methods", "exclude"),
    *("min_evidence", "floor", "rank_by", "accelerator", "include_flagged", "confidence"),
    *("certainty", "adapt"),
)
"""Keywords that are read where the question is made."""

Demand = bool | Literal["partial"] | None
"""`True` demands yes, `"partial"` at least partial, `False` demands no, `None` nothing."""


def recommend(
    benchmark: BenchmarkName | str | None = None,
    objectives: MetricName | str | Iterable[MetricName | str] | None = None,
    *,
    model: object | None = None,
    adapt: TargetOptions | Mapping[str, object] | None = None,
    training: Settings | Mapping[str, object] | None = None,
    device: str | None = None,
    max_memory: Quantity | None = None,
    fit: Literal["auto", "off"] | None = None,
    within: Quantity | None = None,
    snapshot: str | None = None,
    era: str | None = None,
    evidence: Literal["snapshot", "pooled"] = "snapshot",
    quantization: QuantizationBackend | Iterable[QuantizationBackend] | AnyOf | None = None,
    layer_types: LayerType | Iterable[LayerType] | AnyOf | None = None,
    merging: Demand = None,
    convertible_to_lora: Demand = None,
    extractable_to_lora: Demand = None,
    multiple_adapters: Demand = None,
    mixed_batches: Demand = None,
    weighted_combination: Demand = None,
    hot_swapping: Demand = None,
    mixed_methods: Demand = None,
    modules_to_save: Demand = None,
    trainable_token_indices: Demand = None,
    save_and_reload: Demand = None,
    disable_adapter: Demand = None,
    identity_at_start: Demand = None,
    gradient_checkpointing: Demand = None,
    torch_compile: Demand = None,
    deterministic: Demand = None,
    category: Category | AnyOf | None = None,
    family: Family | AnyOf | None = None,
    task_types: TaskType | Iterable[TaskType] | AnyOf | None = None,
    options: OptionName | Iterable[OptionName] | AnyOf | None = None,
    serve: str | Iterable[str] | AnyOf | None = None,
    trainer: str | Iterable[str] | AnyOf | None = None,
    methods: MethodName | str | Iterable[MethodName | str] | None = None,
    exclude: MethodName | str | Iterable[MethodName | str] | None = None,
    min_evidence: EvidenceLevel | None = None,
    floor: Quantity | None = None,
    rank_by: str | Mapping[str, float] | None = None,
    accelerator: str | None = None,
    include_flagged: bool = False,
    confidence: float = 0.95,
    certainty: Literal["rerun", "questions"] | None = None,
    peft_version: str | None = None,
    catalog: Catalog | str | PathLike[str] | None = None,
    **bounds: Unpack[Bounds],
) -> Recommendation:
    """Pareto-optimal configurations among all measured runs that meet the constraints.

    For every filter a list means all of these, `any_of(...)` one of these; an unknown value never
    satisfies; an unknown name is an error. An answer without a front is still an answer: its
    `relaxations` say what to give up.

    Args:
        benchmark: `"metamathqa"` (text) or `"image_gen"`; by default the one that is evidence for
            the model, else text.
        objectives: metrics to optimise together; headline score and peak memory by default.
        model: the model to train, as for `inspect_model` (a module, a configuration, a folder, a
            hub id) or its `Structure`: configurations come out valid on it, with every change, and
            what cannot work on it is dropped with the reason.
        adapt: what to do on that model otherwise than measured, by the fields of `TargetOptions`,
            such as `{"total_steps": 2000}`.
        training: the step that you will run on that model, by the fields of `Settings`, such as
            `{"batch_size": 8, "sequence_length": 1024}`: memory, checkpoints and counts become
            forecasts for it.
        device: the accelerator that it must fit on, such as `"RTX 4090"`, `"2xA100-80GB"` (one of
            them counts) or `"24GiB"`; what a process needs besides is taken off.
        max_memory: greatest peak memory that the allocator may reserve, instead of a device.
        fit: `"auto"`, the default beside `device` or `max_memory`, gives every candidate the
            cheapest setup that fits: precision of the base, gradient checkpointing, micro-batches
            at the same effective batch, optimizer, loss; what `training` states stays. `"off"`
            takes the settings as they are.
        within: time for dry runs of candidates whose memory no closed form tells, such as `"60s"`;
            the baselines go first, then the front and the ties, and what is left stays unknown. By
            default a minute for a model whose blocks no closed form knows, else none.
        snapshot: state of the evidence on a date; the newest by default, `"all"` for every run.
        era: runs scored the same way; the newest of the snapshot by default, `"any"` mixes them,
            `"shifted"` moves older scores by the measured shift.
        evidence: `"snapshot"` takes the current run of each experiment, `"pooled"` the mean of
            all comparable runs of the same recipe.
        quantization: backends on whose quantized layers it must train.
        layer_types: layers that it must adapt.
        merging: whether it merges into the base weights.
        convertible_to_lora: whether peft converts it to LoRA.
        extractable_to_lora: whether its update can be written as a LoRA (`peft-shop convert`);
            `"partial"` takes approximations too.
        multiple_adapters: whether one model holds several adapters of it.
        mixed_batches: whether one batch may use different adapters.
        weighted_combination: whether adapters combine with weights.
        hot_swapping: whether a loaded adapter can be replaced in place.
        mixed_methods: whether it works beside other methods.
        modules_to_save: whether whole modules can be trained beside it.
        trainable_token_indices: whether single token embeddings can be trained beside it.
        save_and_reload: whether a saved adapter loads back to the same outputs.
        disable_adapter: whether `disable_adapter()` gives the outputs of the base back.
        identity_at_start: whether the wrapped model starts out equal to the base.
        gradient_checkpointing: whether it trains under gradient checkpointing.
        torch_compile: whether it works under `torch.compile`.
        deterministic: whether one seed gives one adapter.
        category: adapter, prompt_learning or other.
        family: family of methods, such as `"orthogonal"`.
        task_types: task types it must support.
        options: configuration options it must have, such as `"rank_pattern"`.
        serve: engines that it must reach as it is, converted or merged, such as `"vllm"`;
            `"vllm:native"` demands one kind of way (`native`, `convert`, `merge`).
        trainer: training tools that must take all of it, such as `"unsloth"`; `"axolotl:partly"`
            also keeps what loses an option there, `"trl==1.15.0"` names the version that you have.
        methods: only these methods.
        exclude: none of these methods.
        min_evidence: weakest evidence that counts for a demanded capability.
        floor: least headline score; the benchmark's own by default, 0 for none.
        rank_by: order of the front: `"headline"`, a metric, `"knee"` (nearest to the ideal
            point), `"cheapest-tie"`, or weights by metric.
        accelerator: hardware whose memory and time count; that of most runs by default.
        include_flagged: whether broken runs and artefacts may be ranked.
        confidence: one-sided confidence at which a run counts as worse.
        certainty: what ± and probabilities are about: `"rerun"`, whether it would happen again on
            these test questions; `"questions"`, the default where their number is known, whether it
            would hold on others like them.
        peft_version: version the configurations must work with; the installed one by default,
            `"any"` for no restriction.
        catalog: a catalog, or the path of a catalog file; the embedded one by default.
        **bounds: `max_<metric>` and `min_<metric>`.

    Raises:
        InputError: a name, quantity or combination that cannot be answered.
        CatalogError: the catalog file is broken.
        ModelError: the model cannot be inspected.
        MissingExtraError: inspecting it needs a package that is not installed.

    Example:
        >>> rec = recommend("metamathqa", max_peak_memory="20GiB", peft_version="any")
        >>> rec.best.values["peak_memory"] <= 20 * 2**30
        True
    """
    stated = dict(locals())  # before anything else is: what was asked, by keyword
    del stated["bounds"]
    source, query, target = _read(stated, bounds)
    limit = None if within is None else read_quantity(within, "seconds", name="within")

    def asked() -> Recommendation:
        if target is None or query.training is None:
            recommendation = answer(source, query)
            return recommendation if target is None else recommendation.about(target)
        from peft_shop.ask.settling import settled  # noqa: PLC0415 - only where costs are asked

        return settled(source, query, target, seconds=limit).about(target)

    return asked().asked_by(asked, source)


def read_question(**stated: Any) -> Query:
    """The question that arguments of `recommend` stand for; nothing is answered.

    Raises:
        InputError: as `recommend`.
        ModelError: as `recommend`.
    """
    keywords = signature(recommend).parameters
    usual = {name: parameter.default for name, parameter in keywords.items() if name != "bounds"}
    bounds = {name: value for name, value in stated.items() if name not in usual}
    named = {name: value for name, value in stated.items() if name in usual}
    return _read({**usual, **named}, bounds)[1]


def _read(
    stated: dict[str, Any], bounds: Mapping[str, Any]
) -> tuple[Catalog, Query, Target | None]:
    """The catalog, the question and the inspected model of what was stated by keyword."""
    check_keywords({**stated, **bounds})
    for name in ("methods", "quantization"):  # they are read more than once
        if isinstance(stated[name], Iterator):
            stated[name] = list(stated[name])
    catalog, model, training = stated["catalog"], stated["model"], stated["training"]
    source = catalog if isinstance(catalog, Catalog) else load(catalog)
    peft_version = stated["peft_version"]
    if peft_version is None:
        peft_version = installed_peft_version()
    elif peft_version == ANY_VERSION:
        peft_version = None
    else:
        version_key(peft_version)
    target: Target | None = None
    structure: Structure | None = None
    if isinstance(model, Structure):
        structure = model
    elif model is not None:
        from peft_shop.model.inspection import inspect_model  # noqa: PLC0415 - torch only for a model

        target = inspect_model(model)
        structure = target.structure
    dtype = training.get("dtype") if isinstance(training, Mapping) else training and training.dtype
    memory = read_memory(
        stated["device"], stated["max_memory"], dtype=dtype if isinstance(dtype, str) else ""
    )
    fitting = _fit(stated["fit"], memory)
    step = None
    if training is not None or memory is not None:
        if structure is None:
            limits = ("training", "device", "max_memory")
            about = next(name for name in limits if stated[name] is not None)
            message = "a forecast is about the model that you name: give "
            raise QueryError(message, Keyword("model"), " too", keyword=about)
        implied = resolve_picks(source, stated["methods"], "methods").quantization
        step = read_training(training, structure, _only(stated["quantization"] or list(implied)))
    query = build_query(
        source,
        model=structure,
        training=None if step is None else step.settings,
        memory=memory,
        fit=fitting,
        fixed=() if step is None else step.fixed,
        effective_batch=None if step is None or fitting == "off" else step.effective_batch,
        demands={name: stated[name] for name in DEMANDS},
        bounds=bounds,
        peft_version=peft_version,
        **{name: stated[name] for name in _PASSED},
    )
    return source, query, target


def _fit(fit: str | None, memory: MemoryLimit | None) -> Literal["auto", "off"]:
    """Whether setups are chosen: by default where there is something to fit into."""
    if fit == "auto" and memory is None:
        raise QueryError(
            "there is nothing to fit into: give ",
            Keyword("device"),
            " or ",
            Keyword("max_memory"),
            keyword="fit",
        )
    return "off" if fit == "off" or memory is None else "auto"


def _only(quantization: str | Iterable[str] | AnyOf | None) -> str | None:
    """The backend that a question demands, where it is one alone."""
    if quantization is None or isinstance(quantization, AnyOf):
        return None
    names = [quantization] if isinstance(quantization, str) else list(quantization)
    if len(names) != 1:
        return None
    return backend_of(names[0].partition(":")[0])


@cache
def installed_peft_version() -> str | None:
    """Version of the installed peft, which is not imported; `None` when there is none."""
    from peft_shop.upstream.source import installed_peft  # noqa: PLC0415 - only where none is named

    try:
        installed = installed_peft()
    except ConfigError:  # something else of that name: whoever needs peft will say so
        return None
    # a source that states none has no version to compare with
    return installed.version if installed is not None and installed.version[:1].isdigit() else None
