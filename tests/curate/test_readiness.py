"""The zoo builds and learns, the exerciser finds planted defects, the file is what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.store import load
from peft_shop.cli.app import app
from peft_shop.curate.readiness import matrix as matrix_room
from peft_shop.curate.readiness.exercise import STAGES, Outcome, exercise
from peft_shop.curate.readiness.matrix import architecture_names, subject_names, survey
from peft_shop.curate.readiness.needs import NEEDS
from peft_shop.curate.readiness.verdicts import (
    Findings,
    Readiness,
    Verdict,
    by_reason,
    differences,
    dump,
    merge,
    read,
    write,
)
from peft_shop.curate.readiness.zoo import BATCH, Entry, entries, zoo
from peft_shop.errors import CatalogError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).resolve().parents[2] / "data"
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
TARGETS = {
    "llama": ["q_proj", "down_proj"],
    "gpt2": ["c_attn"],
    "t5": ["q", "wo"],
    "vit": ["q_proj", "fc2"],
    "whisper": ["q_proj", "fc2"],
    "flux2_transformer": ["to_q", "to_qkv_mlp_proj"],
}


# --- the zoo ---


@pytest.fixture(scope="module", params=architecture_names())
def entry(request: pytest.FixtureRequest) -> Entry:
    return zoo()[request.param]


def _unhurt(call: Callable[[], Any]) -> Any:
    """What `call` returns; it must leave torch's generator as it was."""
    before = torch.random.get_rng_state()
    result = call()
    assert torch.equal(torch.random.get_rng_state(), before)
    return result


def test_an_entry_learns_without_peft(entry: Entry) -> None:
    model = _unhurt(entry.build)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    count = sum(p.numel() for p in model.parameters())
    assert 3_000 < count < 600_000
    batch = _unhurt(entry.batch)
    assert {len(v) for k, v in batch.items() if k in {"input_ids", "labels"}} <= {BATCH}
    output = model.train()(**batch)
    entry.loss(output).backward()
    linear = [
        module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    heard = [w for w in linear if w.grad is not None and bool(w.grad.any())]
    # LLaVA reads the last but one layer of its vision tower
    assert len(heard) > 0.7 * len(linear)


def test_an_entry_is_the_same_each_time(entry: Entry) -> None:
    inputs = {k: v for k, v in entry.batch().items() if k not in entry.training_only}
    with torch.no_grad():
        one, other = (entry.outputs(entry.build().eval()(**inputs)) for _ in range(2))
    assert torch.equal(one, other)
    assert float(one.std()) > 0.1, "its layers hardly matter"


def test_widths_are_not_those_of_full_size_models() -> None:
    widths = {
        size
        for name in ("llama", "bert", "flux_transformer")
        for module in zoo()[name].build().modules()
        if isinstance(module, torch.nn.Linear)
        for size in (module.in_features, module.out_features)
    }
    assert any(width & (width - 1) for width in widths)
    assert len(widths) > 3


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="llama"):
        entries(["lama"])
    with pytest.raises(UnknownNameError, match="llama"):
        survey(["lama"])
    with pytest.raises(UnknownNameError, match="lora"):
        survey(["llama"], ["loro"])


# --- the exerciser ---


def _lora(name: str, **more: Any) -> dict[str, Any]:
    task = zoo()[name].task_type
    extra = {"task_type": task} if task else {}
    return {**LORA, "target_modules": TARGETS[name], **extra, **more}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_lora_works(name: str) -> None:
    found = _unhurt(lambda: exercise(zoo()[name], _lora(name)))
    assert found == Outcome(STAGES[-1], ok=True)


def _llama(**planted: Any) -> Outcome:
    return exercise(zoo()["llama"], _lora("llama"), **planted)


def test_a_weight_without_a_gradient_is_found() -> None:
    def wrap(base: Any, config: Any) -> Any:
        model = get_peft_model(base, config)
        model.register_parameter("idle", torch.nn.Parameter(torch.ones(3)))
        return model

    found = _llama(wrap=wrap)
    assert (found.stage, found.ok) == ("gradient", False)
    assert "idle" in found.detail


def test_a_gradient_that_is_not_finite_is_found() -> None:
    def wrap(base: Any, config: Any) -> Any:
        model = get_peft_model(base, config)
        weight = next(p for p in model.parameters() if p.requires_grad)
        weight.register_hook(lambda grad: grad * float("nan"))
        return model

    assert _llama(wrap=wrap).stage == "gradient"


def test_an_adapter_without_effect_is_found() -> None:
    def wrap(base: Any, config: Any) -> Any:
        return _Bypassed(get_peft_model(base, config))

    class _Bypassed(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Any) -> Any:
            if self.training:
                return self.model(**inputs)
            with self.model.disable_adapter():
                return self.model(**inputs)

    found = _llama(wrap=wrap)
    assert (found.stage, found.detail) == ("step", "the adapter does not change the outputs")


