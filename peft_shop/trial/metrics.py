"""What a trial measures: its metrics, its benchmark, and the figures of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.benchmarks import Benchmark, Metric
from peft_shop.catalog.store import load

if TYPE_CHECKING:
    from peft_shop.trial.records import Protocol
    from peft_shop.trial.results import Measured

__all__ = ["OWN_METRICS", "benchmark_of", "figures_of", "metrics_of"]

_UNSCORED: Final = 1e9
"""Floor of a benchmark whose base was not scored yet: nothing is below it."""
OWN_METRICS: Final = (
    Metric(
        id="test_loss",
        field="test_loss",
        title="Test loss",
        unit="score",
        better="lower",
        scope="score",
        description="Mean negative log-likelihood of the predicted tokens of the user's test "
        "examples [nats a token].",
    ),
    Metric(
        id="valid_loss",
        field="valid_loss",
        title="Validation loss",
        unit="score",
        better="lower",
        scope="score",
        description="The same on the validation examples, which choose the learning rate.",
    ),
    Metric(
        id="gain_over_base",
        field="gain_over_base",
        title="Gain over the base",
        unit="score",
        better="higher",
        scope="score",
        description="Test loss of the model as it is, less that of the trained one [nats a token].",
    ),
    Metric(
        id="cpu_time",
        field="cpu_seconds",
        title="Processor time of the steps",
        unit="seconds",
        better="lower",
        scope="time",
        tie_relative=0.05,
        description="Time that the processor worked in all training steps of a trial on the CPU; "
        "unlike the clock it hardly depends on what else the machine does.",
    ),
    Metric(
        id="eval_peak_memory",
        field="eval_peak_memory_bytes",
        title="Peak memory of scoring",
        unit="bytes",
        better="lower",
        scope="memory",
        tie=107374182.4,
        description="Largest amount of accelerator memory reserved while the trial scored a run.",
    ),
    Metric(
        id="exact_match",
        field="exact_match",
        title="Exact matches",
        unit="fraction",
        better="higher",
        scope="score",
        description="Share of the user's test examples whose greedily generated answer is the "
        "reference, but for space around both.",
    ),
    Metric(
        id="choice_accuracy",
        field="choice_accuracy",
        title="Right choices",
        unit="fraction",
        better="higher",
        scope="score",
        description="Share of the user's test examples whose right completion is likelier than "
        "every other one that stands for choice.",
    ),
)
"""Metrics that only trials have."""
_SHARED: Final = (
    "forgetting",
    "peak_memory",
    "step_time",
    "checkpoint_size",
    "trainable_parameters",
    "total_parameters",
    "train_loss",
)
"""Metrics of the published benchmarks that trials have too, in the order of interest."""


_ON_ACCELERATOR: Final = {"peak_memory", "eval_peak_memory", "step_time"}
_SHARES: Final = frozenset({"exact_match", "choice_accuracy", "test_accuracy"})
"""Scores that are the share of test examples with a right answer."""


def metrics_of(protocol: Protocol) -> tuple[Metric, ...]:
    """Metrics of a trial that are not on record elsewhere, and the one of its score."""
    name = protocol.score_metric
    code = protocol.code
    if code is not None and name is not None:
        own = Metric(
            id=name,
            field=name,
            title=f"Score {code.function}",
            unit="score",
            better="higher",
            scope="score",
            description=f"Mean of the user's own function {code.function} (sha256 {code.sha256}) "
            "over the test examples.",
        )
        return (*OWN_METRICS, own)
    published = () if name != "test_accuracy" else (load().metric_by_id[name],)
    return (*OWN_METRICS, *published)


def benchmark_of(
    protocol: Protocol, base: Measured | None = None, *, shared: bool = False
) -> Benchmark:
    """The trial's own benchmark.

    Args:
        protocol: of the trial.
        base: what the model as it is scored: the floor. `None` before it was scored.
        shared: whether runs met on an accelerator.
    """
    asked = protocol.asked
    on_accelerator = protocol.device != "cpu"
    absent = {"forgetting"} if protocol.general is None else set()
    absent |= {"cpu_time"} if on_accelerator else _ON_ACCELERATOR
    absent |= {"cpu_time", *_ON_ACCELERATOR} if shared else set()
    absent |= {"exact_match", "choice_accuracy"} - {protocol.score_metric}
    other = "trainable_parameters" if protocol.general is None else "forgetting"
    headline = protocol.score_metric or "test_loss"
    own = [metric.id for metric in OWN_METRICS]
    names = dict.fromkeys((headline, own[0], *_SHARED, *own[1:]))
    floor, because = _floor(protocol, base)
    examples = protocol.test.examples
    return Benchmark(
        id=protocol.benchmark,
        title=f"Trial {protocol.benchmark.removeprefix('trial_')}",
        model_id=asked.model,
        modality="text",
        task=asked.task,
        private=True,
        description=(
            f"{protocol.train.examples} training examples, {asked.steps} steps of "
            f"{asked.batch_size} examples of at most {asked.max_length} tokens, on "
            f"{protocol.device} in {protocol.dtype}; scored on {examples} examples. "
            "Every candidate has the same steps, batches and number of learning rates."
        ),
        headline=headline,
        score=_score_text(protocol),
        sample_size=examples if headline in _SHARES else None,
        objectives=(headline, other),
        metrics=tuple(name for name in names if name not in absent),
        definitions=_definitions(protocol),
        floor=floor,
        floor_because=because,
        protocol=protocol.digest,
    )


def _score_text(protocol: Protocol) -> str:
    """What a headline figure is, as it reads behind the figure."""
    examples = protocol.test.examples
    texts = {
        "exact_match": f"of {examples} test answers equal to the reference",
        "choice_accuracy": f"of {examples} right choices",
        "test_accuracy": f"of {examples} test examples in the right class",
    }
    if protocol.code is not None:
        return f"mean of {protocol.code.function} over {examples} test examples"
    return texts.get(protocol.score_metric or "", "nats a token")


def _definitions(protocol: Protocol) -> dict[str, str]:
    """What metrics mean in this trial beyond their general description."""
    asked = protocol.asked
    if asked.task == "seq_cls":
        loss = "Of classes: mean negative log-likelihood of the right one [nats an example]."
        names = ("test_loss", "valid_loss", "gain_over_base")
        accuracy = f"Share of {protocol.test.examples} test examples whose likeliest of "
        accuracy += f"{len(protocol.labels)} classes is the right one."
        return dict.fromkeys(names, loss) | (
            {"test_accuracy": accuracy} if protocol.score_metric == "test_accuracy" else {}
        )
    generated = asked.scored_by == "exact_match" or protocol.code is not None
    if generated and protocol.score_metric is not None:
        return {
            protocol.score_metric: f"Answers of at most {asked.max_new_tokens} tokens, generated "
            "greedily; the model's own generation settings are ignored."
        }
    return {}


def _floor(protocol: Protocol, base: Measured | None) -> tuple[float, str]:
    """Headline score below which nothing was learned, and why."""
    if protocol.score_metric is None:
        because = "the test loss of the model as it is: what is above it learned nothing"
        return (_UNSCORED if base is None else base.test_loss), because
    scored = -_UNSCORED if base is None or base.score is None else base.score
    if protocol.score_metric == "test_accuracy" and protocol.majority is not None:
        # the base's new head is random: naming one class always is the better yardstick
        because = "the share of the class that is most frequent in training, or the score of the "
        return max(scored, protocol.majority), because + "model as it is if that is higher"
    return scored, "the score of the model as it is: what is below it learned nothing"


def figures_of(
    protocol: Protocol, measured: Measured, base: Measured | None, *, shared: bool = False
) -> dict[str, float]:
    """Figures of one run by the field of their metric.

    Args:
        protocol: of the trial.
        measured: what the meter found.
        base: what the model as it is scored.
        shared: whether runs met on an accelerator: memory and time are absent then.
    """
    figures: dict[str, float | None] = {
        "test_loss": measured.test_loss,
        "valid_loss": measured.valid_loss,
        "train_loss": measured.train_loss,
        "trainable_parameters": measured.trainable_parameters,
        "total_parameters": measured.total_parameters,
        "checkpoint_bytes": measured.checkpoint_bytes,
    }
    if protocol.score_metric is not None:
        figures[protocol.score_metric] = measured.score
    if base is not None:
        figures["gain_over_base"] = base.test_loss - measured.test_loss
        if measured.general_loss is not None and base.general_loss is not None:
            figures["forgetting"] = measured.general_loss - base.general_loss
    if protocol.device == "cpu" and not shared:
        figures["cpu_seconds"] = measured.cpu_seconds
    elif not shared:
        figures["step_seconds"] = measured.step_seconds
        figures["peak_memory_bytes"] = measured.peak_memory_bytes
        figures["eval_peak_memory_bytes"] = measured.eval_peak_memory_bytes
    return {name: value for name, value in figures.items() if value is not None}
