"""The report on optax: contracts and advice told apart, and every one reproduced."""

import importlib
from pathlib import Path

import pytest

from optax_extras.testing import CHECKS, Result, Spec

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)

CONTRACT, ADVICE, KEPT = "donation", "none_gradient", "chain"


@pytest.fixture(scope="module")
def tables():
    """The module that writes the tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("conformance_tables")


@pytest.fixture(scope="module")
def report(tables):
    """The module that writes the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("conformance_optax")


@pytest.fixture
def optimizers(tables):
    """One that keeps everything, one against advice and one against a contract too."""

    def optimizer(name, *failing):
        found = {
            check: Result(
                transformation=name,
                check=check,
                severity=CHECKS[check].severity,
                status="failed" if check in failing else "passed",
                message="",
                seconds=0.0,
            )
            for check in (CONTRACT, ADVICE, KEPT)
        }
        return tables.Alias("optax", Spec(name, lambda: None), found)

    return [
        optimizer("clean"),
        optimizer("unadvised", ADVICE),
        optimizer("broken", CONTRACT, ADVICE),
    ]


def test_the_summary_tells_contracts_from_advice(tables, optimizers):
    text = tables.summary(optimizers)
    assert "**2 contracts.** 2 of the 3 optimizers pass all of them." in text
    assert f"1 failures, in 1 of them, most often in [{CONTRACT}]" in text
    assert "**1 pieces of advice.** 1 of the 3 optimizers pass all of them." in text
    assert f"2 failures, in 1 of them, most often in [{ADVICE}](#{ADVICE}) (2)." in text
    assert [line for line in text.splitlines() if line.startswith("| `")] == [
        f"| `optax.broken` | [{CONTRACT}](#{CONTRACT}) | 1 |",
        "| `optax.clean` | none | 0 |",
        "| `optax.unadvised` | none | 1 |",
    ]


def test_the_matrix_marks_contracts_and_advice_differently(tables, optimizers):
    text = tables.matrix("optax", optimizers)
    assert f"| [{CONTRACT}](#{CONTRACT}) |   |   | ✗ |" in text
    assert f"| [{ADVICE}](#{ADVICE}) |   | ○ | ○ |" in text
    assert f"1 checks: `{KEPT}`" in text
    assert tables.matrix("optax.contrib", optimizers) == ""


def test_lines_are_those_of_one_optimizer_in_place_of_another(tables, report):
    known = {}
    for name, rate in (("madgrad", 0.1), ("prodigy", 1.0)):
        spec = Spec(name, lambda: None, hyperparameters={"learning_rate": rate})
        alias = tables.Alias("optax.contrib", spec, {})
        known[alias.path] = alias
    code = "make = optax.contrib.prodigy\ntx = optax.contrib.prodigy(1.0)\n"
    madgrad = known["optax.contrib.madgrad"]
    assert report.adapted(code, known["optax.contrib.prodigy"], known) == code
    assert report.adapted(code, madgrad, known).splitlines() == [
        "make = lambda rate, momentum=0.9: optax.contrib.madgrad(rate, momentum)",
        "tx = optax.contrib.madgrad(0.1)",
    ]


def test_every_failure_on_the_page_is_reproduced():
    page = (DOCS / "conformance-optax.md").read_text()
    assert "Not reproduced" not in page
    assert page.index("| optimizer | contracts broken |") < page.index("<details>")
