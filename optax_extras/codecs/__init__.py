"""Ways to keep an optimizer's state in fewer bytes, for `optax_extras.compress_state`.

`bfloat16`, `float8` and `blockwise` are bundled; one of your own is a `Codec`.
"""

from optax_extras.codecs._blockwise import Blocks, blockwise
from optax_extras.codecs._codec import Codec
from optax_extras.codecs._rounded import bfloat16, float8

__all__ = ["Blocks", "Codec", "bfloat16", "blockwise", "float8"]
