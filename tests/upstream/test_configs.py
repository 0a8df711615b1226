"""Recipes become configurations of the installed peft, whole or with a clear refusal."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.runs import Recipe, Run, Training
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError, MissingExtraError, UnknownConfigKeyError
from peft_shop.upstream.configs import build_config, config_dict, config_from_dict, save_config
from peft_shop.upstream.source import installed_peft

UPSTREAM = Path(__file__).parents[3] / "shared" / "upstream"
CATALOG = load()
RUNS = [run for run in CATALOG.runs if run.recipe.peft_type is not None]
NEWEST = [run for run in RUNS if CATALOG.snapshots[-1].id in run.snapshots]
TRAINING = Training(
    model_id="some/model",
    optimizer="AdamW",
    learning_rate=0.001,
    max_steps=10,
    batch_size=2,
    max_length=32,
    dtype="float32",
)
FULL = Recipe(peft_type=None, training=TRAINING)


def recipe(peft_type: str = "LORA", **config: Any) -> Recipe:
    return Recipe(peft_type=peft_type, config=config, training=TRAINING)


def plain(value: Any) -> Any:
    """`value` as JSON would have it: sets and tuples as sorted lists, records as tables."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


# --- all recipes on file ---


def test_newest_snapshot_has_the_110_recipes() -> None:
    assert len(NEWEST) == 110


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.benchmark}:{run.id}")
def test_every_recipe_on_file_builds_and_nothing_is_lost_or_added(run: Run) -> None:
    if run.method == "adalora" and "total_step" not in run.recipe.config:
        with pytest.raises(ConfigError, match="total_step"):  # older releases did without
            build_config(run.recipe)
        return
    config = build_config(run.recipe)
    assert config.peft_type == run.recipe.peft_type
    for field in dataclasses.fields(config):
        if field.name in {"peft_type", "peft_version", "runtime_config"} or not field.init:
            continue
        found = plain(getattr(config, field.name))
        if field.name in run.recipe.config:
            expected = run.recipe.config[field.name]
            if isinstance(getattr(config, field.name), set):
                expected = sorted(expected)
            if isinstance(expected, dict):  # a nested table states only what is not its default
                found = {key: plain(value) for key, value in found.items() if key in expected}
            assert found == expected, field.name
        else:
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            assert found == plain(default), field.name


@pytest.mark.parametrize("run", NEWEST, ids=lambda run: f"{run.benchmark}:{run.id}")
def test_plain_data_builds_the_same_object_in_peft_itself(run: Run) -> None:
    import peft

    theirs = peft.get_peft_config(config_dict(run.recipe))
    assert theirs.to_dict() == build_config(run.recipe).to_dict()


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the raw result files are not beside the project")
def test_recipes_equal_the_recorded_configurations() -> None:
    snapshot = json.loads((UPSTREAM / "snapshots.json").read_text(encoding="utf-8"))[-1]
    recorded = {}
    for task, files in snapshot["runs"].items():
        for name in files:
            info = json.loads((UPSTREAM / name).read_text(encoding="utf-8"))["run_info"]
            if info["peft_config"] is not None:
                recorded[task, info["experiment_name"]] = info["peft_config"]
    assert len(recorded) == 110
    # written by the run or by peft while running, not chosen: see the field guide of data/
    learned = {("ADALORA", "rank_pattern"), ("OSF", "rank_pattern")}
    tasks = {"metamathqa": "MetaMathQA", "image_gen": "image-gen"}
    for run in NEWEST:
        config = build_config(run.recipe).to_dict()
        for key, value in recorded.pop((tasks[run.benchmark], run.experiment)).items():
            if key in {"peft_version", "base_model_name_or_path", "auto_mapping"}:
                continue
            if key in run.recipe.resolved or (config["peft_type"], key) in learned:
                continue
            found = plain(config[key])
            if isinstance(value, dict):  # a newer peft has more options in the nested table
                found = {name: entry for name, entry in found.items() if name in value}
            if key.endswith("_modules") and isinstance(value, list):
                found, value = sorted(found), sorted(value)  # noqa: PLW2901 - order means nothing
            assert found == value, f"{run.experiment}: {key}"
    assert not recorded