def _losing(part: str) -> Callable[[Any, str], None]:
    def save(model: Any, folder: str) -> None:
        model.save_pretrained(folder)
        file = Path(folder) / "adapter_model.safetensors"
        weights = load_file(file)
        lost = next(name for name in weights if part in name)
        del weights[lost]
        save_file(weights, file)

    return save


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_a_save_that_loses_a_tensor_is_found(part: str) -> None:
    assert _llama(save=_losing(part)) == Outcome(
        "reload", ok=False, detail="weights are missing from the saved adapter"
    )


def test_a_lost_tensor_is_found_by_its_effect_too() -> None:
    def load_in_silence(base: Any, folder: str) -> Any:
        model = get_peft_model(base, LoraConfig.from_pretrained(folder))
        weights = load_file(Path(folder) / "adapter_model.safetensors")
        own = {name.replace(".default", ""): p for name, p in model.named_parameters()}
        for name, weight in weights.items():
            own[name].data.copy_(weight)
        return model

    assert _llama(load=load_in_silence).ok
    # A is random and B zero at the start: both must have been moved for their loss to show
    for part in ("lora_A", "lora_B"):
        found = _llama(save=_losing(part), load=load_in_silence)
        assert (found.stage, found.ok) == ("compare", False), part


def test_a_reload_that_differs_is_found() -> None:
    def load_rounded(base: Any, folder: str) -> Any:
        model = PeftModel.from_pretrained(base, folder)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.bfloat16().float()
        return model

    found = _llama(load=load_rounded)
    assert found == Outcome("compare", ok=False, detail="the reloaded adapter gives other outputs")


def test_what_peft_raises_is_recorded() -> None:
    found = exercise(zoo()["llama"], {**LORA, "target_modules": ["nothing"]})
    assert (found.stage, found.ok) == ("wrap", False)
    assert found.detail.startswith("NoMatchingPeftModuleError")
    found = exercise(zoo()["llama"], {**LORA, "rank": 4})
    assert (found.stage, found.ok) == ("config", False)
    with pytest.raises(UnknownNameError, match="LORA"):
        exercise(zoo()["llama"], {"peft_type": "LORO"})


def test_mistakes_of_this_package_are_not_taken_for_pefts() -> None:
    def wrap(base: Any, config: Any) -> Any:
        matrix_room.subjects(load(), ["nothing"])  # raises inside this package

    with pytest.raises(UnknownNameError):
        _llama(wrap=wrap)


def test_statistics_of_batch_norms_are_kept_still() -> None:
    config = {**LORA, "target_modules": ["convolution"]}
    assert exercise(zoo()["resnet"], config).ok


def test_methods_that_need_more_get_it() -> None:
    llama = zoo()["llama"]
    targets = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    poly = {"peft_type": "POLY", "r": 4, "n_tasks": 2, "n_skills": 2, **targets}
    assert exercise(llama, poly).ok
    adalora = {"peft_type": "ADALORA", "total_step": 9, "tinit": 1, "tfinal": 2, **targets}
    assert exercise(llama, adalora).ok
    fields = {"task_type": "CAUSAL_LM", "hidden_size": 48}
    xlora = exercise(llama, {"peft_type": "XLORA", **fields}, experts={**LORA, **targets})
    # its checkpoints lose the classifier
    assert xlora.stage == "compare"


def test_every_need_belongs_to_a_method() -> None:
    assert set(NEEDS) <= {method.peft_type for method in load().methods}


# --- subjects ---


def test_subjects_are_all_methods_and_the_newest_recipes() -> None:
    catalog = load()
    found = matrix_room.subjects(catalog)
    methods = [name for name in found if ":" not in name]
    assert methods == sorted(catalog.method_by_id)
    usual = {one.id for one in catalog.benchmarks if not one.on_request}
    newest = max(name for run in catalog.runs if run.benchmark in usual for name in run.snapshots)
    runs = [
        run
        for run in catalog.runs
        if run.benchmark in usual and newest in run.snapshots and run.method != FULL_FINETUNING
    ]
    assert len(found) == len(methods) + len(runs)
    assert {f"{run.benchmark}:{run.experiment}" for run in runs} <= set(found)
    only = matrix_room.subjects(catalog, ["vera"])
    assert only
    assert set(only) == {n for n, one in found.items() if n == "vera" or _method(one) == "vera"}


def _method(subject: Any) -> str:
    return str(getattr(subject, "method", subject))


# --- the file ---


def _findings(**cells: Verdict) -> Findings:
    return Findings(
        title="A",
        class_name="A",
        modality="text",
        parameters=1,
        refused=by_reason(cells, "refused"),
        failed=by_reason(cells, "failed"),
    )


READY = Verdict("ready")
REFUSED = Verdict("refused", ("no layer", "no task"))
FAILED = Verdict("failed", ("wrap: no",))
SUBJECTS = ("ia3", "lora", "vera")


