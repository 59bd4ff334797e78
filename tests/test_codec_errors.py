"""The tables and maps behind the page about memory."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras.codecs import blockwise

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)


@pytest.fixture
def errors(documents):
    return documents("codec_errors")


def table(text, part):
    """The cells of a table that the script wrote, without its first two lines."""
    written = text.partition(f"codec_errors.py: {part} -->\n")[2]
    lines = re.findall(r"^\| (.*) \|$", written.partition("<!-- end -->")[0], re.M)
    return [line.split(" | ") for line in lines[2:]]


@pytest.mark.daily("True-8-False", "True-4-True", "False-8-True", "False-4-False")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("stochastic", [True, False])
def test_the_library_has_the_maps_that_were_chosen(documents, bits, signed, stochastic):
    maps = documents("codec_maps").MAPS
    chosen = maps["square, (c / n)²" if signed else "fourth power, (c / n)⁴"]
    options = {"signed": signed, "stochastic": stochastic}
    x = jax.random.normal(jax.random.key(0), (64, 256)) ** 3
    # At random, a table rounds numbers up, and the library magnitudes.
    x = x if signed and not stochastic else abs(x)
    words = jax.random.bits(jax.random.key(1), x.shape, jnp.uint32)
    ours, table = (
        codec.decode(codec.encode(x, codec.statistics(x), words), x.shape)
        for codec in (
            blockwise(bits, **options),
            documents("codec_maps").tabulated(chosen, bits, **options),
        )
    )
    # A few decisions are within the error of float32.
    is_close = np.isclose(ours, table, rtol=1e-5)
    assert is_close.mean() > 0.999


@pytest.mark.parametrize(
    ("bits", "signed", "count", "smallest"),
    [
        (8, True, 256, 5.5e-7),
        (8, False, 256, 3.25e-7),
        (4, True, 16, 5.5e-3),
        (4, False, 16, 3.25e-3),
    ],
)
def test_the_dynamic_map_is_that_of_bitsandbytes(
    documents, bits, signed, count, smallest
):
    levels = documents("codec_maps").dynamic(bits, signed)
    assert len(levels) == len(set(levels)) == count
    np.testing.assert_allclose(levels[levels > 0].min(), smallest)
    assert levels[-1] == 1
    assert (levels == 0).sum() == 1
    top = 2 ** (bits - 1 - signed)
    np.testing.assert_allclose(levels[-2], 1 - 0.45 / top)
    np.testing.assert_allclose(levels[0], -levels[-2] if signed else 0)
    for decade in range(1, bits - 1):
        inside = (levels > 10.0**-decade) & (levels < 10.0 ** (1 - decade))
        assert inside.sum() == top / 2 ** (decade - 1)


def test_the_page_has_the_current_codecs_and_bytes(errors):
    rows = table(errors.PAGE.read_text(), "codecs")
    assert [(name, size, when) for name, size, *_, when in rows] == [
        (f"`{name}`", f"{errors.bytes_of(first):.3g}", when)
        for name, (first, _, when) in errors.CODECS.items()
    ]


def test_the_page_has_every_part(errors):
    text = errors.PAGE.read_text()
    for part in errors.PARTS:
        assert table(text, part), part


def test_a_part_is_replaced_alone(errors):
    text = errors.PAGE.read_text()
    changed = errors.updated(text, "codecs", ["| new |"])
    assert "\n| new |\n" in changed
    assert changed.startswith(text.partition("<!-- written")[0])
    for part in errors.PARTS.keys() - {"codecs"}:
        assert table(changed, part) == table(text, part)
    with pytest.raises(ValueError, match="must hold"):
        errors.updated(text, "unknown", [])


@pytest.mark.slow
def test_errors_on_digits_are_those_of_the_page(errors):
    rows = table(errors.PAGE.read_text(), "codecs")
    for cells, codecs in zip(rows, errors.CODECS.values(), strict=True):
        for which, cell in enumerate(cells[2:4]):
            found = errors.rms(errors.errors("digits", codecs[which], not which))
            assert found == pytest.approx(float(cell.split(",")[0]), rel=0.15), cells
