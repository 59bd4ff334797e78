"""Writes docs/parity.md: every algorithm beside its reference.

Run from the repository, with the `cli` extra, torch, pytorch_optimizer and qhoptim:
``python docs/parity.py``. It takes about three minutes on two cores. Every number comes
from here.
"""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import parity_adaptive_differences
import parity_adaptive_rows
import parity_differences
import parity_momentum_rows
import parity_noise_rows
import parity_worker_rows
import parity_wrapper_rows
from parity_faults import FAULTS, Fault
from parity_steps import STEPS, Difference, Row
from parity_torch import PINNED
from study import table

PAGE = Path(__file__).parent / "parity.md"

FAMILIES: Mapping[str, Callable[[], Iterator[Row]]] = {
    "Noise": parity_noise_rows.noise_rows,
    "Momentum": parity_momentum_rows.momentum_rows,
    "Adaptive methods": parity_adaptive_rows.adaptive_rows,
    "Schedules": parity_noise_rows.schedule_rows,
    "Clipping": parity_wrapper_rows.clipping_rows,
    "Wrappers": parity_wrapper_rows.wrapper_rows,
    "Memory": parity_wrapper_rows.memory_rows,
    "Gradients of several workers": parity_worker_rows.gradient_rows,
    "Local updates": parity_worker_rows.local_rows,
}
DIFFERENT: list[Callable[[], Iterator[Difference]]] = [
    parity_differences.momentum_differences,
    parity_adaptive_differences.adaptive_differences,
    parity_differences.clipping_differences,
    parity_differences.wrapper_differences,
    parity_differences.worker_differences,
]
# What has no row, and why; a whole algorithm by its name in backticks alone.
NO_REFERENCE = {
    "`compress_state` with `blockwise` and `float8`": (
        "the maps are this library's; [memory.md](memory.md) has their errors beside"
        " those of bitsandbytes' map"
    ),
    "`compressed_mean` with the other compressors": (
        "their messages are this library's; tests/communication hold each to NumPy"
    ),
    "`recorded`, `leaf_paths`, `plan_bytes`, `wire_bytes` and other helpers": (
        "they make no updates"
    ),
}
# What is said above a table.
NOTES = {
    "Schedules": "Values of steps from 0 on are compared.",
    "Memory": (
        "Where numbers are rounded to the nearest, gradients are multiples of 1/8;"
        " where they are rounded at random, all are 1."
    ),
    "Clipping": "Four of the gradients are 20 times as large.",
    "Gradients of several workers": (
        "Gradients are multiples of 1/64 and the learning rate is 1/8: single precision"
        " adds them up exactly, but for the transforms of `demo` and the products of"
        " `power_sgd`."
    ),
    "Local updates": "The parameters of all workers are compared, less the first ones.",
}
ROW_HEAD = "algorithm", "options", "reference", "deviation below"
DIFFERENCE_HEAD = "algorithm", "options", "reference", "what differs", "why", "size"
FAULT_HEAD = "implementation", "fault", "found", "lines"


def rows() -> list[Row]:
    """Every row of the tables of parity."""
    return [row for make in FAMILIES.values() for row in make()]


def differences() -> list[Difference]:
    """Every row of the table of differences."""
    return [row for make in DIFFERENT for row in make()]


def algorithm(row: Row) -> str:
    """The names of a row."""
    return ", ".join(f"`{name}`" for name in row.names)


def limit(row: Row) -> str:
    """The bound of a row, in words."""
    return f"{row.bound:g} {row.unit}".replace("e-0", "e-").strip()


def cells(row: Row) -> list[str]:
    """A row of a table of parity.

    Raises:
      RuntimeError: the two are further apart than the bound of the row.
    """
    found = row.deviation()
    if not found < row.bound:
        raise RuntimeError(f"{row.key}: {found:.2g} is not below {row.bound:g}")
    return [algorithm(row), row.options, row.reference, limit(row)]


