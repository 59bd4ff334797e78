"""Shardings as options: ``data=8,model=4`` and ``layers/.*/w=data,None``."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from optax_extras._core.patterns import compile_patterns, first_matches, path_text


def mesh_sizes(text: str) -> dict[str, int]:
    """The size of each axis of a mesh.

    Raises:
      ValueError: the text has another form.
    """
    found = [re.fullmatch(r"(\w+)=0*([1-9]\d*)", part) for part in text.split(",")]
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) < len(found):
        raise ValueError(
            "--mesh must be the sizes of different axes, such as data=8,model=4, got"
            f" {text!r}"
        )
    return sizes


def shardings(params: Any, sizes: Mapping[str, int], rules: Sequence[str]) -> Any:
    """The shardings of parameters over a mesh, which is abstract without its devices.

    Args:
      params: the parameters.
      sizes: of the axes of the mesh.
      rules: ``PATTERN=AXES``, of which the first that matches counts; ``AXES`` has
        an axis, several joined by ``+``, or ``None`` for each dimension. What no
        pattern matches is replicated.

    Raises:
      ValueError: a rule has another form, names an unknown axis, or chooses nothing.
    """
    parsed = [_parse(rule, sizes) for rule in rules]
    patterns = compile_patterns("--shard", [pattern for pattern, _ in parsed])
    specs = {p.pattern: spec for p, (_, spec) in zip(patterns, parsed, strict=True)}
    mesh = _mesh(sizes)
    treedef: Any
    leaves, treedef = jax.tree.flatten_with_path(params)
    matches = first_matches(
        "--shard", patterns, [path_text(path) for path, _ in leaves]
    )
    return treedef.unflatten(
        NamedSharding(mesh, specs[match.re.pattern] if match else PartitionSpec())
        for match in matches
    )


def _parse(rule: str, sizes: Mapping[str, int]) -> tuple[str, PartitionSpec]:
    pattern, equals, axes = rule.rpartition("=")
    if not equals:
        raise ValueError(
            "--shard must be PATTERN=AXES, such as 'layers/.*/w=data,None', got"
            f" {rule!r}"
        )
    entries = [
        None if entry == "None" else tuple(entry.split("+"))
        for entry in axes.split(",")
    ]
    for name in (name for entry in entries for name in entry or ()):
        if name not in sizes:
            raise ValueError(
                f"--shard must name axes of --mesh, which are {', '.join(sizes)}; got"
                f" {name!r} in {rule!r}"
            )
    return pattern, PartitionSpec(*entries)


def _mesh(sizes: Mapping[str, int]) -> Any:
    shape, names = tuple(sizes.values()), tuple(sizes)
    if math.prod(shape) > jax.device_count():
        return AbstractMesh(shape, names)
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