# --- building ---


def test_each_call_makes_a_new_object_and_leaves_the_recipe_alone() -> None:
    one = recipe(target_modules=["q_proj"], rank_pattern={"q_proj": 4})
    first, second = build_config(one), build_config(one)
    assert first is not second
    first.rank_pattern["q_proj"] = 99
    first.target_modules.add("x")
    config_dict(one)["target_modules"].append("y")
    assert one.config == {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}}
    assert second.rank_pattern == {"q_proj": 4}


def test_plain_data_becomes_the_configuration_again() -> None:
    from peft import PeftType

    one = recipe("VERA", r=256, target_modules=["q_proj"])
    stated = config_dict(one)
    expected = build_config(one).to_dict()
    assert config_from_dict(stated).to_dict() == expected
    assert config_from_dict({**stated, "peft_type": PeftType.VERA}).to_dict() == expected
    assert stated == config_dict(one)


@pytest.mark.parametrize("stated", [{}, {"r": 8}, {"peft_type": None}, {"peft_type": 7}])
def test_plain_data_names_its_method(stated: dict[str, Any]) -> None:
    told = f"expected the name of a method such as 'LORA', found {stated.get('peft_type')!r}"
    with pytest.raises(ConfigError, match=f"peft_type: {told}"):
        config_from_dict(stated)


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(28, "No space left on device", "x"), "No space left on device"),
     (OSError("odd"), "odd")],
)  # fmt: skip
def test_why_a_file_cannot_be_written_is_told_in_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("peft_shop.upstream.configs.write_all", fail)
    with pytest.raises(ConfigError) as caught:
        save_config(recipe(), tmp_path)
    assert str(caught.value) == f"cannot write {tmp_path / 'adapter_config.json'}: {told}"


def test_plain_data_states_the_type_and_the_fields_of_the_recipe() -> None:
    assert config_dict(recipe("VERA", r=256)) == {"peft_type": "VERA", "r": 256}


@given(st.from_regex(r"[a-z][a-z_]{2,12}", fullmatch=True))
def test_no_unknown_key_is_dropped(key: str) -> None:
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig)}
    if key in known:
        return
    with pytest.raises(UnknownConfigKeyError, match=key):
        build_config(recipe(**{key: 1, "r": 8}))


def test_unknown_key_names_what_where_and_what_to_do() -> None:
    with pytest.raises(UnknownConfigKeyError) as caught:
        build_config(recipe(lora_alfa=8, zebra_crossing_x=1))
    message = str(caught.value)
    for part in ("LoraConfig", "0.21.2", "lora_alfa", "nearest: lora_alpha", "pip install -U peft"):
        assert part in message
    assert "zebra_crossing_x" in message, "all unknown keys at once"


def test_unknown_key_of_a_nested_table_is_reported_too() -> None:
    # peft itself drops it in silence
    with pytest.raises(UnknownConfigKeyError, match=r"kasa_config\.gama.*kasa_config\.gamma"):
        build_config(recipe(kasa_config={"beta": 0.1, "gama": 0.1}))


def test_unknown_method_names_the_version() -> None:
    with pytest.raises(ConfigError, match=r"peft 0\.21\.2 has no method 'EWORA'.*nearest"):
        build_config(recipe("EWORA"))


def test_what_peft_refuses_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"OFTConfig.*not both"):
        build_config(recipe("OFT", r=8, oft_block_size=8))
    with pytest.raises(ConfigError, match="LoraConfig"):
        build_config(recipe(kasa_config=3))


def test_the_type_is_stated_once() -> None:
    twice = Recipe(peft_type="LORA", config={"peft_type": "VERA"}, training=TRAINING)
    for call in (config_dict, build_config):
        with pytest.raises(ConfigError, match="peft_type"):
            call(twice)


