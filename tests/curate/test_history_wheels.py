"""Reading wheels without installing them, and dating what they hold."""

from __future__ import annotations

import json
import random
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.curate.releases import history as room
from peft_shop.curate.releases.history import dump, published, read_history, write
from peft_shop.curate.releases.wheels import Wheel
from peft_shop.errors import CatalogError
from peft_shop.upstream.versions import is_final, version_key

COMMITTED = Path(__file__).parents[2] / "catalog" / "observed" / "history.json"
CURATED = Path(__file__).parents[2] / "catalog" / "curated"


# --- mini wheels ---

BASE = """
    from dataclasses import dataclass, field
    from elsewhere import Mixin

    @dataclass
    class PeftConfigMixin(Mixin):
        peft_type: str = None

    @dataclass
    class PeftConfig(PeftConfigMixin):
        task_type: str = None
"""


def make_wheel(folder: Path, version: str, files: dict[str, str], *, name: str = "peft") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, textwrap.dedent(text))
        header = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n\nVersion: 9.9.9 says\n"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", header)
    return path


def peft_types(*members: str) -> str:
    body = "".join(f"    {member} = '{member}'\n" for member in members)
    return f"import enum\n\nclass PeftType(str, enum.Enum):\n    '''Kinds.'''\n{body or '    pass'}"


def config(name: str, fields: list[str], *, base: str = "PeftConfig", more: str = "") -> str:
    body = "".join(f"    {field}: int = 0\n" for field in fields)
    return (
        "from dataclasses import dataclass, field\nfrom peft.config import PeftConfig\n\n"
        f"@dataclass\nclass {name}({base}):\n    '''Text.'''\n{body}{more}"
    )


def old_form(lora: str, version: str, folder: Path) -> Path:
    """A release with one dictionary of methods and one file per method."""
    return make_wheel(
        folder,
        version,
        {
            "peft/__init__.py": "from .utils import PeftType\n",
            "peft/utils/__init__.py": "from .config import *\n",
            "peft/utils/config.py": peft_types("LORA"),
            "peft/config.py": BASE,
            "peft/tuners/__init__.py": "from .lora import LoraConfig\n",
            "peft/tuners/lora.py": lora,
            "peft/mapping.py": """
                from .tuners import LoraConfig
                PEFT_TYPE_TO_CONFIG_MAPPING: dict[str, object] = {"LORA": LoraConfig}
            """,
        },
    )


def new_form(
    methods: dict[str, tuple[str, str]],
    version: str,
    folder: Path,
    more: dict[str, str] | None = None,
) -> Path:
    """A release whose methods register themselves: id -> (class name, text of its config)."""
    files = {
        "peft/__init__.py": "from .utils.kinds import PeftType as PeftType\n",
        "peft/utils/__init__.py": "",
        "peft/utils/kinds.py": peft_types(*(method.upper() for method in methods)),
        "peft/config.py": BASE,
        "peft/mapping.py": "PEFT_TYPE_TO_CONFIG_MAPPING: dict[str, object] = {}\n",
        "peft/tuners/__init__.py": "",
    }
    for method, (name, text) in methods.items():
        files[f"peft/tuners/{method}/__init__.py"] = (
            f"from .config import {name}\n"
            f"register_peft_method(name='{method}', config_cls={name}, model_cls=None)\n"
        )
        files[f"peft/tuners/{method}/config.py"] = text
    return make_wheel(folder, version, files | (more or {}))


def curate(folder: Path, method: str, variants: str = "", *, aliases: str = "[]") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = f"""
title = "{method}"
peft_type = "{method.upper()}"
config_class = "{method.title()}Config"
summary = "A method."
family = "low_rank"
task_types = ["CAUSAL_LM"]
no_paper_because = "made up"
aliases = {aliases}
{textwrap.dedent(variants)}
"""
    (folder / f"{method}.toml").write_text(text, encoding="utf-8")
    return folder


def variant(name: str, *conditions: str) -> str:
    when = ", ".join(f"{{{condition}}}" for condition in conditions)
    return f'\n[[variants]]\nid = "{name}"\ntitle = "{name}"\nsummary = "One."\nwhen = [{when}]\n'


# --- one wheel ---


