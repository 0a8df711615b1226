"""What SECURITY.md promises: nothing read is executed, and nothing is fetched unasked."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import peft_shop
from peft_shop import recommend

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(peft_shop.__file__).parent
EXECUTES = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "yaml", "code"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_source_executes_text() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in EXECUTES
    ]
    assert found == []


def test_no_source_imports_what_executes_on_load() -> None:
    found = []
    for name, tree in sources():
        for node in ast.walk(tree):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            found += [
                f"{name}: {module}" for module in modules if module.partition(".")[0] in MODULES
            ]
    assert found == []


def test_torch_files_are_read_as_weights_only() -> None:
    loads = [
        (name, node)
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and ast.unparse(node.func.value) == "torch"
    ]
    for name, call in loads:
        stated = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert stated.get("weights_only") == "True", f"{name}:{call.lineno}"


def test_code_that_comes_with_a_model_is_run_only_where_it_is_asked_for() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) != "True", f"{name}: {ast.unparse(node)}"


@pytest.fixture(name="offline")
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to connect, each refused."""
    attempts: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


def test_questions_scripts_and_local_models_need_no_network(
    offline: list[Any], tmp_path: Path
) -> None:
    answer = recommend("metamathqa", peft_version="any", serve="vllm")
    assert answer.best.snippet
    assert answer.best.route("ollama")
    pytest.importorskip("transformers", reason="needs peft-shop[peft]")
    from transformers import LlamaConfig

    LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=128,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)
    about = recommend("metamathqa", model=tmp_path, device="RTX 4090", peft_version="any")
    assert about.query.model is not None
    assert offline == []
