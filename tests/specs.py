"""Rows of the conformance table, which the test file of each algorithm holds.

Every algorithm runs through all checks once. Its variants, which are its other options
and the alias that chains it with a learning rate, run through the checks that what they
change can break: see `CHECKS_OF`.
"""

import dataclasses
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import optax

import optax_extras as ox
from optax_extras.testing import Spec

# Bytes per parameter for counts, keys and other statistics of one number.
SCALARS = 0.01
# Temporaries for noise that is drawn once, whatever consumes it.
SHARED_DRAW = 1
# Older versions of XLA:CPU copy more buffers.
_IN_PLACE = jax.__version_info__ >= (0, 10, 2)

CHECKS_OF = {
    # Another formula on the same state.
    "formula": [
        "state_is_a_fixed_point",
        "updates_match_parameters",
        "pure",
        "jit_equals_eager",
        "hyperparameters_may_be_arrays",
        "scan_equals_loop",
        "donation",
        "inject_hyperparams_on_bfloat16",
        "inject_float32_hyperparams_on_bfloat16",
        "injected_hyperparameters_take_effect",
        "bfloat16",
        "float16",
        "float64",
        "gradients_of_another_dtype",
        "strict_dtype_promotion",
        "strict_rank_promotion",
        "complex_numbers",
        "complex_equals_its_real_view",
        "zero_gradients",
        "zero_gradients_in_half_precision",
        "zero_parameters",
        "huge_gradients",
        "tiny_gradients",
        "count_at_its_end",
        "descends_a_parabola",
        "descends_rosenbrock",
        "descends_a_matrix_factor",
        "leaf_order_does_not_matter",
        "learning_rate_of_zero_does_nothing",
        "constant_schedule_equals_constant",
        "temporary_bytes",
    ],
    # Other leaves in the state, of other shapes or dtypes.
    "state": [
        "state_holds_plain_arrays",
        "init_accepts_abstract_values",
        "init_is_reusable",
        "missing_params_raise_clearly",
        "count_can_be_read_and_set",
        "state_owns_its_buffers",
        "tree_norm_of_state",
        "tree_cast_of_state",
        "tree_map_params_of_state",
        "containers",
        "scalar_leaf",
        "zero_size_leaf",
        "empty_tree",
        "none_leaf_in_parameters",
        "none_gradient",
        "no_retrace",
        "masked",
        "restored_from_arrays",
        "state_bytes",
    ],
    # Random numbers where there were none, or from another stage.
    "draws": [
        "same_key_same_draw",
        "keys_draw_differently",
        "leaves_draw_differently",
        "steps_draw_differently",
        "partition_groups_draw_differently",
        "draws_do_not_depend_on_other_leaves",
        "draws_do_not_depend_on_sharding",
        "callers_key_survives_donation",
        "vmap_over_keys",
        "keys_are_used_once",
    ],
    # Sums over other sets of elements.
    "sums": [
        "vmap_over_parameters",
        "sharding_is_kept",
        "many_devices_equal_one",
        "explicit_sharding",
        "scan_inside_shard_map",
    ],
    # Other consumers of random numbers, into each of which XLA may copy the generator.
    "consumers": ["compiles_before_other_transformations"],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row(Spec):
    """A `Spec` of a factory; a variant says what it changes, by keys of `CHECKS_OF`.

    That of a transformation around others has the factory of the inner one.
    """

    factory: Callable[..., optax.GradientTransformation]
    around: Callable[..., optax.GradientTransformation] | None = None
    changes: Collection[str] = ()

    def build(self) -> optax.GradientTransformationExtraArgs:
        """The transformation."""
        return self.make(**self.hyperparameters, **self._key)

    def inner(self) -> optax.GradientTransformation | None:
        """The transformation that it is around, if it is around one."""
        if self.around is not None:
            return self.around(**self.hyperparameters, **self._key)
        inner: Any = getattr(self.make, "keywords", {}).get("inner")
        return inner

    @property
    def _key(self) -> dict[str, int]:
        return {"key": 7} if "random" in self.supports else {}


FIELDS = {field.name for field in dataclasses.fields(Row)}


def spec(
    factory: Any,
    suffix: str = "",
    *,
    buffers: int = 0,
    temporaries: int = 0,
    static: dict[str, Any] | None = None,
    **options: Any,
) -> Row:
    """A row named after its factory, with so many float32 buffers and temporaries.

    What is no field of `Row` is a hyperparameter; `static` arguments are none. Those of
    a factory `around` another go to the inner one. A variant says what it `changes`.
    """
    fields = {name: options.pop(name) for name in list(options) if name in FIELDS}
    fields.setdefault("max_state_bytes", 4 * buffers + SCALARS)
    if _IN_PLACE:
        fields.setdefault("max_temporary_bytes", 4 * temporaries + SCALARS)
    if suffix and not fields.get("changes"):
        raise ValueError("a row with a suffix needs `changes`")
    make = functools.partial(factory, **(static or {}))
    if around := fields.get("around"):
        make = functools.partial(_wrap, make, around)
    return Row(
        name=f"{factory.__name__}-{suffix}" if suffix else factory.__name__,
        make=make,
        hyperparameters=options,
        factory=factory,
        **fields,
    )


def _wrap(make: Callable[..., Any], around: Callable[..., Any], **values: Any) -> Any:
    return make(around(**values))


def families() -> list[str]:
    """The packages whose names are all at the root of the library."""
    return [
        name
        for name, value in vars(ox).items()
        if inspect.ismodule(value)
        and set(getattr(value, "__all__", ["none"])) <= set(ox.__all__)
    ]


def factories() -> list[Callable[..., optax.GradientTransformation]]:
    """The public functions that are annotated to return a transformation."""
    functions = filter(inspect.isfunction, (getattr(ox, name) for name in ox.__all__))
    return [f for f in functions if returns_a_transformation(f)]


def returns_a_transformation(function: Callable[..., Any]) -> bool:
    """Whether a function is annotated so."""
    returned = inspect.signature(function, eval_str=True).return_annotation
    return inspect.isclass(returned) and issubclass(
        returned, optax.GradientTransformation
    )


@functools.cache
def collect() -> list[Row]:
    """The `SPECS` of the families' test files."""
    tests = Path(__file__).parent
    return [
        row
        for family in families()
        for path in sorted((tests / family).glob("test_*.py"))
        for row in getattr(_module(path), "SPECS", ())
    ]


def _module(path: Path) -> Any:
    # By a name of its own: pytest rewrites assertions in what it imports by another.
    name = f"specs_of_{path.parent.name}_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
