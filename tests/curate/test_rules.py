"""Every rule has a record that breaks it and one that keeps it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog import conditions, engines, methods, trainers
from peft_shop.curate.sources import rules, sources
from peft_shop.curate.sources.rules import RULES, installed_methods, validate

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[Any], None]

ROOT = Path(__file__).parents[2]
LORA, CPT = "catalog/curated/lora.toml", "catalog/curated/cpt.toml"
SEEN, SEEN_CPT = "catalog/observed/lora.json", "catalog/observed/cpt.json"
HISTORY = "catalog/observed/history.json"
SAMPLES = (
    'samples = { source = "nowhere", image = "https://example.org/{experiment}_{number}.png", '
    'count = 1, stated_at = "https://example.org/a", date = "2026-01-01" }\n'
)
BENCHMARKS, SNAPSHOTS = "data/benchmarks.toml", "data/snapshots.toml"
NOISE = {"benchmark": "sums", "metric": "test_accuracy", "sd": 0.01, "method": "repeated"}
THIN = "sums:lora/thin@2026-01-02T03:04:05+00:00"


def text(name: str, old: str, new: str) -> Edit:
    return lambda folders: folders.edit(name, old, new)


def member(name: str, *place: str | int, value: Any) -> Edit:
    return lambda folders: folders.edit_json(name, *place, value=value)


def thin(*place: str | int, value: Any) -> Edit:
    return lambda folders: folders.edit_run(0, *place, value=value)


def added(**changes: Any) -> Edit:
    return lambda folders: folders.add_run("lora/more", 2_500, 0.42, **changes)


def noise(**changes: Any) -> Edit:
    return lambda folders: folders.write_json("data/noise.json", {"noise": [NOISE | changes]})


def shift(**changes: Any) -> Edit:
    known = {"benchmark": "sums", "metric": "test_accuracy", "older": "old", "newer": "new"}
    value = known | {"shift": -0.02, "standard_error": 0.01, "pairs": 3} | changes
    return lambda folders: folders.write_json("data/noise.json", {"era_shifts": [value]})


def flag(code: str, *metrics: str) -> list[dict[str, Any]]:
    return [{"code": code, "metrics": list(metrics), "reason": "Seen."}]


def without(name: str) -> Edit:
    return lambda folders: (folders.catalog.parent / name).unlink()


CAPABILITY = ("capabilities", "merging")
VARIANT = ("variants", "rslora", "capabilities", "hot_swapping")
CHANGED = {"support": "yes", "level": "trained"}

_ENGINE = """\
id = "vend"
title = "Vend"
aliases = ["ve.nd 2"]
kind = "local"
version = "1.0"
checked = "2026-01-02"
sources.code.place = "wheel: vend.py"
ranks = { flag = "--rank", choices = [8, 16], default = 16, least = 2, most = 16 }
facts.lora = { value = "yes", needs = "Rename it." }
facts.oft = { value = "unknown", note = "Nobody tried." }
hazards = [{ text = "It forgets." }]
kinds.decoder = { value = "yes" }
architectures = [{ value = "reject", note = "It says so.", names = ["OldModel"] }]
rules = [{ when = "adapts", names = ["c_attn"], value = "silent", note = "It is lost." }]
command = { line = "vend BASE --lora ADAPTER", flags = ["--lora"] }
"""
_TWICE = '{ value = "no", names = ["OldModel"] }'
_TRAINER = """\
id = "tune"
title = "Tune"
aliases = ["tu.ne 2"]
kind = "file"
version = "1.0"
checked = "2026-01-02"
entry = "flags"
saves = "peft"
file = "yaml"
sources.code.place = "wheel: tune.py"
sources.tried = { place = "A trial.", steps = "4", learning_rate = "1e-3" }
facts.lora = { value = "yes", how = "trained", key = "lora: true", source = "tried" }
facts.rslora = { value = "silent", note = "It is lost.", needs = "Say so.", written = true }
facts.cpt = { value = "unknown", note = "Nobody tried." }
hazards = [{ text = "It forgets." }]
rules = [{ when = "quantized", topics = ["lora"], value = "reject", note = "It stops." }]
keys = { r = "rank" }
defaults = { lora_alpha = "16" }
"""
_CONVERSION = """\
[[conversions]]
method = "lora"
verdict = "exact"
rank = [["r"]]
defaults = { r = 8 }

