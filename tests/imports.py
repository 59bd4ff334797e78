"""The imports of a package as a graph, and what is wrong with it."""

import ast
import graphlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def import_graph(package: Path) -> Graph:
    """What each module of a package imports, wherever the statement stands.

    Imports inside functions and under `TYPE_CHECKING` count. Modules of the package go
    without its name, and the package itself is the empty string; modules of others
    keep their full names.
    """
    files = {_name(path.relative_to(package)): path for path in package.rglob("*.py")}
    return {
        name: {
            _resolve(target, package.name, files)
            for target in _targets(path, name, package.name)
        }
        for name, path in files.items()
    }


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(path: Path, name: str, package: str) -> Iterator[str]:
    """What the statements of a file name: modules, or attributes of modules."""
    above = f"{package}.{name}".rstrip(".").split(".")
    if path.name == "__init__.py":
        above.append("__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = above[: -node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _resolve(target: str, package: str, files: Collection[str]) -> str:
    """The module that a dotted name is, or is an attribute of."""
    if target != package and not target.startswith(f"{package}."):
        return target
    name = target[len(package) + 1 :]
    return name if name in files else name.rpartition(".")[0]


def cycle(graph: Graph) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    inside = {name: targets & graph.keys() for name, targets in graph.items()}
    try:
        graphlib.TopologicalSorter(inside).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def wrong_arrows(
    graph: Graph, layers: Mapping[str, Collection[str]], families: Collection[str]
) -> list[str]:
    """The imports that `layers` does not allow, and the modules that it does not have.

    Args:
      graph: the imports.
      layers: from each part of the package to the parts that it may import, beside
        itself.
      families: parts of which another may import the package alone.
    """
    return [
        f"{name or 'the package'} imports {target or 'the package'}"
        for name, targets in graph.items()
        for target in sorted(targets)
        if "_src" in target.split(".")
        or (target in graph and not _allowed(name, target, layers, families))
    ] + [f"{name} has no layer" for name in graph if _part(name) not in layers]


def _part(name: str) -> str:
    return name.partition(".")[0]


def _allowed(
    name: str,
    target: str,
    layers: Mapping[str, Collection[str]],
    families: Collection[str],
) -> bool:
    part, other = _part(name), _part(target)
    if part == other or part not in layers:
        return True
    if part in families and other in families and target != other:
        return False
    return other in layers[part]