def test_both_forms_of_registration_are_read(tmp_path: Path) -> None:
    old = Wheel(old_form(config("LoraConfig", ["r"]), "0.3.0", tmp_path))
    new = Wheel(new_form({"lora": ("LoraConfig", config("LoraConfig", ["r"]))}, "1.0", tmp_path))
    assert old.methods == {"lora": "peft.tuners.lora:LoraConfig"}
    assert new.methods == {"lora": "peft.tuners.lora.config:LoraConfig"}
    assert old.fields("lora") == new.fields("lora") == {"peft_type", "task_type", "r"}


def test_a_method_is_a_member_of_peft_type_with_a_registered_class(tmp_path: Path) -> None:
    text = config("LoraConfig", ["r"])
    path = new_form(
        {"lora": ("LoraConfig", text)},
        "1.0",
        tmp_path,
        {
            "peft/utils/kinds.py": peft_types("LORA", "PLANNED"),
            "peft/tuners/extra.py": "register_peft_method(name='loose', config_cls=X)\n",
        },
    )
    assert set(Wheel(path).methods) == {"lora"}


def test_only_what_the_constructor_accepts_is_a_field(tmp_path: Path) -> None:
    text = config(
        "LoraConfig",
        ["r"],
        more=(
            "    hidden: int = field(default=1, init=False)\n"
            "    shown: int = field(default=1, init=True)\n"
            "    shared: ClassVar[int] = 3\n"
            "    given: dataclasses.InitVar[int] = 3\n"
            "    bare = 4\n"
            "    def __post_init__(self):\n        self.late: int = 3\n"
        ),
    )
    wheel = Wheel(new_form({"lora": ("LoraConfig", text)}, "1.0", tmp_path))
    assert wheel.fields("lora") == {"peft_type", "task_type", "r", "shown"}


def test_fields_come_from_base_classes_in_other_files_but_not_from_plain_classes(
    tmp_path: Path,
) -> None:
    lora = config("LoraConfig", ["r"])
    ada = (
        "from ..lora.config import LoraConfig as Parent\nfrom dataclasses import dataclass\n"
        "class Plain:\n    no_field: int = 0\n\n"
        "@dataclass()\nclass AdaConfig(Plain, Parent):\n    target_r: int = 8\n"
    )
    methods = {"lora": ("LoraConfig", lora), "ada": ("AdaConfig", ada)}
    wheel = Wheel(new_form(methods, "1.0", tmp_path))
    assert wheel.fields("ada") == {"peft_type", "task_type", "r", "target_r"}


def test_a_package_hides_a_leftover_module_of_the_same_name(tmp_path: Path) -> None:
    methods = {"lora": ("LoraConfig", config("LoraConfig", ["r", "use_dora"]))}
    leftover = {"peft/tuners/lora.py": config("LoraConfig", ["merge_weights"]) + "'stale'\n"}
    wheel = Wheel(new_form(methods, "1.0", tmp_path, leftover))
    assert wheel.fields("lora") == {"peft_type", "task_type", "r", "use_dora"}
    assert "stale" not in wheel.strings("lora")


def test_nothing_in_a_wheel_is_executed(tmp_path: Path) -> None:
    text = "raise SystemExit('executed')\n" + config("LoraConfig", ["r"])
    wheel = Wheel(new_form({"lora": ("LoraConfig", text)}, "1.0", tmp_path))
    assert "r" in wheel.fields("lora")


def test_what_python_only_warns_of_can_be_read(tmp_path: Path) -> None:
    text = config("LoraConfig", ["r"]) + "PATTERN = '\\.'\n"
    wheel = Wheel(new_form({"lora": ("LoraConfig", text)}, "1.0", tmp_path))
    assert wheel.strings("lora") >= {"\\."}


def test_definitions_under_if_and_try_count(tmp_path: Path) -> None:
    lora = config("LoraConfig", ["r"])
    ada = (
        "try:\n    from nowhere import LoraConfig\nexcept ImportError:\n"
        "    from ..lora.config import LoraConfig\nfrom dataclasses import dataclass\n"
        "if True:\n    @dataclass\n    class AdaConfig(LoraConfig):\n        t: int = 0\n"
    )
    methods = {"lora": ("LoraConfig", lora), "ada": ("AdaConfig", ada)}
    wheel = Wheel(new_form(methods, "1.0", tmp_path))
    assert wheel.fields("ada") == {"peft_type", "task_type", "r", "t"}