[[conversions]]
method = "lora"
traits = ["dora"]
verdict = "wrong"
because = "Magnitudes are lost."
"""


def engine(old: str = "", new: str = "", name: str = "vend") -> Edit:
    assert old in _ENGINE
    content = _ENGINE.replace(old, new) if old else _ENGINE
    return lambda folders: folders.write(f"catalog/engines/{name}.toml", content)


def trainer(old: str = "", new: str = "", name: str = "tune") -> Edit:
    assert old in _TRAINER
    content = _TRAINER.replace(old, new) if old else _TRAINER
    return lambda folders: folders.write(f"catalog/trainers/{name}.toml", content)


def two_trainers(folders: Any) -> None:
    folders.write("catalog/trainers/tune.toml", _TRAINER)
    other = _TRAINER.replace('"tune"', '"other"')
    folders.write("catalog/trainers/other.toml", other)


def conversion(old: str, new: str) -> Edit:
    assert old in _CONVERSION
    content = _CONVERSION.replace(old, new, 1)
    return lambda folders: folders.write("catalog/conversions.toml", content)


def point(rank: int, **config: Any) -> dict[str, Any]:
    return {"config": config, "ranks": {"48x40": rank}}


def fidelity(
    *,
    support: str = "partial",
    missing: bool = False,
    method: str = "lora",
    **members: Any,
) -> Edit:
    """A measured extraction of LoRA, beside an exact rule of `method`."""

    def edit(folders: Any) -> None:
        folders.write("catalog/conversions.toml", _CONVERSION.replace('"lora"', f'"{method}"', 1))
        found = {"support": support, "level": "verified", "note": "Seen.", "measured": {"x": 1}}
        folders.edit_json(SEEN, "capabilities", "extractable_to_lora", value=found)
        if not missing:
            value = {"rank": 8, "layers": ["linear"]} | members
            folders.edit_json(SEEN, "fidelity", value=value)

    return edit


def two_engines(folders: Any) -> None:
    engine()(folders)
    other = _ENGINE.replace('"vend"', '"other"').replace("ve.nd 2", "VEND")
    folders.write("catalog/engines/other.toml", other)


BREAKING: list[tuple[str, str, Edit]] = [
    ("engine-file", "vendor", engine(name="vendor")),
    ("engine-names", "vend", engine("ve.nd 2", "VeNd")),
    ("engine-names", "other", two_engines),
    ("engine-facts", "vend.lorra", engine("facts.lora", "facts.lorra")),
    ("engine-facts", "vend", engine("Rename it.", 'Rename it.", source = "docs')),
    ("engine-facts", "vend", engine("It forgets.", 'It forgets.", source = "docs')),
    ("engine-facts", "vend", engine("most = 16", 'most = 16, source = "docs"')),
    ("engine-sources", "vend.more", engine("ranks =", 'sources.more.place = "x"\nranks =')),
    ("engine-note", "vend.oft", engine(', note = "Nobody tried."', "")),
    ("engine-note", "vend", engine("Rename it.", "Rename it")),
    ("engine-note", "vend", engine("It forgets.", "It forgets")),
    ("engine-ranks", "vend", engine("[8, 16]", "[16, 8]")),
    ("engine-ranks", "vend", engine("[8, 16]", "[0, 16]")),
    ("engine-ranks", "vend", engine("default = 16", "default = 12")),
    ("engine-ranks", "vend", engine('flag = "--rank", ', "")),
    ("engine-ranks", "vend", engine("least = 2", "least = 20")),
    ("engine-rules", "vend", engine('"adapts"', '"adopts"')),
    ("engine-rules", "vend", engine('names = ["c_attn"], ', "")),
    (
        "engine-rules",
        "vend",
        engine('"OldModel"]', '"OldModel"] }, { value = "no", names = ["OldModel"]'),
    ),
    ("engine-command", "vend", engine('flags = ["--lora"]', 'flags = ["--loras"]')),
    ("engine-note", "vend", engine("It is lost.", "It is lost")),
    (
        "engine-note",
        "vend.decoder",
        engine('decoder = { value = "yes"', 'decoder = { value = "unknown"'),
    ),
    ("trainer-file", "tuner", trainer(name="tuner")),
    ("trainer-names", "tune", trainer("tu.ne 2", "TuNe")),
    ("trainer-names", "tune", two_trainers),
    ("trainer-facts", "tune.lorra", trainer("facts.lora", "facts.lorra")),
    ("trainer-facts", "tune", trainer("It forgets.", 'It forgets.", source = "docs')),
    ("trainer-facts", "tune", trainer('when = "quantized"', 'when = "quantised"')),
    ("trainer-facts", "tune", trainer('topics = ["lora"]', 'topics = ["lorra"]')),
    ("trainer-keys", "tune", trainer('r = "rank"', 'rank = "rank"')),
    ("trainer-keys", "tune", trainer("lora_alpha", "alpha")),
    ("trainer-sources", "tune.more", trainer("keys =", 'sources.more.place = "x"\nkeys =')),
    ("trainer-trial", "tune.lora", trainer(', learning_rate = "1e-3"', "")),
    ("trainer-trial", "tune.lora", trainer('steps = "4", ', "")),
    ("trainer-note", "tune.cpt", trainer(', note = "Nobody tried."', "")),
    ("trainer-note", "tune", trainer("It forgets.", "It forgets")),
    ("trainer-note", "tune", trainer("It stops.", "It stops")),
    ("trainer-note", "tune", trainer("Say so.", "Say so")),
    ("trainer-written", "tune", trainer(', needs = "Say so."', "")),
    ("trainer-written", "tune", trainer('file = "yaml"\n', "")),
    ("conversion-known", "convert:loora", conversion('"lora"', '"loora"')),
    ("conversion-known", "convert:lora:doora", conversion('"dora"', '"doora"')),
    ("conversion-known", "convert:lora", conversion("defaults = { r = 8 }", "")),
    ("conversion-known", "convert:lora", conversion('[["r"]]', '[["r"], ["rr"]]')),
    ("conversion-reason", "convert:lora", conversion('rank = [["r"]]', "")),
    ("conversion-reason", "convert:lora:dora", conversion("are lost.", "are lost")),
    ("conversion-reason", "convert:lora", conversion('"exact"', '"approximate"')),
    ("rank-measured", "lora", fidelity(grid=[point(9, r=8)])),
    ("rank-measured", "convert:lora", fidelity(grid=[point(7, r=8)])),
    ("rank-measured", "convert:lora", fidelity()),
    ("rank-told", "lora", fidelity(support="yes", method="cpt")),
    ("fidelity-measured", "lora", fidelity(missing=True)),
    ("fidelity-measured", "lora", fidelity(errors=[0.5, 0.4])),
    ("fidelity-measured", "lora", fidelity(errors=[0.5, 0.6, 0.4, 0.1])),
    ("fidelity-measured", "lora", fidelity(rank=129)),
    ("two-files", "cpt", without(SEEN_CPT)),
    ("two-files", "cpt", without(CPT)),
    ("two-files", "lora", text(LORA, 'peft_type = "LORA"', 'peft_type = "LOHA"')),
    ("two-files", "lora", member(SEEN, "method", value="loha")),
    ("config-class", "lora", text(LORA, "LoraConfig", "LoRAConfig")),
    ("paper-or-reason", "cpt", text(CPT, "no_paper_because", "#")),
    ("paper-or-reason", "lora", text(LORA, "aliases =", 'no_paper_because = "x"\naliases =')),
    ("paper-link", "lora", text(LORA, "abs/2106.09685", "pdf/2106.09685")),
    ("paper-link", "lora", text(LORA, "abs/2106.09685", "abs/2106.09685v2")),
    ("paper-link", "lora", text(LORA, "paper.year = 2021", "paper.year = 2022")),
    ("summary", "lora", text(LORA, "the usual first choice.", "the usual first choice")),
    ("summary", "lora", text(LORA, "Learns the product of two thin matrices beside each", "A")),
    ("summary", "lora", text(LORA, "the usual", "the usual " + 400 * "x")),
    ("finished-text", "lora", text(LORA, "sets its size.", "sets its size")),
    ("finished-text", "lora/lora_fa", text(LORA, "Trains one of the", "TODO say which.")),
    ("names-unique", "lora", text(LORA, '["locon"]', '["CPT"]')),
    ("names-unique", "lora", text(LORA, '["locon"]', '["lora"]')),
    ("names-unique", "lora", text(LORA, '["locon"]', '["locon", "locon"]')),
    ("names-unique", "lora/rslora", text(LORA, 'id = "lora_fa"', 'id = "rslora"')),
    ("tasks", "lora", text(LORA, '["CAUSAL_LM", "IMAGE"]', '["IMAGE"]')),
    ("tasks", "cpt", text(CPT, '["CAUSAL_LM"]', "[]")),
    ("tasks", "cpt", text(CPT, '["CAUSAL_LM"]', '["CAUSAL_LM", "CAUSAL_LM"]')),
    ("family-category", "cpt", text(CPT, '"prompt"', '"scaling"')),
    ("family-category", "cpt", text(CPT, '["CAUSAL_LM"]', '["CAUSAL_LM", "IMAGE"]')),
    ("filled-by-compiler", "lora/rslora", text(LORA, '"rsLoRA"', '"rsLoRA"\nsince = "0.9.0"')),
    ("variant-conditions", "lora/rslora", text(LORA, '"use_rslora"', '"use_rslor"')),
    ("variant-conditions", "lora/lora_fa", text(LORA, '"optimizer"', '"optimiser"')),
    ("variant-conditions", "lora/rslora", text(LORA, ", equals = true", "")),
    ("variant-conditions", "lora/rslora", text(LORA, "equals = true", 'equals = 1, prefix = "x"')),
    ("variant-conditions", "lora/rslora", text(LORA, 'config = "use_rslora",', "")),
    (
        "variant-conditions",
        "lora/lora_fa",
        text(LORA, '"optimizer",', '"optimizer", config = "r",'),
    ),
    (
        "variant-conditions",
        "lora/rslora",
        text(LORA, '[{ config = "use_rslora", equals = true }]', "[]"),
    ),
    ("override-known", "cpt.merge", text(CPT, "[overrides.merging]", "[overrides.merge]")),
    ("override-needed", "cpt.merging", text(CPT, 'support = "no"', 'support = "yes"')),
    ("features-filled", "lora", member(SEEN, *CAPABILITY, value=None)),
    ("features-filled", "lora.merge", member(SEEN, "capabilities", "merge", value=CHANGED)),
    ("note-required", "lora.merging", member(SEEN, *CAPABILITY, "support", value="partial")),
    (
        "note-required",
        "lora/rslora.hot_swapping",
        member(SEEN, *VARIANT, "support", value="unknown"),
    ),
    (
        "conditions-partial",
        "lora.merging",
        member(SEEN, *CAPABILITY, "conditions", value=[{"bias": False}]),
    ),
    ("portable-note", "lora.merging", member(SEEN, *CAPABILITY, "note", value="see /srv/a/b.py")),
    ("portable-note", "lora.merging", member(SEEN, *CAPABILITY, "note", value="<at 0x7f00aa00>")),
    ("verified-measured", "lora.merging", member(SEEN, *CAPABILITY, "measured", value={})),
    ("observed-source", "lora.merging", member(SEEN, *CAPABILITY, "source", value="curated")),
    ("environment-known", "lora.merging", member(SEEN, *CAPABILITY, "environment", value="cuda")),
    ("one-peft", "cpt", member(SEEN_CPT, "environments", "cpu", "peft", value="0.3.0")),
    ("variant-known", "lora/dora", member(SEEN, "variants", "dora", value={"capabilities": {}})),
    ("variant-differs", "lora/rslora.hot_swapping", member(SEEN, *VARIANT, "support", value="no")),
    ("options-known", "lora", member(SEEN, "options", value=["bias", "biases"])),
    ("history-complete", "lora", without(HISTORY)),
    ("history-complete", "lora", member(HISTORY, "methods", "lora", value=None)),
    ("history-complete", "lora", member(HISTORY, "methods", "lora", "fields", value={})),
    ("history-complete", "lora", member(HISTORY, "methods", "lora", "since", value="0.4.0")),
    ("history-complete", "loha", member(HISTORY, "methods", "loha", value={"since": "0.3.0"})),
    (
        "history-complete",
        "lora/rslora",
        member(HISTORY, "methods", "lora", "variants", "rslora", value=None),
    ),
    ("definitions-unique", "2026-01", text(SNAPSHOTS, 'id = "2026-02"', 'id = "2026-01"')),
    ("definitions-unique", "train_seconds", text(BENCHMARKS, "peak_memory_bytes", "train_seconds")),
    (
        "benchmark-names",
        "more",
        text(
            BENCHMARKS,
            '[[benchmarks.eras]]\nid = "old"',
            '[[benchmarks]]\nid = "more"\ntitle = "x"\naliases = ["SU-MS"]\nmodel_id = "x"\n'
            'modality = "text"\ndescription = "x"\nheadline = "test_accuracy"\n'
            'metrics = ["test_accuracy"]\nfloor = 0\nfloor_because = "x"\n'
            '[[benchmarks.eras]]\nid = "old"',
        ),
    ),
    (
        "benchmark-defaults",
        "sums",
        text(BENCHMARKS, "floor = 0.1", 'objectives = ["x"]\nfloor = 0'),
    ),
    (
        "benchmark-defaults",
        "sums",
        text(BENCHMARKS, "floor = 0.1", 'definitions = { drift = "X." }\nfloor = 0'),
    ),
    ("sample-size", "sums", text(BENCHMARKS, "sample_size = 500", "")),
    ("samples", "sums", text(BENCHMARKS, "floor = 0.1", f"{SAMPLES}floor = 0.1")),
    ("benchmark-metrics", "sums", text(BENCHMARKS, '["peak_memory",', '["peek_memory",')),
    ("benchmark-metrics", "sums", text(BENCHMARKS, '["peak_memory",', '["train_time",')),
    (
        "benchmark-metrics",
        "sums",
        text(BENCHMARKS, '"train_time", "test_accuracy"', '"train_time"'),
    ),
    ("headline", "sums", text(BENCHMARKS, 'better = "higher"', 'better = "lower"')),
    ("headline", "sums", text(BENCHMARKS, 'headline = "test_accuracy"', 'headline = "train_time"')),
    ("eras", "sums", text(BENCHMARKS, 'id = "new"', 'id = "old"')),
    ("eras", "sums", text(BENCHMARKS, 'transformers_below = "5.0.0"', "")),
    ("eras", "sums", text(BENCHMARKS, 'id = "new"', 'id = "new"\ntransformers_below = "6.0"')),
    ("unit-in-field", "peak_memory", text(BENCHMARKS, '"peak_memory_bytes"', '"peak_memory"')),
    ("unit-in-field", "train_time", text(BENCHMARKS, '"train_seconds"', '"train_seconds_bytes"')),
    ("tie-width", "peak_memory", text(BENCHMARKS, "tie = 1000.0", "tie = 1.0\ntie_relative = 0.1")),
    ("tie-width", "peak_memory", text(BENCHMARKS, "tie = 1000.0", "tie = 0.0")),
    ("metric-used", "train_time", text(BENCHMARKS, '"train_time", "test', '"test')),
    ("snapshot-source", "2026-01", text(SNAPSHOTS, 'source = "lab"', 'source = "lob"')),
    ("snapshot-used", "2026-03", text(SNAPSHOTS, 'id = "2026-02"', 'id = "2026-03"')),
    ("noise-references", "sum:test_accuracy", noise(benchmark="sum")),
    ("noise-references", "sums:test", noise(metric="test")),
    ("noise-references", "sums:test_accuracy", noise(era="newer")),
    ("noise-references", "sums:test_accuracy", noise(runs=["lora/thin@2025-01-01T00:00:00Z"])),
    ("noise-references", "sums:test_accuracy", noise(methods=["loara"])),
    ("noise-references", "sums:test_accuracy", shift(older="older")),
    ("noise-interval", "sums:test_accuracy", noise(low=0.02)),
    ("noise-interval", "sums:test_accuracy", noise(high=0.001)),
    ("run-references", THIN, thin("method", value="loha")),
    ("run-references", THIN, thin("variants", value=["dora"])),
    ("run-references", THIN, thin("era", value="newer")),
    ("run-references", THIN, thin("snapshots", value=["2027-01"])),
    ("run-references", THIN, thin("metrics", "drift", value=0.1)),
    ("run-references", THIN, thin("provenance", "source", value="elsewhere")),
    ("run-references", THIN.replace("sums", "sum", 1), thin("benchmark", value="sum")),
    ("run-unique", THIN, lambda folders: folders.add_run("lora/thin", 2_000, 0.4)),
    (
        "run-once-in-snapshot",
        THIN.replace("T03", "T04"),
        lambda folders: folders.add_run(
            "lora/thin", 2_000, 0.4, created_at="2026-01-02T04:04:05+00:00"
        ),
    ),
    ("run-headline", THIN, thin("metrics", value={"peak_memory_bytes": 2000})),
    ("plausible", THIN, thin("metrics", "peak_memory_bytes", value=99_999_999)),
    ("plausible", THIN, thin("metrics", "peak_memory_bytes", value=0)),
    ("plausible", THIN, thin("metrics", "train_seconds", value=-1.5)),
    ("plausible", THIN, thin("metrics", "test_accuracy", value=51.3)),
    ("flag-metrics", THIN, thin("flags", value=flag("artefact", "peak_memory"))),
    ("flag-metrics", THIN, thin("flags", value=flag("sentinel", "peak_memory_bytes"))),
    ("flag-metrics", THIN, thin("flags", value=flag("artefact"))),
    ("recipe-method", THIN, thin("recipe", "peft_type", value="LOHA")),
    ("recipe-method", THIN, thin("recipe", "peft_type", value=None)),
    ("recipe-fields", THIN, thin("recipe", "config", value={"rank": 8})),
    ("recipe-fields", THIN, thin("recipe", "resolved", value={"rank": 8})),
    ("variants-current", THIN, thin("variants", value=["rslora"])),
    ("variants-current", THIN, thin("recipe", "config", value={"use_rslora": True})),
    ("era-of-run", THIN, thin("era", value="old")),
    ("era-of-run", THIN, thin("era", value=None)),
    ("era-of-run", THIN, thin("provenance", "packages", "transformers", value="4.57.1")),
    ("era-of-run", THIN, thin("provenance", "packages", value={"peft": "0.9.0", "torch": "2"})),
    ("curve", THIN, thin("curve", value={"steps": [1, 2], "scores": [0.5]})),
    ("curve", THIN, thin("curve", value={"steps": [2, 1], "scores": [0.5, 0.5]})),
    ("curve", THIN, thin("curve", value={"steps": [1, 101], "scores": [0.5, 0.5]})),
    ("same-conditions", THIN, thin("provenance", "accelerator", value="Other GPU")),
    ("same-conditions", THIN, thin("recipe", "training", "gradient_checkpointing", value=True)),
    ("provenance", THIN, thin("provenance", "sha256", value="a" * 63)),
    ("provenance", THIN, thin("provenance", "commit", value="cccccccc")),
    ("provenance", THIN, thin("provenance", "packages", value={"torch": "2", "transformers": "5"})),
]

KEEPING: list[tuple[str, Edit]] = [
    *((rule.id, engine()) for rule in RULES.values() if rule.id.startswith("engine-")),
    *((rule.id, trainer()) for rule in RULES.values() if rule.id.startswith("trainer-")),
    ("engine-ranks", engine("choices = [8, 16], ", "")),
    ("conversion-known", conversion("dora", "rslora")),
    ("conversion-reason", conversion('"wrong"', '"refused"')),
    ("conversion-known", conversion('method = "lora"\ntraits', 'way = "merge"\ntraits')),
    ("rank-measured", fidelity(grid=[point(8, r=8), point(3, r=4)])),
    ("rank-told", fidelity(support="yes")),
    ("fidelity-measured", fidelity(errors=[0.9, 0.5, 0.5, 0.0])),
    ("paper-link", text(LORA, "https://arxiv.org/abs/2106.09685", "https://example.org/paper.pdf")),
    ("finished-text", text(LORA, "sets its size.", "sets its size!")),
    ("names-unique", text(LORA, '["locon"]', '["locon", "plain_lora"]')),
    ("variant-conditions", text(LORA, "equals = true", "is_set = true")),
    ("variant-conditions", text(LORA, "equals = true", "one_of = [true, 1]")),
    ("override-needed", text(CPT, 'support = "no"', 'support = "partial"')),
    (
        "note-required",
        member(SEEN, *CAPABILITY, value=CHANGED | {"note": "Half.", "support": "partial"}),
    ),
    (
        "portable-note",
        member(SEEN, *CAPABILITY, "note", value="see https://example.org/a/b or r/2"),
    ),
    ("verified-measured", member(SEEN, *CAPABILITY, value={"support": "yes", "level": "trained"})),
    ("variant-differs", member(SEEN, *VARIANT, "level", value="injected")),
    ("unit-in-field", text(BENCHMARKS, '"train_seconds"', '"all_train_seconds"')),
    ("tie-width", text(BENCHMARKS, "tie = 1000.0", "tie_relative = 0.05")),
    ("noise-references", noise(era="new", runs=[THIN.partition(":")[2]])),
    ("noise-references", shift()),
    ("noise-interval", noise(low=0.001, high=0.02)),
    ("run-unique", added()),
    ("run-once-in-snapshot", added(snapshots=[])),
    ("flag-metrics", thin("flags", value=flag("artefact", "peak_memory_bytes"))),
    ("flag-metrics", thin("flags", value=flag("environment"))),
    (
        "flag-metrics",
        added(flags=flag("sentinel", "train_seconds"), metrics={"test_accuracy": 0.4}),
    ),
    ("era-of-run", thin("provenance", "packages", "transformers", value="5.0.0.dev0")),
    ("curve", thin("curve", value=None)),
    (
        "same-conditions",
        added(
            flags=flag("environment", "peak_memory_bytes"),
            provenance={
                "source": "lab",
                "file": "x.json",
                "sha256": "b" * 64,
                "packages": {"peft": "0.9.0", "torch": "2.13.0", "transformers": "5.1.0"},
                "accelerator": "Other GPU",
                "seed": 1,
            },
        ),
    ),
]


@pytest.fixture(autouse=True)
def _two_methods_installed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "folders" in request.fixturenames:
        monkeypatch.setattr(rules, "installed_methods", lambda: frozenset({"lora", "cpt"}))


def test_the_small_catalog_breaks_no_rule(folders: Any) -> None:
    report = validate(folders.catalog, folders.data)
    assert report.violations == ()
    assert report.ok
    assert report.counts == {
        "methods": 2,
        "variants": 2,
        "benchmarks": 1,
        "snapshots": 2,
        "runs": 6,
        "engines": 0,
        "trainers": 0,
        "exceptions": 0,
    }


@pytest.mark.parametrize(("rule", "record", "edit"), BREAKING)
def test_a_rule_finds_what_breaks_it(folders: Any, rule: str, record: str, edit: Edit) -> None:
    edit(folders)
    report = validate(folders.catalog, folders.data)
    found = [violation for violation in report.violations if violation.rule == rule]
    assert record in {violation.record for violation in found}, report.violations
    for violation in found:
        assert Path(violation.problem.path).suffix in {".toml", ".json", ".jsonl"}
        assert violation.problem.message
        assert f"[{rule}: {violation.record}]" in str(violation)


@pytest.mark.parametrize(("rule", "edit"), KEEPING)
def test_a_rule_lets_pass_what_keeps_it(folders: Any, rule: str, edit: Edit) -> None:
    edit(folders)
    report = validate(folders.catalog, folders.data)
    assert [str(v) for v in report.violations if v.rule in {rule, rules.FORMAT}] == []


def test_every_rule_has_a_breaking_case_and_a_law() -> None:
    cases = {rule for rule, _, _ in BREAKING} | {"methods-of-peft"}
    assert cases == set(RULES)
    for rule in RULES.values():
        assert rule.law.endswith("."), rule.id


def guide() -> str:
    return (ROOT / "catalog" / "README.md").read_text(encoding="utf-8")


def test_the_field_guide_has_every_rule_with_its_law() -> None:
    rows = [
        f"| `{rule.id}` | {rule.law} | {'no' if rule.integrity else 'yes'} |"
        for rule in RULES.values()
    ]
    assert [row for row in rows if row not in guide()] == []


def test_the_field_guide_has_a_section_for_every_field() -> None:
    records = (
        methods.Curated,
        methods.Paper,
        methods.Override,
        methods.Variant,
        methods.Condition,
        methods.Observation,
        methods.VariantObservation,
        methods.Capability,
        conditions.Circumstances,
        methods.Environment,
        methods.Fidelity,
        methods.MeasuredRank,
        sources.History,
        sources.MethodHistory,
        sources.Excuse,
        engines.Engine,
        engines.EngineSource,
        engines.Fact,
        engines.RankRule,
        engines.Hazard,
        engines.Architectures,
        engines.LoadRule,
        engines.Command,
        engines.Conversion,
        trainers.Trainer,
        trainers.TrainerSource,
        trainers.TrainerFact,
        trainers.TrainerRule,
        trainers.TrainerHazard,
    )
    fields = {f"{record.__name__}.{name}" for record in records for name in record.model_fields}
    sections = re.findall(r"^### `(\w+\.\w+)`\n(?=\S)", guide(), re.MULTILINE)
    assert sorted(sections) == sorted(fields)


def test_methods_are_those_of_peft(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "installed_methods", lambda: frozenset({"lora", "cartridge"}))
    report = validate(folders.catalog, folders.data)
    assert [(v.rule, v.record) for v in report.violations] == [
        ("methods-of-peft", "cartridge"),
        ("methods-of-peft", "cpt"),
    ]


def test_without_peft_the_comparison_is_skipped_aloud(
    folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "installed_methods", lambda: None)
    report = validate(folders.catalog, folders.data)
    assert report.ok
    assert "methods-of-peft" in report.skipped[0]


def test_installed_methods_are_the_members_of_peft_type() -> None:
    found = importlib.util.find_spec("peft")
    if found is None or found.origin is None:
        pytest.skip("peft is not installed")
    # the file alone: importing peft takes seconds, for torch
    path = Path(found.origin).parent / "utils" / "peft_types.py"
    spec = importlib.util.spec_from_file_location("peft_types_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert installed_methods() == {member.value.lower() for member in module.PeftType}


def test_a_broken_file_is_a_violation_of_its_format(folders: Any) -> None:
    folders.edit(LORA, "family =", "famly =")
    folders.edit(CPT, "title = ", "title = = ")
    report = validate(folders.catalog, folders.data)
    assert {violation.rule for violation in report.violations} == {"format"}
    assert {Path(violation.problem.path).name for violation in report.violations} == {
        "lora.toml",
        "cpt.toml",
    }
    assert "did you mean 'family'?" in "\n".join(map(str, report.violations))


class TestExceptions:
    def excuse(self, rule: str, record: str) -> str:
        return f'[[exception]]\nrule = "{rule}"\nrecord = "{record}"\nbecause = "Known."\n'

    def test_an_exception_excuses_its_record_only(self, folders: Any) -> None:
        folders.edit(LORA, "sets its size.", "sets its size")
        folders.edit(LORA, "Trains one of the two matrices.", "Trains one of the two matrices")
        folders.write("catalog/exceptions.toml", self.excuse("finished-text", "lora"))
        report = validate(folders.catalog, folders.data)
        assert [v.record for v in report.violations] == ["lora/lora_fa"]
        assert [v.record for v in report.excused] == ["lora"]

    def test_an_exception_no_longer_needed_is_a_violation(self, folders: Any) -> None:
        folders.write("catalog/exceptions.toml", self.excuse("finished-text", "lora"))
        report = validate(folders.catalog, folders.data)
        assert [v.rule for v in report.violations] == ["exceptions"]
        assert "remove the exception" in str(report.violations[0])

    def test_an_unknown_rule_names_the_nearest(self, folders: Any) -> None:
        folders.write("catalog/exceptions.toml", self.excuse("finished-txt", "lora"))
        report = validate(folders.catalog, folders.data)
        assert "did you mean 'finished-text'" in str(report.violations[0])

    def test_integrity_allows_no_exception(self, folders: Any) -> None:
        folders.edit_json(SEEN, *CAPABILITY, value=None)
        folders.write("catalog/exceptions.toml", self.excuse("features-filled", "lora"))
        report = validate(folders.catalog, folders.data)
        assert [v.rule for v in report.violations] == ["features-filled", "exceptions"]

    def test_an_exception_stands_once(self, folders: Any) -> None:
        folders.edit(LORA, "sets its size.", "sets its size")
        folders.write("catalog/exceptions.toml", 2 * self.excuse("finished-text", "lora"))
        report = validate(folders.catalog, folders.data)
        assert [v.problem.message for v in report.violations] == ["stands here twice"]


def test_unknowns_are_counted_by_feature_after_overrides(folders: Any) -> None:
    report = validate(folders.catalog, folders.data)
    assert report.unknown == {"quantization.bnb_4bit": ("lora",)}
    assert report.unknowns == 1
    folders.edit_json(
        SEEN_CPT, *CAPABILITY, value={"support": "unknown", "level": "declared", "note": "x"}
    )
    assert validate(folders.catalog, folders.data).unknowns == 1  # an override decides it
    folders.edit(CPT, 'support = "no"', 'support = "unknown"')
    report = validate(folders.catalog, folders.data)
    assert report.unknown == {"quantization.bnb_4bit": ("lora",), "merging": ("cpt",)}