def _readiness(packages: str = "1", **architectures: Findings) -> Readiness:
    return Readiness(
        packages={"peft": packages}, methods=SUBJECTS, recipes=(), architectures=architectures
    )


def test_cells_survive_the_file(tmp_path: Path) -> None:
    cells = {"ia3": REFUSED, "lora": READY, "vera": FAILED}
    made = _readiness(llama=_findings(**cells), bert=_findings())
    path = tmp_path / "readiness.json"
    assert write(made, path)
    assert read(path) == made
    assert made.cells("llama") == cells
    assert set(made.cells("bert").values()) == {READY}
    assert json.loads(dump(made)) == made.model_dump(mode="json")


def test_the_file_does_not_change_when_written_again(tmp_path: Path) -> None:
    path = tmp_path / "readiness.json"
    made = _readiness(llama=_findings(ia3=REFUSED), bert=_findings(vera=FAILED))
    other = _readiness(bert=_findings(vera=FAILED), llama=_findings(ia3=REFUSED))
    assert dump(made) == dump(other)
    assert write(made, path)
    assert not write(read(path), path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "readiness.json"
    with pytest.raises(CatalogError, match="catalog ready"):
        read(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(CatalogError, match="not JSON"):
        read(path)
    path.write_text('{"methods": 3}', encoding="utf-8")
    with pytest.raises(CatalogError, match="packages"):
        read(path)


def test_a_part_replaces_only_itself() -> None:
    old = _readiness(llama=_findings(ia3=REFUSED, lora=FAILED), bert=_findings(vera=FAILED))
    new = _readiness(llama=_findings(lora=REFUSED))
    merged = merge(old, new, ["lora", "vera"])
    assert merged.cells("llama") == {"ia3": REFUSED, "lora": REFUSED, "vera": READY}
    assert merged.architectures["bert"] == old.architectures["bert"]
    assert merge(old, new, SUBJECTS).cells("llama")["ia3"] == READY


def test_parts_of_different_wholes_do_not_mix() -> None:
    old = _readiness(llama=_findings())
    with pytest.raises(CatalogError, match="packages"):
        merge(old, _readiness("2", llama=_findings()), SUBJECTS)
    with pytest.raises(CatalogError, match="only some methods"):
        merge(old, _readiness(bert=_findings()), ["lora"])


def test_differences_are_those_of_what_was_tried() -> None:
    old = _readiness(llama=_findings(ia3=REFUSED, lora=FAILED))
    new = _readiness("2", llama=_findings(lora=REFUSED))
    found = differences(old, new, ["lora"])
    assert [str(one) for one in found] == [
        ": packages: committed peft 1, now peft 2",
        "llama: lora: committed failed: wrap: no, now refused: no layer; no task",
    ]
    assert len(differences(old, new)) == 3
    assert differences(old, old) == []


# --- the matrix ---


def test_the_committed_file_is_about_this_zoo_and_catalog() -> None:
    committed = read(DATA / "readiness.json")
    assert set(committed.architectures) == set(architecture_names())
    assert {*committed.methods, *committed.recipes} == set(subject_names(None))
    assert (DATA / "readiness.json").read_bytes() == dump(committed)


def test_a_verdict_as_committed(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    file = str(DATA / "readiness.json")
    runner = CliRunner()
    base = ["catalog", "ready", "llama", "--method", "hra"]
    same = runner.invoke(app, [*base, "--check", "-o", file])
    assert same.exit_code == 0, same.output
    committed = read(DATA / "readiness.json")
    planted = {**committed.cells("llama"), "hra": FAILED}
    wrong = committed.architectures["llama"].model_copy(
        update={"failed": by_reason(planted, "failed")}
    )
    path = tmp_path / "readiness.json"
    write(
        committed.model_copy(update={"architectures": {**committed.architectures, "llama": wrong}}),
        path,
    )
    differs = runner.invoke(app, [*base, "--check", "-o", str(path)])
    assert differs.exit_code == 1
    assert runner.invoke(app, [*base, "-o", str(path)]).exit_code == 0
    assert path.read_bytes() == (DATA / "readiness.json").read_bytes()
    absent = runner.invoke(app, [*base, "-o", str(tmp_path / "none.json")])
    assert absent.exit_code != 0
    assert not (tmp_path / "none.json").exists()


def test_a_refusal_put_to_the_test() -> None:
    (found,) = matrix_room.force_refused(1, ["gpt2"], ["hra"])
    assert found.reasons
    assert found.verdict.status == "failed", "HRA adapts no Conv1D of transformers"
    assert matrix_room.force_refused(1, ["llama"], ["hra"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", architecture_names())
def test_the_matrix_is_as_committed(name: str) -> None:
    found = survey([name])
    changes = differences(read(DATA / "readiness.json"), found)
    assert not changes, "\n".join(map(str, changes))
    assert not found.architectures[name].failed
