"""Page of evidence: verdicts, text and pictures on a small task."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import optax
import pytest

from optax_extras.tasks import quadratic

SOURCE = Path(__file__).parent.parent / "docs" / "evidence.py"
if not SOURCE.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)


@pytest.fixture
def evidence(monkeypatch, tmp_path):
    """The module, with two methods on a small task."""
    spec = importlib.util.spec_from_file_location("evidence", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "images").mkdir()
    methods = {"fast": optax.sgd, "slow": lambda learning_rate: optax.sgd(0.001)}
    small = {
        "FOLDER": tmp_path,
        "METHODS": methods,
        "RATES": np.array([0.1, 0.2, 0.5]),
        "TUNING_SEEDS": range(2),
        "SETTINGS": {"a, b c": partial(quadratic, 4, 10.0)},
        "WELLS": (),
        "STEPS": 20,
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_verdicts(evidence):
    assert evidence.verdict(15) == "**held**"
    for wins in (14.5, 5.5):
        assert evidence.verdict(wins) == "no difference was shown"
    assert evidence.verdict(5) == "**did not hold: the peer was better**"


def test_the_page_in_small(evidence, monkeypatch, tmp_path):
    claims = (
        evidence.Claim("Right.", "fast", "slow", ("a, b c",), 20),
        evidence.Claim("Wrong.", "slow", "fast", ("a, b c",), 20),
        evidence.Claim("Same.", "fast", "fast", ("a, b c",), 20),
    )
    monkeypatch.setattr(evidence, "CLAIMS", claims)
    page = evidence.page()
    right, wrong, same = page.split("###")[1:4]
    assert "20 of 20 | **held**" in right
    assert "0 of 20 | **did not hold" in wrong
    assert "10 of 20 | no difference" in same
    numbers = evidence.score("a, b c", "fast", 20)
    assert f"{np.median(numbers):.3g} ({numbers.min():.3g} to" in right
    ranked = [line for line in page.splitlines() if line.startswith(("| fast", "| sl"))]
    assert [line.split(" | ")[0] for line in ranked] == ["| fast", "| slow"]
    assert "0.5 (end of the grid)" in ranked[0]
    assert "![a, b c](images/evidence-a-b-c.png)" in page
    picture = tmp_path / "images" / "evidence-a-b-c.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
