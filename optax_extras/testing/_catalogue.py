"""All checks; importing their modules registers them, in this order."""

from optax_extras.testing import (
    _budget,  # noqa: F401
    _compilation,  # noqa: F401
    _dtypes,  # noqa: F401
    _extremes,  # noqa: F401
    _machine,  # noqa: F401
    _randomness,  # noqa: F401
    _restoring,  # noqa: F401
    _semantics,  # noqa: F401
    _sharding,  # noqa: F401
    _structure,  # noqa: F401
    _trees,  # noqa: F401
    _wrappers,  # noqa: F401
)
from optax_extras.testing._registry import CHECKS as CHECKS
