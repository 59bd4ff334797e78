"""What `optax-extras memory` plans and prints: where the bytes of optimizers go."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

import jax
import optax
import optax.contrib
from rich.console import RenderableType
from rich.text import Text

from optax_extras import BytesPlan, plan_bytes
from optax_extras._core.importing import cause, check_call, load
from optax_extras._core.wording import counted, memory_size
from optax_extras.cli._optimizers import OPTIMIZERS, Factory
from optax_extras.cli._text import Column, as_json, number, paragraph, tables

KNOWN: Mapping[str, Factory] = {
    **OPTIMIZERS,
    "adafactor": optax.adafactor,
    "muon": optax.contrib.muon,
}
# Beside these, whatever is asked for is shown.
BESIDE = ("adam", "adafactor", "sgd", "muon", "adasmooth")
# XLA compiles for no more devices of the CPU.
MOST_DEVICES = 2048
# For factories that need them; no size depends on their values.
_GIVEN = {"learning_rate": 0.001, "key": 0}


def load_optimizer(text: str) -> Any:
    """Loads an optimizer, or makes it with the arguments that it needs.

    Args:
      text: one of the known names, or where a transformation is, or a function that
        returns one; perhaps with arguments.

    Raises:
      ValueError: it cannot be loaded or made.
    """
    found, arguments = load(text, KNOWN, "--optimizer")
    if not (callable(found) or arguments):
        return found
    check_call(repr(text), found, arguments, list(_GIVEN))
    given = {k: v for k, v in _GIVEN.items() if k not in arguments and _needs(found, k)}
    try:
        return found(**given, **arguments)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot make {text!r}: {cause(error)}") from error


def _needs(factory: Callable[..., Any], name: str) -> bool:
    parameter = inspect.signature(factory).parameters.get(name)
    return parameter is not None and parameter.default is parameter.empty


@dataclasses.dataclass
class Plans:
    """Plans of optimizers for the same parameters.

    Attributes:
      params: the parameters.
      sharding: of the parameters, as `plan_bytes` takes it.
      asked: names of the optimizers that are shown field by field.
      plans: by the name of the optimizer.
      failures: why there is no plan of one that was not asked for.
    """

    params: Any
    sharding: Any
    asked: Collection[str]
    plans: dict[str, BytesPlan] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises the errors that no optimizer is to be blamed for."""
        plan_bytes(optax.identity(), self.params, sharding=self.sharding)

    def add(self, name: str, tx: Any) -> None:
        """Plans an optimizer.

        Raises:
          ValueError: it was asked for, and has no state for these parameters.
        """
        try:
            self.plans[name] = plan_bytes(tx, self.params, sharding=self.sharding)
        except Exception as error:
            if name in self.asked:
                raise ValueError(f"cannot plan {name!r}: {cause(error)}") from error
            self.failures[name] = cause(error)


def render(found: Plans, width: int) -> Iterator[RenderableType]:
    """A table of all optimizers, and one of the fields of each that was asked for."""
    plans = found.plans
    some = next(iter(plans.values()))
    yield paragraph(_caption(some))
    yield from tables("optimizer", list(plans), _costs(list(plans.values())), width)
    for name in found.asked:
        yield paragraph(Text(name, "bold"))
        (_, *names), *columns = zip(*plans[name].texts(), strict=True)
        yield from tables(
            "field",
            names,
            [Column(heading, cells) for heading, *cells in columns],
            width,
        )
    yield paragraph(_note())
    for name, plan in plans.items():
        if plan.no_temporaries is not None:
            yield paragraph(f"{name}: without temporaries: {plan.no_temporaries}.")
    for name, why in found.failures.items():
        yield paragraph(f"{name}: no plan: {why}.")


def _caption(plan: BytesPlan) -> str:
    parameters = plan.parameters
    caption = (
        f"{plan.parameter_count:,} parameters in {counted(parameters.arrays, 'array')}:"
        f" {memory_size(parameters.bytes)}, and as much for gradients"
    )
    if _is_sharded(plan):
        caption += f"; {memory_size(parameters.bytes_per_device)} of each on a device"
    return f"{caption}."


def _is_sharded(plan: BytesPlan) -> bool:
    return plan.state_shardings is not None


def _costs(plans: Sequence[BytesPlan]) -> list[Column]:
    """What optimizers need, on each device where parameters are sharded."""
    is_sharded = _is_sharded(plans[0])
    where = " per device" if is_sharded else ""
    columns = {
        "state": [memory_size(plan.state_bytes) for plan in plans],
        "state B per param": [number(plan.bytes_per_parameter) for plan in plans],
        "state per device": [
            memory_size(plan.state.bytes_per_device) for plan in plans
        ],
        f"temporaries{where}": [
            "unknown"
            if plan.temporary_bytes is None
            else memory_size(plan.temporary_bytes)
            for plan in plans
        ],
        f"total{where}": [memory_size(plan.bytes_per_device) for plan in plans],
    }
    if not is_sharded:
        del columns["state per device"]
    return list(starmap(Column, columns.items()))


def _note() -> str:
    return (
        "Total: parameters, gradients, state and temporaries. Temporaries: of the"
        " optimizer's step alone, as the compiler counts them for"
        f" {jax.default_backend().upper()}. As 8 bits: an estimate, of blocks of 256"
        " with a float32 scale each."
    )


def to_json(found: Plans) -> str:
    """Bytes of the parameters, and of each optimizer, field by field."""
    some = next(iter(found.plans.values()))
    return as_json(
        {
            "parameter_count": some.parameter_count,
            "parameters": some.parameters._asdict(),
            "gradients": some.gradients._asdict(),
            "backend": jax.default_backend(),
            "optimizers": [
                {
                    "optimizer": name,
                    "state": plan.state._asdict(),
                    "fields": [row._asdict() for row in plan.fields],
                    "temporary_bytes": plan.temporary_bytes,
                    "no_temporaries": plan.no_temporaries,
                    "bytes_per_device": plan.bytes_per_device,
                }
                for name, plan in found.plans.items()
            ],
            "failures": found.failures,
        }
    )