def test_strings_are_those_of_the_methods_own_source(tmp_path: Path) -> None:
    methods = {
        "lora": ("LoraConfig", config("LoraConfig", ["r"])),
        "vera": ("VeraConfig", config("VeraConfig", ["r"]) + "'vera only'\n"),
    }
    layer = {"peft/tuners/lora/layer.py": "def f(x):\n    return x == 'pissa'\n"}
    wheel = Wheel(new_form(methods, "1.0", tmp_path, layer))
    assert "pissa" in wheel.strings("lora")
    assert "vera only" not in wheel.strings("lora")


def test_the_version_is_the_one_in_the_metadata(tmp_path: Path) -> None:
    path = old_form(config("LoraConfig", ["r"]), "0.3.0", tmp_path)
    renamed = path.rename(tmp_path / "anything.whl")
    assert Wheel(renamed).version == "0.3.0"


def test_what_is_no_wheel_of_peft_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "peft-1.0-py3-none-any.whl"
    text.write_text("no zip", encoding="utf-8")
    with pytest.raises(CatalogError, match="cannot be read as a wheel"):
        Wheel(text)
    with pytest.raises(CatalogError, match="cannot be read as a wheel"):
        Wheel(tmp_path / "absent.whl")
    with pytest.raises(CatalogError, match="not a wheel of peft"):
        Wheel(make_wheel(tmp_path, "1.0", {"other/__init__.py": ""}, name="other"))


def test_a_layout_that_cannot_be_read_is_an_error_and_not_an_absence(tmp_path: Path) -> None:
    lora = {"lora": ("LoraConfig", config("LoraConfig", ["r"]))}
    computed = "register_peft_method(name=NAME, config_cls=LoraConfig)\n"
    broken = {
        "computed name": {"peft/tuners/lora/__init__.py": computed},
        "nowhere defined": {"peft/tuners/lora/config.py": "LoraConfig = make()\n"},
        "cannot be parsed": {"peft/tuners/lora/config.py": "class (:\n"},
        "has no PeftType": {"peft/utils/kinds.py": ""},
        "without names": {"peft/tuners/lora/__init__.py": "register_peft_method(*a)\n"},
    }
    for number, (message, files) in enumerate(broken.items()):
        wheel = Wheel(new_form(lora, f"1.{number}", tmp_path, files))
        with pytest.raises(CatalogError, match=message):
            wheel.methods  # noqa: B018 - the property does the reading


# --- many wheels ---


def test_releases_are_ordered_as_numbers(tmp_path: Path) -> None:
    wheels = [
        old_form(config("LoraConfig", ["r"]), "0.9.0", tmp_path),
        old_form(config("LoraConfig", ["r", "use_dora"]), "0.10.0", tmp_path),
        old_form(config("LoraConfig", ["r", "use_dora"]), "0.10.1", tmp_path),
    ]
    found = read_history(wheels, curate(tmp_path / "curated", "lora"))
    assert found["releases"] == ["0.9.0", "0.10.0", "0.10.1"]
    assert found["methods"]["lora"] == {
        "since": "0.9.0",
        "fields": {
            "peft_type": "0.9.0",
            "r": "0.9.0",
            "task_type": "0.9.0",
            "use_dora": "0.10.0",
        },
        "variants": {},
    }


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[str], dict[str, list[set[str] | None]]]:
    """Releases, and per method and release its fields, or `None` where it is absent."""
    count = draw(st.integers(1, 5))
    releases = [f"0.{7 + i}.0" for i in range(count)]
    fields = st.sets(st.sampled_from(["a", "b", "c"]))
    methods = {
        name: [
            draw(fields if i == count - 1 else st.none() | fields) for i in range(count)
        ]  # the last release has every method, since it says which are dated
        for name in ("lora", "vera")
    }
    return releases, methods


