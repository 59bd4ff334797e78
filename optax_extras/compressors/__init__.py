"""Ways to send gradients in fewer bytes, for `optax_extras.compressed_mean`.

`top_k`, `dct_top_k`, `random_k`, `quantized`, `sign` and `low_rank` are bundled; one of
your own is a `Compressor`.
"""

from optax_extras.compressors._bits import from_bytes, pack, to_bytes, unpack
from optax_extras.compressors._compressor import (
    Compressor,
    Exchanged,
    Site,
    Stack,
    stacks_of,
)
from optax_extras.compressors._factories import (
    dct_top_k,
    low_rank,
    quantized,
    random_k,
    sign,
    top_k,
)
from optax_extras.compressors._group import Average, Group
from optax_extras.compressors._staged import Dense, Staged

__all__ = [
    "Average",
    "Compressor",
    "Dense",
    "Exchanged",
    "Group",
    "Site",
    "Stack",
    "stacks_of",
    "Staged",
    "dct_top_k",
    "from_bytes",
    "low_rank",
    "pack",
    "quantized",
    "random_k",
    "sign",
    "to_bytes",
    "top_k",
    "unpack",
]