def test_full_finetuning_has_no_configuration(tmp_path: Path) -> None:
    for call in (build_config, config_dict, lambda full: save_config(full, tmp_path)):
        with pytest.raises(ConfigError, match="full fine-tuning"):
            call(FULL)
    assert not list(tmp_path.iterdir())


# one recipe of each kind of adapter; every recipe trains a model in test_snippets.py (slow)
@pytest.mark.filterwarnings("ignore:.*(deprecated|Unsupported layer type)")  # between libraries
@pytest.mark.parametrize("peft_type", ["LORA", "IA3", "VERA", "OFT", "C3A", "MISS", "LN_TUNING"])
def test_peft_wraps_a_model_with_it(peft_type: str) -> None:
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    run = next(one for one in NEWEST if one.recipe.peft_type == peft_type)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=1, **shape))
    wrapped = peft.get_peft_model(model, build_config(run.recipe))
    assert wrapped.get_nb_trainable_parameters()[0] > 0


# --- saving ---


def test_the_file_is_the_one_that_peft_writes(tmp_path: Path) -> None:
    from peft import PeftConfig

    for run in NEWEST[::10]:
        ours = save_config(run.recipe, tmp_path / run.experiment / "ours")
        build_config(run.recipe).save_pretrained(str(tmp_path / run.experiment / "theirs"))
        theirs = tmp_path / run.experiment / "theirs" / "adapter_config.json"
        assert ours.name == "adapter_config.json"
        ours_text, theirs_text = ours.read_text("utf-8"), theirs.read_text("utf-8")
        assert sorted(ours_text.splitlines()) == sorted(theirs_text.splitlines())
        assert json.loads(ours_text) == json.loads(theirs_text)
        loaded = PeftConfig.from_pretrained(str(ours.parent))
        assert loaded.to_dict() == build_config(run.recipe).to_dict()


def test_saving_does_not_overwrite_unless_told_to(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    file = save_config(recipe(r=4), tmp_path)
    with pytest.raises(ConfigError, match="overwrite=True"):
        save_config(recipe(r=8), tmp_path)
    assert json.loads(file.read_text())["r"] == 4
    save_config(recipe(r=8), str(tmp_path), overwrite=True)
    assert json.loads(file.read_text())["r"] == 8
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"weights"


def test_a_failing_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapter"
    file = save_config(recipe(r=4), folder)
    before = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match="No space left"):
        save_config(recipe(r=8), folder, overwrite=True)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "adapter_config.json"]


def test_a_file_in_the_place_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        save_config(recipe(), tmp_path / "taken")


# --- what the installed peft knows ---


def test_source_and_import_agree_for_every_method() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, __version__

    peft = installed_peft()
    assert peft is not None
    assert peft.version == __version__
    assert set(peft.methods) == {str(key.value) for key in PEFT_TYPE_TO_CONFIG_MAPPING}
    for key, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        arguments = {field.name for field in dataclasses.fields(cls) if field.init}
        assert peft.config_class(key.value) == cls.__name__
        assert peft.config_fields(key.value) == arguments


def test_reading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from peft_shop.upstream.configs import installed_peft; p = installed_peft();"
        "p.config_fields('ADALORA');"
        "sys.exit(1 if {'peft', 'torch', 'transformers', 'numpy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_says_what_a_recipe_needs_and_it_does_not_have() -> None:
    peft = installed_peft()
    assert peft is not None
    assert peft.lacks(recipe(r=8)) == ()
    assert peft.lacks(FULL) == ()
    assert peft.lacks(recipe("EWORA", r=8)) == ("EWORA",)
    assert peft.lacks(recipe(r=8, b_new=1, a_new=1)) == ("LORA.a_new", "LORA.b_new")
    for run in RUNS:
        assert peft.lacks(run.recipe) == ()
    with pytest.raises(ConfigError, match="nearest: LORA"):
        peft.config_fields("LOR")