@settings(max_examples=40, deadline=None)
@given(drawn=histories(), seed=st.integers(0, 9))
def test_since_is_the_start_of_the_unbroken_run_to_the_newest(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[str], dict[str, list[set[str] | None]]],
    seed: int,
) -> None:
    releases, methods = drawn
    folder = tmp_path_factory.mktemp("wheels")
    wheels = [
        new_form(
            {
                name: (f"{name.title()}Config", config(f"{name.title()}Config", sorted(fields)))
                for name, by_release in methods.items()
                if (fields := by_release[i]) is not None
            },
            release,
            folder,
        )
        for i, release in enumerate(releases)
    ]
    shuffled = random.Random(seed).sample(wheels, len(wheels))
    found = read_history(shuffled, curate(folder / "curated", "lora"))
    assert found["releases"] == releases
    for name, by_release in methods.items():
        newest = by_release[-1]
        assert newest is not None
        record = found["methods"][name]
        assert set(record["fields"]) == newest | {"peft_type", "task_type"}
        dated = {None: record["since"]} | {f: record["fields"][f] for f in newest}
        for field, since in dated.items():
            start = releases.index(since)
            there = [
                fields is not None and (field is None or field in fields) for fields in by_release
            ]
            assert all(there[start:])
            assert start == 0 or not there[start - 1]


def values_of(texts: list[str]) -> str:
    return config("LoraConfig", ["r", "init"]) + "".join(f"'{text}'\n" for text in texts)


def dates(tmp_path: Path, wheels: list[Path], *conditions: str) -> str:
    folder = curate(tmp_path / "curated", "lora", variant("tried", *conditions))
    return read_history(wheels, folder)["methods"]["lora"]["variants"]["tried"]


def test_a_variant_is_as_old_as_its_youngest_condition(tmp_path: Path) -> None:
    def release(version: str, text: str, more: dict[str, str] | None = None) -> Path:
        return new_form({"lora": ("LoraConfig", text)}, version, tmp_path, more)

    optimizer = {"peft/optimizers/__init__.py": "", "peft/optimizers/lorafa.py": ""}
    helper = {"peft/helpers.py": "def initialize_kv_prefix_from_text(): ...\n"}
    wheels = [
        release("1.0", config("LoraConfig", ["r"]) + "'pissa'\n"),
        release("2.0", values_of([])),
        # a docstring that speaks of a value is no support for it
        release("3.0", values_of(["the values gaussian and pissa_niter_4"])),
        release("4.0", values_of(["gaussian"])),
        release("5.0", values_of(["gaussian", "pissa_niter_[count]"]), optimizer),
        release("6.0", values_of(["gaussian", "pissa_niter_[count]"]), optimizer | helper),
    ]
    assert dates(tmp_path, wheels) == "1.0"
    assert dates(tmp_path, wheels, 'config = "r", equals = 4') == "1.0"
    assert dates(tmp_path, wheels, 'config = "init", is_set = true') == "2.0"
    assert dates(tmp_path, wheels, 'config = "init", equals = true') == "2.0"
    assert dates(tmp_path, wheels, 'config = "init", is_set = false') == "1.0"
    assert dates(tmp_path, wheels, 'training = "init_kv_cache_prefix", is_set = false') == "1.0"
    assert dates(tmp_path, wheels, 'config = "init", equals = "gaussian"') == "4.0"
    assert dates(tmp_path, wheels, 'config = "init", one_of = ["x", "gaussian"]') == "4.0"
    assert dates(tmp_path, wheels, 'config = "init", one_of = ["gaussian", true]') == "2.0"
    assert dates(tmp_path, wheels, 'config = "init", prefix = "pissa_niter_"') == "5.0"
    assert dates(tmp_path, wheels, 'training = "optimizer", equals = "lora-fa"') == "5.0"
    assert dates(tmp_path, wheels, 'training = "init_kv_cache_prefix", is_set = true') == "6.0"
    assert dates(tmp_path, wheels, 'training = "compile", equals = true') == "1.0"
    both = ('config = "init", is_set = true', 'training = "optimizer", equals = "LoRA-FA"')
    assert dates(tmp_path, wheels, *both) == "5.0"


