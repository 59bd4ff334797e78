"""`Codec`: how an array of real numbers is kept."""

import abc
from typing import Any

import jax


class Codec(abc.ABC):
    """How an array of an optimizer's state is kept; base class of your own.

    `optax_extras.compress_state` calls the methods inside the compiled step, with
    float32 arrays of any shape; those of a complex array are its real and imaginary
    parts along a first axis of 2. The code of what an array was decoded to must be the
    code that it was decoded from: a state that a step leaves alone then does not move.
    Codecs are hashable, as those are that do not define ``__eq__``, and frozen
    dataclasses: one program is compiled for equal ones.

    Examples:
      Half precision, rounded to the nearest:

      >>> import jax.numpy as jnp, optax, optax_extras
      >>> class Float16(optax_extras.codecs.Codec):
      ...     def encode(self, x, statistics, words):
      ...         return x.astype(jnp.float16)
      ...     def decode(self, encoded, shape):
      ...         return encoded.astype(jnp.float32)
      >>> optimizer = optax_extras.compress_state(
      ...     optax.sgd(0.1, momentum=0.9), {"trace": Float16()}
      ... )
      >>> optimizer.init(jnp.ones(3)).inner_state[0].trace.dtype
      dtype('float16')
    """

    def statistics(self, x: jax.Array) -> Any:
        """Sums, maxima and the like of an array, which its code depends on.

        XLA would write an array to memory that is reduced and then used again. The
        array here is therefore computed a second time.

        Args:
          x: the array, float32.

        Returns:
          A tree of small arrays; by default, none.
        """
        del x
        return ()

    @abc.abstractmethod
    def encode(self, x: jax.Array, statistics: Any, words: jax.Array) -> Any:
        """The code of an array.

        Args:
          x: the array, float32.
          statistics: what `statistics` returned.
          words: random bits for each element, in the shape of ``x``, uint32; the same
            for the same key, step, path and index, and not computed if they are not
            used.

        Returns:
          An array, or a tree of arrays whose structure, shapes and dtypes depend only
          on the shape of ``x``.
        """

    @abc.abstractmethod
    def decode(self, encoded: Any, shape: tuple[int, ...]) -> jax.Array:
        """What a code stands for.

        Args:
          encoded: what `encode` returned.
          shape: that of the array.

        Returns:
          The array, float32.
        """
