"""Which modules a configuration targets, by peft's rules and without peft."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ConfigError, nearest_names
from peft_shop.forecast.quick.methods.parts import Fields, Site
from peft_shop.forecast.quick.methods.prompts import PROMPT_METHODS
from peft_shop.forecast.quick.remembered import remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = ["module_sites", "sites_of"]

_SHORTHAND: Final = "all-linear"
_LINEAR: Final = frozenset({"linear", "transformers_conv1d"})


def sites_of(fields: Fields) -> list[Site]:
    """Modules that the configuration wraps, in the order in which peft meets them.

    Raises:
        ConfigError: `target_modules` is not stated and no installed peft has an entry for this
            type of model in its own table, or nothing matches.
    """
    if fields.method in PROMPT_METHODS:
        return []
    targets = fields["target_modules"]
    if fields.method == "TRAINABLE_TOKENS" and targets is None:
        targets = _embeddings(fields.structure)
    if targets is None:
        msg = (
            f"{fields.method}: target_modules is not stated, and the installed peft's own table "
            f"has no entry for {fields.structure.model_type or fields.structure.architecture}; "
            "state them, for example as `retarget` gives them"
        )
        raise ConfigError(msg)
    if not targets:
        msg = (
            f"{fields.method}: no closed form where nothing but parameters is targeted; make a dry "
            "run, which needs torch"
        )
        raise ConfigError(msg)
    # recipes name the same few layers: each choice is made once per model
    key = ("sites", fields.method in _OWN_RULES and fields.method, *map(repr, _rules(fields)))
    chosen = remembered(fields.structure, key, lambda: _chosen(fields, targets))
    if not chosen:
        modules = _modules(fields)
        asked = [targets] if isinstance(targets, str) else sorted(targets)
        near = nearest_names(asked[0], {site.name.rpartition(".")[2] for site in modules})
        hint = f"; the model has: {', '.join(near)}" if near else ""
        msg = f"{fields.method}: target_modules {asked} matches no module of the model{hint}"
        raise ConfigError(msg)
    return chosen


_OWN_RULES: Final = frozenset({"ADAPTION_PROMPT", "TRAINABLE_TOKENS"})
"""Methods that read `target_modules` in a way of their own."""
_RULES: Final = (
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
)


def _rules(fields: Fields) -> Iterator[Any]:
    """What decides about targets; sets in one order."""
    for name in _RULES:
        value = fields[name]
        yield sorted(value) if isinstance(value, (set, frozenset)) else value


def _modules(fields: Fields) -> list[Site]:
    if fields.method == "ADAPTION_PROMPT":
        return _parents(fields.structure)
    return module_sites(fields.structure)


def _chosen(fields: Fields, targets: Any) -> list[Site]:
    return [site for site in _modules(fields) if _matches(fields, site, targets)]


def module_sites(structure: Structure) -> list[Site]:
    """Every module that a structure knows, in the model's own order."""
    return remembered(structure, "modules", lambda: _module_sites(structure))


def _module_sites(structure: Structure) -> list[Site]:
    found = {
        name: _site(name, group)
        for group in structure.groups
        if group.kind != "parameter"
        for name in group.names
    }
    return [found[name] for name in _traversal(found)]


def _site(name: str, group: ModuleGroup) -> Site:
    size = 1
    for side in group.shape:
        size *= side
    return Site(
        name,
        group.pattern,
        group.kind,
        group.in_features,
        group.out_features,
        group.bias,
        group.kernel,
        group.groups,
        size,
        group.parameters,
    )


def _traversal(names: Iterable[str]) -> Iterator[str]:
    """Dotted names depth first; siblings as they first appear, numbers in their order."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for part in name.split("."):
            node = node.setdefault(part, {})

    def walk(node: dict[str, Any], prefix: str) -> Iterator[str]:
        if not node:
            yield prefix
        parts = sorted(node, key=int) if node and all(p.isdigit() for p in node) else list(node)
        for part in parts:
            yield from walk(node[part], f"{prefix}.{part}" if prefix else part)

    return walk(tree, "")


def _parents(structure: Structure) -> list[Site]:
    """Modules that hold the targets, such as whole attention blocks."""
    parents: dict[str, Site] = {}
    for site in module_sites(structure):
        parent = site.name.rpartition(".")[0]
        if parent:
            pattern = site.pattern.rpartition(".")[0]
            parents.setdefault(parent, Site(parent, pattern, "other", site.inputs, site.outputs))
    return list(parents.values())


def _embeddings(structure: Structure) -> list[str]:
    return [name for group in structure.of(["embedding"]) for name in group.names]


def _matches(fields: Fields, site: Site, targets: Any) -> bool:
    """Whether peft 0.21.2 would wrap `site`."""
    if _is_excluded(fields, site.name):
        return False
    if isinstance(targets, str):
        return _matches_text(fields, site, targets)
    if site.name in targets:
        return True
    return _ends_with(site.name, targets) and _in_layers(fields, site.name)


def _ends_with(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _is_excluded(fields: Fields, name: str) -> bool:
    excluded = fields["exclude_modules"] or ()
    if isinstance(excluded, str):
        found = re.fullmatch(excluded, name) is not None
    else:
        found = _ends_with(name, excluded)
    whole = fields["modules_to_save"] or ()
    return found or any(re.match(rf"(^|.*\.){one}($|\..*)", name) for one in whole)


def _matches_text(fields: Fields, site: Site, target: str) -> bool:
    """A text is a pattern for the whole name, with three exceptions."""
    if target.lower() == _SHORTHAND:
        return site.kind in _LINEAR and not _is_head(fields.structure, site.name)
    if fields.method == "ADAPTION_PROMPT":
        return site.name.rpartition(".")[2] == target
    if fields.method == "TRAINABLE_TOKENS":
        return _ends_with(site.name, [target])
    return re.fullmatch(target, site.name) is not None


def _is_head(structure: Structure, name: str) -> bool:
    """Whether `all-linear` leaves the module out: the output embedding or classifier."""
    return any(name in group.names for group in structure.of(["head"]))


def _in_layers(fields: Fields, name: str) -> bool:
    """Whether the module's layer is one of `layers_to_transform`."""
    wanted = fields["layers_to_transform"]
    if wanted is None or wanted == []:
        return True
    patterns = fields["layers_pattern"] or ()
    match = None
    if not patterns:
        match = re.match(r".*?\.[^.]*\.(?P<index>\d+)\.", name)
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        match = re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", name)
        if match is not None:
            break
    if match is None:
        return False
    index = int(match["index"])
    return index == wanted if isinstance(wanted, int) else index in wanted