def test_a_method_that_is_gone_is_noted_with_its_heir(tmp_path: Path) -> None:
    bone = ("BoneConfig", config("BoneConfig", ["r"]))
    miss = ("MissConfig", config("MissConfig", ["r"]))
    wheels = [
        new_form({"bone": bone}, "0.1.0", tmp_path),
        new_form({"bone": bone, "miss": miss}, "0.2.0", tmp_path),
        new_form({"miss": miss}, "0.3.0", tmp_path),
    ]
    plain = read_history(wheels, curate(tmp_path / "curated", "miss"))
    assert set(plain["methods"]) == {"miss"}
    assert plain["methods"]["miss"]["since"] == "0.2.0"
    assert plain["notes"] == ["bone: from peft 0.1.0 to 0.2.0, not in 0.3.0"]
    heir = read_history(wheels, curate(tmp_path / "curated", "miss", aliases='["Bone"]'))
    assert heir["notes"] == ["bone: from peft 0.1.0 to 0.2.0, not in 0.3.0; now miss"]


def test_wheels_that_are_not_one_per_final_release_are_refused_together(tmp_path: Path) -> None:
    text = config("LoraConfig", ["r"])
    wheels = [
        old_form(text, "1.0", tmp_path),
        old_form(text, "1.0", tmp_path / "again"),
        old_form(text, "1.1.dev0", tmp_path),
        old_form(text, "1.1rc1", tmp_path),
    ]
    with pytest.raises(CatalogError) as caught:
        read_history(wheels, curate(tmp_path / "curated", "lora"))
    assert [problem.message.split()[0] for problem in caught.value.problems] == [
        "1.0",
        "1.1.dev0",
        "1.1rc1",
    ]
    with pytest.raises(CatalogError, match="none was given"):
        read_history([], tmp_path / "curated")


def test_curated_files_that_do_not_fit_the_newest_release_are_all_reported(
    tmp_path: Path,
) -> None:
    wheels = [old_form(values_of([]), "1.0", tmp_path)]
    folder = curate(
        tmp_path / "curated",
        "lora",
        variant("a", 'config = "innit", is_set = false')
        + variant("b", 'config = "r", equals = 3', 'config = "init", equals = "pisa"')
        + variant("c", 'training = "optimizer", equals = "lorafa"'),
    )
    curate(folder, "loro")
    with pytest.raises(CatalogError) as caught:
        read_history(wheels, folder)
    assert [(Path(p.path).name, p.where) for p in caught.value.problems] == [
        ("loro.toml", ""),
        ("lora.toml", "variants[0].when[0]"),
        ("lora.toml", "variants[1].when[1]"),
        ("lora.toml", "variants[2].when[0]"),
    ]
    text = str(caught.value)
    assert "nearest: lora" in text
    assert "nearest: init" in text
    assert "'pisa'" in text


