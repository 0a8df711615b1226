"""A method of a later peft needs no code here: it is answered, adapted, forecast and scripted.

The later peft is the installed one under another version, with one more method: BEFT under an
invented name. So what BEFT's closed form and recipes tell is the oracle for what is told without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest

import peft_shop

INSTALLED = Path(peft.__file__).parent
VERSION = "99.0.0"
WALK = """
import json, sys
import transformers
import peft
from peft_shop import recommend
from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.methods import Method
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.forecast.asking import forecast
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.records import Settings
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.checking import preflight
from peft_shop.scripts.script import snippet
from peft_shop.upstream.configs import config_from_dict
from peft_shop.upstream.source import installed_peft
from peft_shop.upstream.tables import own_targets

catalog = load()
beft = catalog.method_by_id["beft"]
fields = {name: "99.0.0" for name in beft.fields}
new = beft.model_copy(
    update={"id": "invented", "peft_type": "INVENTED", "config_class": "InventedConfig",
            "title": "Invented", "aliases": (), "variants": (), "since": "99.0.0",
            "fields": fields}
)
new = Method.model_validate(new.model_dump())
later = catalog.model_copy(
    update={"methods": (*catalog.methods, new), "peft_version": "99.0.0"}
)
last = catalog.snapshots[-1].id
old = next(run for run in catalog.runs_by_benchmark["metamathqa"]
           if run.method == "beft" and last in run.snapshots)
recipe = old.recipe.model_copy(update={"peft_type": "INVENTED"})
run = old.model_copy(
    update={"method": "invented", "experiment": "invented/first", "recipe": recipe}
)
measured = later.model_copy(update={"runs": (*later.runs, run)})

target = inspect_model(
    transformers.LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=2, vocab_size=128)
)
asked = {"model": target, "training": {"sequence_length": 32}}
answers = [recommend(catalog=one, **asked) for one in (later, measured)]
told = {}
adapted = retarget(later, new, target.structure, TargetOptions(peft_version="99.0.0"))
settings = Settings(sequence_length=32)
costs = forecast(target, adapted.whole_config, settings)
same = forecast(target, {**adapted.whole_config, "peft_type": "BEFT"}, settings)
checked = preflight(target, adapted.config)
try:
    closed_form(target.structure, adapted.whole_config, settings)
except ConfigError as error:
    told["closed_form"] = str(error)
ours = retarget(measured, run, target.structure, TargetOptions(peft_version="99.0.0"))
script = snippet(run, measured.benchmark_by_id["metamathqa"], catalog=measured)
compile(script, "script", "exec")
told |= {
    "version": installed_peft().version,
    "known": "INVENTED" in installed_peft().methods,
    "lacks": installed_peft().lacks(recipe),
    "own_targets": own_targets("INVENTED", "llama"),
    "unmeasured": [one.method for one in answers[0].unmeasured],
    "ranked": [one.method for one in answers[1].candidates],
    "dropped": [one.reason for d in answers[1].dropped if d.method == "invented"
                for one in d.failures],
    "problems": [*adapted.problems, *ours.problems],
    "config": type(config_from_dict(adapted.config)).__name__,
    "way": costs.way,
    "costs": [costs.trainable_parameters, costs.total_parameters, costs.checkpoint_bytes],
    "same": [same.trainable_parameters, same.total_parameters, same.checkpoint_bytes],
    "memory": [costs.peak_memory.value, same.peak_memory.value],
    "checked": [checked.forward, checked.trainable_parameters],
    "script": script,
}
json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a peft of links to the installed one, and what it has more of its own."""
    place = tmp_path_factory.mktemp("later")
    root = place / "peft"
    own = {"__init__.py", "tuners", "utils"}
    _link(INSTALLED, root, own)
    _link(INSTALLED / "tuners", root / "tuners", {"__init__.py"})
    _link(INSTALLED / "utils", root / "utils", {"peft_types.py"})
    exported = "\nfrom {}.invented import InventedConfig, InventedModel\n"
    text = (INSTALLED / "__init__.py").read_text()
    text = text.replace(f'__version__ = "{peft.__version__}"', f'__version__ = "{VERSION}"')
    (root / "__init__.py").write_text(text + exported.format(".tuners"))
    text = (INSTALLED / "tuners" / "__init__.py").read_text()
    (root / "tuners" / "__init__.py").write_text(text + exported.format(""))
    text = (INSTALLED / "utils" / "peft_types.py").read_text()
    member = '    BEFT = "BEFT"\n'
    assert member in text
    text = text.replace(member, f'{member}    INVENTED = "INVENTED"\n')
    (root / "utils" / "peft_types.py").write_text(text)
    (root / "tuners" / "invented").mkdir()
    for source in (INSTALLED / "tuners" / "beft").glob("*.py"):
        text = source.read_text().replace("TO_BEFT_TARGET", "TO_LORA_TARGET")
        for old, new in (("BEFT", "INVENTED"), ("Beft", "Invented"), ("beft", "invented")):
            text = text.replace(old, new)
        (root / "tuners" / "invented" / source.name).write_text(text)
    return place


def _link(source: Path, place: Path, own: set[str]) -> None:
    place.mkdir()
    for entry in source.iterdir():
        if entry.name not in own | {"__pycache__"}:
            (place / entry.name).symlink_to(entry)


@pytest.mark.slow
def test_a_new_method_needs_no_code(later: Path) -> None:
    search = os.pathsep.join([str(later), str(Path(peft_shop.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WALK],
        env=os.environ | {"PYTHONPATH": search, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=later,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["version"], told["known"], told["lacks"]) == (VERSION, True, [])
    assert told["own_targets"] == {"target_modules": ["q_proj", "v_proj"]}
    assert told["problems"] == []
    assert "invented" in told["unmeasured"]
    assert "invented" in told["ranked"], told["dropped"]
    assert told["config"] == "InventedConfig"
    assert told["way"] == "dry_run"
    # a bias for the 64 outputs of each query and the 32 of each value projection, in 3 layers
    assert told["costs"][0] == told["checked"][1] == 3 * (64 + 32)
    assert told["checked"][0] == "passed"
    assert told["costs"][:2] == told["same"][:2]
    # names of tensors in the file are longer by what the name is
    longer = 6 * (len("invented") - len("beft"))
    assert 0 <= told["costs"][2] - told["same"][2] <= longer + 8
    assert told["memory"][0] == told["memory"][1]
    assert "no closed form" in told["closed_form"]
    assert "InventedConfig" in told["script"]
