"""The page that holds every algorithm to a reference."""

import re
from pathlib import Path

import numpy as np
import pytest

import optax_extras as ox

from specs import factories

DOCS = Path(__file__).parent.parent / "docs"
if not (DOCS / "parity.py").exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)

QUICK = ["Schedules", "Clipping"]
SLOW = ["Noise", "Momentum", "Adaptive methods"]
SLOWER = ["Wrappers", "Memory", "Gradients of several workers", "Local updates"]


@pytest.fixture
def parity(documents):
    return documents("parity")


@pytest.fixture
def page():
    return (DOCS / "parity.md").read_text()


def table(page, heading):
    """The cells of the first table below a heading, without its first two lines."""
    _, found, rest = page.partition(f"\n## {heading}\n")
    assert found
    lines = re.findall(r"^\|(.*)\|$", rest.partition("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


def numbers(text):
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)]


def words(text):
    return re.sub(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", "#", text)


def test_every_algorithm_has_a_row(parity):
    named = {name for row in parity.rows() for name in row.names}
    without = {key.strip("`") for key in parity.NO_REFERENCE}
    assert {f.__name__ for f in factories()} - named - without == set()
    assert {"inverse_time_decay", "sutskever_momentum", "demon"} < named
    everything = [*parity.rows(), *parity.differences()]
    assert all(hasattr(ox, name) for row in everything for name in row.names)


def test_the_page_has_the_rows_and_bounds_of_the_script(parity, page):
    assert {*QUICK, *SLOW, *SLOWER} == parity.FAMILIES.keys()
    for heading, make in parity.FAMILIES.items():
        expected = [
            [parity.algorithm(r), r.options, r.reference, parity.limit(r)]
            for r in make()
        ]
        assert table(page, heading) == expected
    assert [row[:5] for row in table(page, "Deliberate differences")] == [
        [parity.algorithm(r), r.options, r.reference, r.what, r.why]
        for r in parity.differences()
    ]
    assert [row[:2] for row in table(page, "Faults of others")] == [
        [one.peer, one.text] for one in parity.FAULTS
    ]


def test_the_momentum_that_a_longer_period_takes_from_srsgd(documents, page):
    script, paper = documents("parity_differences"), documents("parity_numpy")
    modulo, ours = (
        paper.restarts(script.longer, 200, counts_on=on)[99:101] for on in (False, True)
    )
    assert modulo == [9 / 12, 0]
    assert ours == [9 / 12, 10 / 13]
    assert "here from 9 to 0, and the momentum from 0.75 to 0" in page


def test_what_a_reference_loses_to_nan(documents):
    module = documents("parity_adaptive_differences")
    ours, other = {"a": np.ones((2, 2))}, {"a": np.array([[np.nan, 1], [2, np.inf]])}
    assert module.lost(ours, ours) == 0
    assert module.lost(ours, other) == 0.5
    with pytest.raises(RuntimeError, match="are not finite"):
        module.lost(other, other)


def test_keys_are_unique(parity):
    keys = [row.key for row in [*parity.rows(), *parity.differences()]]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "family",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in SLOWER),
    ],
)
def test_deviations_are_below_their_bounds(parity, family):
    """Of the rows whose reference is installed."""
    rows = [row for row in parity.FAMILIES[family]() if row.can_run()]
    assert rows
    found = {row.key: (row.deviation(), row.bound) for row in rows}
    assert {key: x for key, x in found.items() if not x[0] < x[1]} == {}


@pytest.mark.nightly
def test_sizes_of_differences_are_those_of_the_page(parity, page):
    cells = table(page, "Deliberate differences")
    assert cells
    for row, (*_, size) in zip(parity.differences(), cells, strict=True):
        if row.can_run():
            found = row.measure(row.ours(), row.theirs())
            assert 100 * found == pytest.approx(numbers(size)[0], rel=0.1), row.key


@pytest.mark.nightly
def test_powersgd_amplifies_rounding(documents):
    module = documents("parity_worker_rows")
    assert module.growth() > module.FAR


def test_faults_are_found_as_the_page_says(parity, page, documents):
    """By all lines that can run; what an older JAX rounds differs in the last digit."""
    folder = documents("parity_faults").FOLDER
    files = {path.name for path in folder.glob("*.py")}
    assert files == {one.file for one in parity.FAULTS if one.file}
    for one, (*_, said, link) in zip(
        parity.FAULTS, table(page, "Faults of others"), strict=True
    ):
        if one.file is not None:
            assert link == f"[lines](reproductions/parity/{one.file})"
        if one.can_run():
            found = one.found()
            assert words(found) == words(said)
            np.testing.assert_allclose(numbers(found), numbers(said), rtol=0.2)


def test_a_deviation_is_a_share_of_the_largest_number_of_its_step(documents):
    deviation = documents("parity_steps").deviation
    expected = {"a": np.array([[2.0, 0.0], [0.0, 0.0]]), "b": np.array([[-4.0], [0.0]])}

    def of(name, step, value):
        changed = {key: x.copy() for key, x in expected.items()}
        changed[name][step, 0] += value
        return deviation(changed, expected)

    assert deviation(expected, expected) == 0
    assert of("a", 0, 1.0) == 0.25
    assert of("b", 0, -2.0) == 0.5
    assert of("a", 1, 1e-9) == np.inf
    assert of("a", 0, np.nan) == np.inf
    with pytest.raises(ValueError, match="leaves"):
        deviation({"a": expected["a"]}, expected)
    with pytest.raises(ValueError, match="beside"):
        deviation({**expected, "a": expected["a"][:1]}, expected)


def test_a_row_above_its_bound_is_refused(documents, parity):
    step = {"a": np.ones((1, 1))}
    row = documents("parity_steps").Row(
        names=("demon",),
        options="",
        reference="twice as much",
        ours=lambda: step,
        theirs=lambda: {"a": 2 * step["a"]},
    )
    with pytest.raises(RuntimeError, match=r"0\.5 is not below 1e-12"):
        parity.cells(row)


def test_sizes_have_two_digits(parity):
    shares = {0.474: "47 %", 18.87: "1900 %", 0.0053: "0.53 %", 5.3e-7: "5.3e-5 %"}
    assert {x: parity.size(x) for x in shares} == shares


def test_without_torch_the_page_stays(parity, monkeypatch, tmp_path):
    monkeypatch.setattr(parity, "PAGE", tmp_path / "parity.md")
    monkeypatch.setattr(parity, "PINNED", {"no_such_module": "1.0"})
    with pytest.raises(SystemExit, match=r"pip install no_such_module==1\.0"):
        parity.main()
    assert not parity.PAGE.exists()
