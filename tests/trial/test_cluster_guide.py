"""The guide to clusters: manifests that Kubernetes knows, commands that there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from peft_shop.cli.app import app
from peft_shop.trial.trial import Trial

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "run-a-trial-on-a-cluster.md").read_text(encoding="utf-8")
JOB = json.loads((Path(__file__).parent / "kubernetes_job.json").read_text(encoding="utf-8"))
MANIFESTS = {
    manifest["metadata"]["name"].removeprefix("my-trial-"): manifest
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    for manifest in [yaml.safe_load(block)]
}


def words(command: str) -> list[str]:
    """A command without what a shell makes of its exit code; a variable is some number."""
    return [re.sub(r"\\?\$\w+", "0", word) for word in shlex.split(command.partition("||")[0])]


def commands() -> list[list[str]]:
    ours = []
    for manifest in MANIFESTS.values():
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        ours.append(words(container.get("args", [shlex.join(container["command"])])[0]))
    one = re.search(r"^one='(.*)'$", GUIDE, re.MULTILINE)
    assert one is not None
    wrapped = re.findall(r"--wrap (?:\"(.*?)\"|'(.*?)')", GUIDE)
    ours += [words((double or single).replace("$one", one[1])) for double, single in wrapped]
    ours += [words(line) for line in re.findall(r"^peft-shop trial .*", GUIDE, re.MULTILINE)]
    return ours


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_a_manifest_has_the_shape_of_a_job(name: str) -> None:
    manifest = MANIFESTS[name]
    jsonschema.validate(manifest, JOB)
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    spec: dict[str, Any] = manifest["spec"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= volumes
    # a limit for each index goes with indexes alone
    indexed = spec.get("completionMode") == "Indexed"
    assert indexed is ("backoffLimitPerIndex" in spec) is ("completions" in spec)
    assert indexed is ("JOB_COMPLETION_INDEX" in json.dumps(pod))


def test_what_is_misspelt_in_a_manifest_is_seen() -> None:
    manifest = json.loads(json.dumps(MANIFESTS["rates"]).replace("parallelism", "paralelism"))
    with pytest.raises(jsonschema.ValidationError, match="paralelism"):
        jsonschema.validate(manifest, JOB)


def test_the_stages_are_all_there() -> None:
    assert sorted(MANIFESTS) == ["base", "edges", "rates", "seeds"]


def test_every_command_of_the_guide_is_one() -> None:
    group = typer.main.get_command(app)
    assert len(commands()) >= 2 * 4 + 1
    for command in commands():
        assert command[:2] == ["peft-shop", "trial"], command
        with group.make_context("peft-shop", ["trial"]) as outer:
            trial = group.get_command(outer, "trial")
            assert trial is not None
            with trial.make_context("trial", command[2:3], parent=outer) as inner:
                chosen = trial.get_command(inner, command[2])
                assert chosen is not None, command
                chosen.make_context(command[2], command[3:], parent=inner)


SBATCH = """\
#!/usr/bin/env bash
# does at once what it is given, task after task; the number of a job is that of the call
array=
while [ $# -gt 0 ]; do
  case $1 in
    --array=*) array=${1#--array=} ;;
    --wrap) shift; wrap=$1 ;;
  esac
  shift
done
for task in $(if [ "$array" ]; then seq "${array%-*}" "${array#*-}"; else echo none; fi); do
  SLURM_ARRAY_TASK_ID=$task sh -c "$wrap" >&2
  echo "$? $task $wrap" >> calls.txt
done
wc -l < calls.txt
"""


@pytest.mark.slow
def test_two_arrays_do_a_whole_trial(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trial = Trial.create(
        "my-trial",
        model=tiny / "model",
        train=tiny / "train.jsonl",
        candidates=("lora", "miss"),
        steps=3,
        max_length=32,
        batch_size=4,
        rates=1,
        seeds=1,
    )
    commands = {
        "sbatch": SBATCH,
        "peft-shop": f'#!/bin/sh\nexec {sys.executable} -m peft_shop "$@"\n',
    }
    for name, content in commands.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    script = re.search(r"<!-- slurm -->\s+```sh\n(.*?)```", GUIDE, re.DOTALL)
    assert script is not None
    # one index too many, which is no error of the array's other tasks
    smaller = script[1].replace("--array=0-17", "--array=0-2")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", smaller],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert trial.complete, done.stderr
    assert not trial.status().failed
    codes = [line.split()[0] for line in (tmp_path / "calls.txt").read_text().splitlines()]
    # base, three rates of which one is none, edges, three seeds of which one is none
    assert codes == ["0", "0", "0", "0", "0", "0", "0", "1"]
    # again: what has an outcome is left as it is
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("my-trial/runs/*/*.json")}
    assert trial.run_one(index=0, stage="rates") is not None
    assert trial.run_one(index=7, stage="rates") is None
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