TINY_PEFT = {
    "__init__.py": '"""peft."""\n\n__version__ = "0.9.1"\n',
    "config.py": """
from typing import ClassVar, Optional
from transformers.utils import PushToHubMixin
from dataclasses import dataclass, field

@dataclass
class Mixin(PushToHubMixin):
    task_type: Optional[str] = None
    registry: ClassVar[dict] = {}

@dataclass
class PeftConfig(Mixin):
    revision: Optional[str] = None
    hidden: int = field(default=0, init=False)
""",
    "utils/__init__.py": "",
    "utils/peft_types.py": """
import enum

class PeftType(str, enum.Enum):
    \"\"\"Types.\"\"\"
    LORA = "LORA"
    OTHER = "OTHER"
""",
    "tuners/lora/__init__.py": """
from peft.utils import register_peft_method
from .config import LoraConfig as Renamed
register_peft_method(name="lora", config_cls=Renamed, model_cls=None)
""",
    "tuners/lora/config.py": """
from dataclasses import dataclass
from peft.config import PeftConfig

@dataclass
class LoraConfig(PeftConfig):
    r: int = 8
""",
    "tuners/elsewhere/__init__.py": """
from ..lora.config import LoraConfig
from dataclasses import dataclass
from peft import utils

@dataclass
class OtherConfig(LoraConfig):
    gain: float = 1.0

if True:
    utils.register_peft_method(name="other", config_cls=OtherConfig, model_cls=None)
""",
}


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> Path:
    """Puts a peft of a few lines first on the import path."""
    root = folder / "site" / "peft"
    for name, text in (TINY_PEFT | changes).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_another_peft_is_read_through_imports_and_base_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, monkeypatch)
    peft = installed_peft()
    assert peft is not None
    assert (peft.version, peft.methods) == ("0.9.1", ("LORA", "OTHER"))
    assert peft.config_class("LORA") == "LoraConfig"
    assert peft.config_fields("LORA") == {"task_type", "revision", "r"}
    assert peft.config_class("OTHER") == "OtherConfig"
    assert peft.config_fields("OTHER") == {"task_type", "revision", "r", "gain"}
    assert peft.lacks(recipe("LORA", use_dora=True)) == ("LORA.use_dora",)
    assert peft.lacks(recipe("VERA", r=8)) == ("VERA",)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("utils/peft_types.py", "class Other: ..."),
        ("utils/peft_types.py", "class PeftType(:"),
        ("utils/peft_types.py", "x = '\0'"),
    ],
)
def test_a_peft_that_cannot_be_read_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    plant(tmp_path, monkeypatch, **{file: text})
    with pytest.raises(ConfigError, match=r"peft_types\.py.*--force-reinstall"):
        installed_peft()


def test_a_method_without_a_class_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, monkeypatch, **{"tuners/elsewhere/__init__.py": ""})
    peft = installed_peft()
    assert peft is not None
    with pytest.raises(ConfigError, match="registered as 'other'"):
        peft.config_class("OTHER")


@pytest.mark.parametrize("error", ["ImportError", "AttributeError", "OSError", "RuntimeError"])
def test_a_peft_that_cannot_be_imported_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    broken = TINY_PEFT["__init__.py"] + f"raise {error}('no torch')\n"
    plant(tmp_path, monkeypatch, **{"__init__.py": broken})
    with pytest.raises(ConfigError, match=rf"{error}: no torch; run: pip install"):
        build_config(recipe())


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert installed_peft() is None
    assert config_dict(recipe(r=8)) == {"peft_type": "LORA", "r": 8}
    with pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[peft\]'"):
        build_config(recipe())


def test_things_that_are_named_peft_but_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plant(tmp_path, monkeypatch)
    (root / "__init__.py").unlink()
    monkeypatch.setattr(sys, "path", [str(root.parent)])
    assert installed_peft() is None, "a folder that happens to be named peft"
    root.rename(tmp_path / "kept")
    (root.parent / "peft.py").write_text("")
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"peft\.py hides"):
        installed_peft()