def size(share: float, unit: str = "") -> str:
    """A share with two digits."""
    digits = float(f"{100 * share:.2g}")
    return f"{digits:g} % {unit}".replace("e-0", "e-").strip()


def different(row: Difference) -> list[str]:
    """A row of the table of differences."""
    found = size(row.deviation(), row.unit)
    return [algorithm(row), row.options, row.reference, row.what, row.why, found]


def fault(one: Fault) -> list[str]:
    """A row of the table of faults."""
    lines = "" if one.file is None else f"[lines](reproductions/parity/{one.file})"
    return [one.peer, one.text, one.found(), lines]


def head() -> list[str]:
    """What is compared, how, and with what."""
    names = ["jax", "optax", "numpy", *PINNED]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return [
        "# Parity with references",
        "",
        "Every algorithm of this library is held to a reference: another"
        " implementation, or the equations of its paper in NumPy, on the same"
        f" gradients. Where a row does not say more, there are {STEPS} steps in"
        " float64 on the gradients of a matrix and a vector, whose scale and signs"
        " change over time, and options are the defaults, with a learning rate of 0.05."
        " Methods of several workers run on four devices, in float32. Where parameters"
        " matter, as in weight decay, each side moves its own. The deviation is the"
        " largest difference in any step, as a share of the largest number of that step"
        " of the reference: of the updates, or of what a row names, such as parameters"
        " or standard deviations. The number of a row is a bound, below which it is.",
        "",
        "`python docs/parity.py` writes this page, and wrote it with"
        f" {', '.join(versions)} and Python {platform.python_version()}. A test holds"
        " its numbers; the rows that need torch, pytorch_optimizer or qhoptim are"
        " tested where these are installed. What code of others does that no package"
        " has was read at the commits below, and is repeated here in NumPy.",
    ]


def page() -> str:
    """All of it."""
    lines = head()
    for name, make in FAMILIES.items():
        lines += ["", f"## {name}", ""]
        if name in NOTES:
            lines += [NOTES[name], ""]
        lines += table(ROW_HEAD, [cells(row) for row in make()])
        if make is parity_worker_rows.gradient_rows:
            lines += ["", growth()]
    lines += ["", "## Without a reference", ""]
    lines += [f"- {name}: {why}." for name, why in NO_REFERENCE.items()]
    lines += [
        "",
        "## Deliberate differences",
        "",
        "The size is the deviation from the reference, measured as above. These are"
        " differences in numbers that a run may show; docstrings have those of"
        " arguments, dtypes and shardings as well.",
        "",
        *table(DIFFERENCE_HEAD, [different(row) for row in differences()]),
        "",
        "## Faults of others",
        "",
        "Found on the way. Each link leads to a few lines that print what the table"
        " says. Those for packages run the package; the others repeat the arithmetic of"
        " the source.",
        "",
        *table(FAULT_HEAD, [fault(one) for one in FAULTS]),
    ]
    return "\n".join(lines) + "\n"


def growth() -> str:
    """Why PowerSGD has a row of few steps.

    Raises:
      RuntimeError: single precision is near double precision.
    """
    if not parity_worker_rows.growth() > parity_worker_rows.FAR:
        raise RuntimeError("single precision does not part from double precision")
    return (
        "The power iteration of PowerSGD amplifies rounding: within"
        f" {STEPS} steps, the paper's algorithm in NumPy's single precision is more"
        f" than {parity_worker_rows.FAR:.0%} from that in double precision."
    )


def missing() -> str:
    """How to install what a whole page needs; empty if it is there."""
    absent = [name for name in PINNED if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    wanted = " ".join(f"{name}=={version}" for name, version in PINNED.items())
    return (
        f"{', '.join(absent)} not found, without which the page would lack rows; the"
        f" page is as it was. Install them: pip install {wanted}"
    )


def main() -> None:
    """Writes the page, or says what is missing."""
    if text := missing():
        sys.exit(text)
    jax.config.update("jax_num_cpu_devices", 8)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
