"""Faults of other implementations, each with lines that show it."""

import contextlib
import dataclasses
import importlib.util
import io
import runpy
import warnings
from pathlib import Path

FOLDER = Path(__file__).parent / "reproductions" / "parity"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, and the file that shows it.

    Attributes:
      peer: the implementation, with its version or commit.
      text: what is wrong, and what follows from it.
      file: a script whose last line prints what it found; None where the source says
        it all.
      needs: modules that the script needs; without any, it repeats the arithmetic of
        the source, in NumPy or JAX.
    """

    peer: str
    text: str
    file: str | None = None
    needs: tuple[str, ...] = ()

    def can_run(self) -> bool:
        """Whether everything is installed."""
        return all(importlib.util.find_spec(name) for name in self.needs)

    def found(self) -> str:
        """The last line that the script prints."""
        if self.file is None:
            return "read in the source"
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")  # of overloads that torch has deprecated
            runpy.run_path(str(FOLDER / self.file))
        return printed.getvalue().splitlines()[-1]


TORCH = ("torch", "pytorch_optimizer")
QHOPTIM = ("torch", "qhoptim")

FAULTS = [
    Fault(
        "`pytorch_optimizer` 4.1.0, AggMo; AtheMathmo/AggMo, `src/aggmo.py` at 5e8ae39",
        "traces are kept by the values of their decays: of two equal ones, the one"
        " trace advances twice in a step",
        "aggmo_equal_decays.py",
        TORCH,
    ),
    Fault(
        "`pytorch_optimizer` 4.1.0, AggMo; AtheMathmo/AggMo, `update_hparam`",
        "for the same reason, decays cannot be changed after the first step",
        "aggmo_changed_decays.py",
        TORCH,
    ),
    Fault(
        "AtheMathmo/AggMo, `tensorflow/aggmo.py` at 5e8ae39",
        "`from_exp_form` has an argument `k`, and reads `K`, which is not defined",
    ),
    Fault(
        "`qhoptim` 1.1.0; `pytorch_optimizer` 4.1.0; AtheMathmo/AggMo at 5e8ae39",
        "weight decay that is not decoupled is added to the caller's gradient, so that"
        " a second step, or a norm that is logged after it, sees it too",
        "weight_decay_in_gradients.py",
        (*QHOPTIM, "pytorch_optimizer"),
    ),
    Fault(
        "`qhoptim` 1.1.0, QHM",
        "a momentum of 1 and more is accepted",
        "qhm_momentum_above_one.py",
        QHOPTIM,
    ),
    Fault(
        "`qhoptim` 1.1.0, QHM",
        "the documented update has the wrong sign",
        "qhm_documented_sign.py",
        QHOPTIM,
    ),
    Fault(
        "`qhoptim` 1.1.0, QHAdam",
        "with a β1 that varies, the first moment is not that of the paper's recursion",
        "qhadam_varying_decay.py",
        QHOPTIM,
    ),
    Fault(
        "`qhoptim` 1.1.0, QHM for TensorFlow",
        "the trace is not damped, and is multiplied by the 1 − β of the present step:"
        " a momentum that falls makes steps too large",
        "qhm_undamped_trace.py",
    ),
    Fault(
        "minhtannguyen/SRSGD, `optimizers/srsgd.py` at d7dca55",
        "momentum restarts one step early, and only the first group of parameters has"
        " any",
        "srsgd_period.py",
    ),
    Fault(
        "`pytorch_optimizer` 4.1.0, Adai",
        "the mean of squares is raised to `eps`, so that small gradients have more"
        " momentum than by the paper, whose method does not depend on their scale",
        "adai_clamped_mean.py",
        TORCH,
    ),
    Fault(
        "zeke-xie/adaptive-inertia-adai, `adai_optim/adai.py` at 1b6ff99",
        "a gradient of zeros in the first step makes all parameters NaN",
        "adai_zero_gradients.py",
    ),
    Fault(
        "`pytorch_optimizer` 4.1.0, AdaShift without a reduction",
        "an element that had no gradient so far is moved by its gradient over `eps`",
        "adashift_after_zeros.py",
        TORCH,
    ),
    Fault(
        "mknbv/adashift, `adashift/optimizers.py` at e29aa3f",
        "the sum over the window begins at zero when the window is full",
        "adashift_empty_window.py",
    ),
    Fault(
        "shivram1987/diffGrad, `diffGrad.py` at f8797c0, by its comments that of the"
        " paper",
        "where gradients are set to zero in place, the last gradient is overwritten"
        " before it is read; `diffGrad_v2.py` copies it",
        "diffgrad_overwritten_gradient.py",
    ),
    Fault(
        "marin-community/marin, `levanter/optim/adamh.py` at 7cb2d65",
        "a matrix of zeros is divided by its norm",
        "adamh_zero_matrix.py",
    ),
    Fault(
        "marin-community/marin, `levanter/optim/adamh.py` at 7cb2d65",
        "norms of a bfloat16 matrix are computed in bfloat16, and those of the present"
        " matrix are kept: it does not keep its norm",
        "adamh_norm_in_bfloat16.py",
    ),
    Fault(
        "`pytorch_optimizer` 4.1.0, cautious methods",
        "the scale d / (kept + 1) shortens steps where all is kept, and most in small"
        " leaves",
        "cautious_single_element.py",
        TORCH,
    ),
]
