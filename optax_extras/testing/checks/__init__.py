"""All checks, one module per theme; importing the modules registers them in order."""

# isort: off
from optax_extras.testing.checks import _structure as _structure
from optax_extras.testing.checks import _trees as _trees
from optax_extras.testing.checks import _compilation as _compilation
from optax_extras.testing.checks import _compile_time as _compile_time
from optax_extras.testing.checks import _wrappers as _wrappers
from optax_extras.testing.checks import _dtypes as _dtypes
from optax_extras.testing.checks import _extremes as _extremes
from optax_extras.testing.checks import _sharding as _sharding
from optax_extras.testing.checks import _restoring as _restoring
from optax_extras.testing.checks import _randomness as _randomness
from optax_extras.testing.checks import _semantics as _semantics
from optax_extras.testing.checks import _budget as _budget
from optax_extras.testing.checks import _machine as _machine
from optax_extras.testing._registry import CHECKS as CHECKS
