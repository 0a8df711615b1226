"""Random questions, command lines and files, thrown at peft-shop to see whether it breaks.

    python benchmarks/fuzz.py questions --count 10000 --seed 1
    python benchmarks/fuzz.py commands --count 1000 --seed 1
    python benchmarks/fuzz.py files --count 2000 --seed 1

Prints one JSON object: how many cases there were, how they ended, what broke (an undocumented
exception, or longer than ten seconds; with the case), and the peak memory of the process [MB].
Exit code 1 if anything broke.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_shop import any_of, inspect_model, load_catalog, recommend
from peft_shop.__main__ import main as command_line
from peft_shop.catalog.store import load, parse
from peft_shop.errors import PeftShopError
from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 10
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3.5,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    "",
    " ",
    "x",
    "\ud800",
    "a\x00b",
    "9" * 5000,
    "1." * 2500,
    "∞",
    b"bytes",
    [],
    {},
    (),
    set(),
    [None],
    [[]],
    {"": None},
    {"a": {"b": []}},
    object(),
    range(3),
    any_of("x", "y"),
)


class TooSlowError(Exception):
    """A case took longer than `LIMIT_SECONDS`."""


def _interrupt(*_: object) -> None:
    raise TooSlowError


def _limited(case: Callable[[], str]) -> str:
    """How a case ended: its own word, or `refused`.

    Raises:
        TooSlowError: it took too long.
        Exception: whatever is not documented.
    """
    signal.signal(signal.SIGALRM, _interrupt)
    signal.alarm(LIMIT_SECONDS)
    try:
        return case()
    except PeftShopError as error:
        str(error).encode("utf-8", "backslashreplace")
        return "refused"
    finally:
        signal.alarm(0)


# --- questions ---


def questions(rng: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
    """Questions whose keywords are sound, nearly sound or junk."""
    catalog = load_catalog()
    keywords = [name for name in signature(recommend).parameters if name not in {"bounds", "model"}]
    metrics = [metric.id for metric in catalog.metrics]
    sound: dict[str, list[Any]] = {
        "benchmark": [benchmark.id for benchmark in catalog.benchmarks],
        "objectives": [[name] for name in metrics] + [["test_accuracy", "peak_memory"]],
        "snapshot": [snapshot.id for snapshot in catalog.snapshots] + ["all"],
        "era": ["any", "shifted", "sampled", "greedy"],
        "evidence": ["snapshot", "pooled"],
        "quantization": ["bnb_4bit", "bnb_8bit", "gptq", any_of("bnb_4bit", "awq")],
        "methods": [method.id for method in catalog.methods],
        "exclude": [[method.id] for method in catalog.methods],
        "serve": ["vllm", "ollama", "vllm:native", ["vllm", "sglang"]],
        "rank_by": [*metrics, "knee", "headline", "cheapest-tie", {"peak_memory": 2}],
        "peft_version": ["any", "0.15.0", "0.21.2"],
        "device": ["RTX 4090", "24GiB", "4090", "2xA100-80GB", "24"],
        "max_memory": ["24GiB", "1TB", 10**10],
        "training": [{"batch_size": 2}, {"sequence_length": 1024}, {"quantization": "bnb_4bit"}],
        "floor": [0, 0.3, "45%"],
        "confidence": [0.5, 0.9, 0.99],
    }
    structure = Structure.model_validate_json(
        (ROOT / "data" / "structures" / "llama-3.2-3b.json").read_bytes()
    )
    edge = ["24GiB", "45%", 0.5, -1, "1e999", "9" * 400, "-0", "24"]
    while True:
        given: dict[str, Any] = {}
        for _ in range(rng.randint(0, 5)):
            name = rng.choice(keywords)
            if rng.random() < 0.3:
                given[name] = rng.choice(JUNK)
            else:
                given[name] = rng.choice(sound.get(name, [True, False, "partial", "yes"]))
        for _ in range(rng.randint(0, 2)):
            bound = f"{rng.choice(['max', 'min'])}_{rng.choice(metrics)}"
            given[bound] = rng.choice([*JUNK, *edge])
        if rng.random() < 0.05:
            given["model"] = structure

        def ask(given: dict[str, Any] = given) -> str:
            answer = recommend(**given)
            answer.to_json()
            return "answered" if answer.front else "empty"

        yield repr(given)[:500], ask


# --- command lines ---


def commands(rng: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
    """Command lines made of real words and junk, in one process."""
    catalog = load_catalog()
    words = [
        *("recommend", "why", "methods", "show", "compare", "runs", "snippet", "config", "route"),
        *("catalog", "schema", "export", "diff", "--help", "--json", "--version", "--format"),
        *("table", "markdown", "csv", "json", "-b", "metamathqa", "image_gen", "--max", "--min"),
        *("peak_memory=24GiB", "test_accuracy=50%", "peak_memory=24", "memory=1GB", "=", "a=b=c"),
        *("--serve", "vllm", "--device", "4090", "24", "RTX 4090", "--training", "batch_size=2"),
        *("--rank-by", "knee", "--method", "dora", "qlora", "bone", "--quantization", "bnb_4bit"),
        *("--merging", "--no-merging", "--accept-partial", "merging", "--snapshot", "all"),
        *("--catalog", "nowhere.json", "/dev/null", "--", "-x", "--unknown", "", " ", "\u202e"),
        *("--brief", "--all", "--ties", "--left-out", "--unmeasured", "--url", "--sort", "--fit"),
        *("auto", "off", "--columns", "memory", "accuracy,memory", "--trainer", "trl", "axolotl"),
        *(
            "trl:yes",
            "--certainty",
            "rerun",
            "questions",
            "--plot",
            "chart.svg",
            "chart.png",
            "/",
            "rlmath",
        ),
        *("--adapt", "layers=2", "--max-memory", "8GB", "--task-type", "SEQ_CLS", "--why"),
        *("x" * 300, "9" * 5000, "é", "--floor", "0", "nan", "--confidence", "2", "--era"),
        *(method.id for method in catalog.methods),
        *(run.experiment for run in catalog.runs[:20]),
    ]
    starts = ["recommend", "why", "methods", "show", "compare", "runs", "snippet", "catalog"]
    codes = {0, 1, 2, 3, 130, 141}
    while True:
        line = [rng.choice(starts), *(rng.choice(words) for _ in range(rng.randint(0, 6)))]

        def call(line: list[str] = line) -> str:
            sys.argv = ["peft-shop", *line]
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = command_line()
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 2
            if code not in codes:
                raise AssertionError(f"exit code {code}")
            return f"exit {code}"

        yield " ".join(line)[:500], call


# --- files ---


def files(rng: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
    """Damaged catalogs, adapter folders and model folders, in a temporary place."""
    catalog = json.loads((ROOT / "peft_shop" / "_catalog.json").read_text(encoding="utf-8"))
    small = {**catalog, "runs": catalog["runs"][:5], "methods": catalog["methods"][:2]}
    adapter = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
    }
    model = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 256,
        "torch_dtype": "bfloat16",
    }
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (place / "config.json").write_text(json.dumps(model), encoding="utf-8")
    # the first model imports torch, which is nobody's hang
    inspect_model(place)
    try:
        while True:
            kind = rng.choice(["catalog", "catalog file", "adapter", "adapter", "model"])
            if kind.startswith("catalog"):
                content = _damaged(small, rng)
            else:
                content = _damaged(adapter if kind == "adapter" else model, rng)
            yield f"{kind}: {content[:300]!r}", _reader(kind, content, place, rng)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _reader(kind: str, content: bytes, place: Path, rng: random.Random) -> Callable[[], str]:
    name = "adapter_config.json" if kind == "adapter" else "config.json"
    special = rng.random() < 0.03

    def read() -> str:
        if kind == "catalog":
            parse(content)
            return "read"
        path = place / name
        path.unlink(missing_ok=True)
        if special:
            os.mkfifo(path)
        else:
            path.write_bytes(content)
        if kind == "catalog file":
            load(path)
        elif kind == "adapter":
            sys.argv = ["peft-shop", "route", str(place), "--json"]
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                try:
                    command_line()
                except SystemExit:
                    return "refused"
        else:
            inspect_model(place)
        return "read"

    return read


def _damaged(value: Any, rng: random.Random) -> bytes:
    """JSON of `value` with a few places changed, or its bytes cut or overwritten."""
    document = json.loads(json.dumps(value))
    for _ in range(rng.randint(0, 3)):
        _change(document, rng)
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        text = text[: rng.randrange(len(text) + 1)]
    if rng.random() < 0.1:
        spot = rng.randrange(len(text) + 1)
        text = text[:spot] + rng.choice([b"\x00", b"\xff", b"[" * 50_000, b"1e999,", b'"'])
    return text


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**300, int("9" * 401), "", "\ud800", "../x", [], {}, [[[[]]]]),
    *("x" * 10_000, [1] * 1000, {"a": 1}, 2**63, 0.1, "meta-llama/Llama-3.1-8B", "BONE", "LOHA"),
)


def _change(document: Any, rng: random.Random) -> None:
    here = document
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = here[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            break
        here = inner
    if rng.random() < 0.2:
        del here[key]
    else:
        here[key] = copy.deepcopy(rng.choice(_VALUES))  # the next change may go into it


# --- the run ---

KINDS: dict[str, Callable[[random.Random], Iterator[tuple[str, Callable[[], str]]]]] = {
    "questions": questions,
    "commands": commands,
    "files": files,
}


def run(kind: str, count: int, seed: int) -> dict[str, Any]:
    """How `count` cases of a kind ended."""
    ends: Counter[str] = Counter()
    broken: list[str] = []
    warnings.simplefilter("ignore")
    cases = KINDS[kind](random.Random(seed))
    for _ in range(count):
        name, case = next(cases)
        try:
            ends[_limited(case)] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this looks for
            ends["broken"] += 1
            broken.append(f"{type(error).__name__}: {str(error)[:200]} <- {name}")
    cases.close()  # type: ignore[attr-defined] # generators, which clean up
    return {
        "kind": kind,
        "count": count,
        "seed": seed,
        "ends": dict(sorted(ends.items())),
        "broken": broken[:20],
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> int:
    """Most memory of this process [MB], without what it was forked from where that is told."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # what a command writes by chance must not lie among the files of whoever asks
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        outcome = run(options.kind, options.count, options.seed)
    print(json.dumps(outcome, indent=1))
    return 1 if outcome["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