def test_curated_files_that_break_the_format_are_all_reported(tmp_path: Path) -> None:
    wheels = [old_form(config("LoraConfig", ["r"]), "1.0", tmp_path)]
    folder = curate(tmp_path / "curated", "lora", "colour = 'red'")
    (folder / "vera.toml").write_text("title = ", encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        read_history(wheels, folder)
    assert [(Path(p.path).name, p.where) for p in caught.value.problems] == [
        ("lora.toml", "colour"),
        ("vera.toml", ""),
    ]
    with pytest.raises(CatalogError, match="is not a folder"):
        read_history(wheels, tmp_path / "nowhere")


# --- the file ---


def test_the_file_is_byte_stable_and_never_forgets_a_release(tmp_path: Path) -> None:
    wheels = [
        old_form(config("LoraConfig", ["r"]), "0.9.0", tmp_path),
        old_form(config("LoraConfig", ["a", "r"]), "0.10.0", tmp_path),
    ]
    curated = curate(tmp_path / "curated", "lora")
    target = tmp_path / "history.json"
    full = read_history(wheels, curated)
    write(full, target)
    first = target.read_bytes()
    write(read_history(reversed(wheels), curated), target)
    assert target.read_bytes() == first == dump(json.loads(first))
    assert first.endswith(b"}\n")
    with pytest.raises(CatalogError, match=r"not read this time: 0\.9\.0"):
        write(read_history(wheels[1:], curated), target)
    assert target.read_bytes() == first


# --- pip ---


def test_published_releases_are_final_in_order_and_not_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listing = "peft (0.10.0)\nAvailable versions: 0.10.0, 0.10.0rc1, 0.9.0, 0.3.0, 0.2.0, 0.0.1\n"
    monkeypatch.setattr(room, "_pip", lambda *_: listing)
    assert published() == ["0.3.0", "0.9.0", "0.10.0"]
    monkeypatch.setattr(room, "_pip", lambda *_: "peft\n")
    with pytest.raises(CatalogError, match="cannot be listed"):
        published()


def test_only_absent_wheels_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip(*arguments: str) -> str:
        asked.append(arguments[-1])
        version = arguments[-1].removeprefix("peft==")
        if version != "0.0.0":
            old_form(config("LoraConfig", ["r"]), version, tmp_path)
        return ""

    monkeypatch.setattr(room, "_pip", pip)
    there = old_form(config("LoraConfig", ["r"]), "0.3.0", tmp_path)
    paths = room.download(tmp_path, ["0.3.0", "0.4.0"])
    assert asked == ["peft==0.4.0"]
    assert paths[0] == there
    assert all(path.exists() for path in paths)
    with pytest.raises(CatalogError, match=r"fetched no peft-0\.0\.0"):
        room.download(tmp_path, ["0.0.0"])


def test_a_failing_pip_says_what_it_was_asked() -> None:
    with pytest.raises(CatalogError, match="pip no-such-command"):
        room._pip("no-such-command")


def test_versions() -> None:
    assert is_final("0.21.2")
    assert not any(is_final(v) for v in ("0.21.2.dev0", "0.22.0rc1", "0.1+local", "", "1.0a"))
    assert version_key("0.9.9") < version_key("0.10.0") < version_key("1.0")


# --- what is committed ---


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return dict(json.loads(COMMITTED.read_text(encoding="utf-8")))


def test_the_committed_history_is_whole(committed: dict[str, Any]) -> None:
    assert dump(committed) == COMMITTED.read_bytes()  # type: ignore[arg-type] - parsed JSON
    releases = committed["releases"]
    assert releases[0] == room.FIRST_RELEASE
    assert releases == sorted(set(releases), key=version_key)
    for record in committed["methods"].values():
        start = releases.index(record["since"])
        for since in [*record["fields"].values(), *record["variants"].values()]:
            assert releases.index(since) >= start


def test_the_committed_history_knows_every_curated_method_and_variant(
    committed: dict[str, Any],
) -> None:
    curated = {path.stem: record for path, record in room._read_curated(CURATED).values()}
    assert set(committed["methods"]) == set(curated), "run peft-shop catalog history"
    for method, record in curated.items():
        variants = {variant.id for variant in record.variants}
        assert set(committed["methods"][method]["variants"]) == variants, method


READ_BY_HAND = {
    # place in the file: release; looked up in the text of this wheel and of the one before it
    "lora.fields.use_rslora": "0.8.0",
    "lora.fields.use_dora": "0.9.0",
    "lora.fields.exclude_modules": "0.14.0",
    "lora.fields.trainable_token_indices": "0.15.0",
    "lora.fields.target_parameters": "0.17.0",
    "lora.variants.loftq": "0.7.0",
    "lora.variants.pissa": "0.11.0",
    "lora.variants.olora": "0.12.0",
    "lora.variants.loraplus": "0.13.0",
    "lora.variants.eva": "0.14.0",
    "lora.variants.corda": "0.15.0",
    "lora.variants.orthogonal": "0.16.0",
    "lora.variants.lora_fa": "0.16.0",
    "lora.variants.alora": "0.18.0",
    "lora.variants.riemannian": "0.21.0",
    "oft.fields.oft_block_size": "0.14.0",
    "oft.variants.exact_cayley": "0.16.0",
    "prefix_tuning.variants.kv_init": "0.19.0",
    "prompt_tuning.variants.sample_vocab": "0.18.0",
    "multitask_prompt_tuning.since": "0.6.0",
    "vera.since": "0.11.0",
    "miss.since": "0.17.0",
}


@pytest.mark.parametrize("place", READ_BY_HAND)
def test_entries_that_a_person_looked_up(committed: dict[str, Any], place: str) -> None:
    found: Any = committed["methods"]
    for part in place.split("."):
        found = found[part]
    assert found == READ_BY_HAND[place]
