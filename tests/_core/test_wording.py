"""Words and tables of messages."""

import pytest

from optax_extras._core.wording import aligned, memory_size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1000 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1000 * 1024, "1000 KiB"),
        (1023.4 * 1024, "1023 KiB"),
        (1023.6 * 1024, "1 MiB"),
        (8_030_261_248 * 16, "120 GiB"),
        (2**40, "1 TiB"),
        (2**72, "4096 EiB"),
    ],
)
def test_sizes_in_memory(count, text):
    assert memory_size(count) == text


def test_columns_start_below_each_other():
    assert aligned([["a", "b"], ["long", "c"]]) == "a     b\nlong  c"
    assert aligned([["a", ""]]) == "a"
