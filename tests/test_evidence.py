"""Page of evidence: verdicts, text and pictures on a small task."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tasks import Goal, quadratic

SOURCE = Path(__file__).parent.parent / "docs" / "evidence.py"
if not SOURCE.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)


@pytest.fixture
def judge(documents):
    return documents("verdicts").judge


@pytest.fixture
def evidence(documents, monkeypatch, tmp_path):
    """The module, with three methods on a small task."""
    module = documents("evidence")
    for cached in (module.task, module.tuned, module.fresh):
        cached.cache_clear()
    (tmp_path / "images").mkdir()
    methods = {
        "fast": optax.sgd,
        "slow": lambda learning_rate: optax.sgd(0.001),
        "tuned": optax.sgd,
    }
    small = {
        "FOLDER": tmp_path,
        "METHODS": methods,
        "TUNED": {"tuned": {"momentum": [0.0, 0.2, 0.9]}},
        "RATES": np.array([0.1, 0.2, 0.5]),
        "TUNING_SEEDS": range(2),
        "SETTINGS": {"a, b c": partial(quadratic, 4, 10.0)},
        "WELLS": (),
        "STEPS": 20,
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    return module


BETTER, WORSE = np.full(20, 0.9), np.full(20, 1.1)


@pytest.mark.parametrize(
    ("ours", "counts", "verdict"),
    [
        (BETTER, (20, 0, 0), "**held**"),
        (WORSE, (0, 0, 20), "**did not hold: the peer was better**"),
        (np.full(20, 1.009), (0, 20, 0), "no difference was shown"),
        (np.full(20, 0.991), (0, 20, 0), "no difference was shown"),
        (np.r_[BETTER[:15], WORSE[:5]], (15, 0, 5), "**held**"),
        (np.r_[BETTER[:14], WORSE[:6]], (14, 0, 6), "no difference was shown"),
        (np.r_[BETTER[:11], np.ones(9)], (11, 9, 0), "**held**"),
        (np.r_[WORSE[:9], np.ones(11)], (0, 11, 9), "no difference was shown"),
        (np.full(20, np.inf), (0, 0, 20), "**did not hold: the peer was better**"),
    ],
)
def test_verdicts(judge, ours, counts, verdict):
    assert judge(ours, np.ones(20)) == (*counts, verdict)


def test_a_peer_that_diverged_loses(judge):
    gone = np.full(20, np.inf)
    assert judge(BETTER, gone).verdict == "**held**"
    assert judge(gone, gone) == (0, 20, 0, "no difference was shown")
    assert judge(BETTER, np.r_[gone[:1], np.ones(19)]).wins == 20


def test_two_solved_problems_are_a_tie_unless_speed_is_claimed(judge):
    ours, peer = np.full(20, 1e-12), np.full(20, 1e-16)
    assert judge(ours, peer, 1e-7) == (0, 20, 0, "no difference was shown")
    assert judge(ours, peer).verdict == "**did not hold: the peer was better**"
    assert judge(peer, ours).verdict == "**held**"


def test_equal_numbers_on_the_page_are_never_a_verdict(judge):
    """Also where each seed differs, and the median does not."""
    rng = np.random.default_rng(0)
    ladder = np.geomspace(1, 3, 20)
    pairs = [(np.full(20, x), np.full(20, 0.09736)) for x in (0.09744, 0.09735)]
    pairs.append((np.roll(ladder, -1), ladder))
    for _ in range(2000):
        peer = 10 ** rng.uniform(-3, 3) * np.exp(rng.normal(0, rng.uniform(0, 0.2), 20))
        scale = 10 ** rng.uniform(-4, -1)
        pairs.append((peer * (1 + scale * rng.normal(rng.normal(), 0.3, 20)), peer))
    equal = 0
    for ours, peer in (*pairs, *((-a, -b) for a, b in pairs)):
        shown = [f"{np.median(values):.3g}" for values in (ours, peer)]
        if shown[0] == shown[1]:
            equal += 1
            assert judge(ours, peer).verdict == "no difference was shown"
    assert equal > 500


@pytest.mark.slow
def test_the_page_in_small(evidence, monkeypatch, tmp_path):
    task = ("a, b c",)
    claims = (
        evidence.Claim("Right.", "fast", "slow", task, 20),
        evidence.Claim("Wrong.", "slow", "fast", task, 20, note="A note."),
        evidence.Claim("Same.", "fast", "fast", task, 20),
        evidence.Claim("Chosen.", "tuned", "fast", task, 20, speed=True),
    )
    monkeypatch.setattr(evidence, "CLAIMS", claims)
    page = evidence.page()
    right, wrong, same, chosen = page.split("###")[1:5]
    assert "| task | metric | method | peer | won, tied, lost | |" in right
    assert "20, 0, 0 | **held**" in right
    assert "0, 0, 20 | **did not hold" in wrong
    assert "\nA note.\n" in wrong
    assert "0, 20, 0 | no difference" in same
    assert "`tuned`, the best of 9 settings. Peer: `fast`, the best of 3" in chosen
    numbers = evidence.score("a, b c", "fast", 20)
    assert f"{np.median(numbers):.3g} ({numbers.min():.3g} to" in right
    table = page[page.index("### a, b c") :]
    ranked = [line.split(" | ")[:2] for line in table.splitlines()[4:7]]
    assert [name for name, _ in ranked] == ["| tuned", "| fast", "| slow"]
    assert ranked[1][1] == "0.5 (end of the grid)"
    assert "momentum 0.2" in ranked[0][1]
    assert "![a, b c](images/evidence-a-b-c.png)" in page
    picture = tmp_path / "images" / "evidence-a-b-c.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_rates_are_chosen_by_validation_and_judged_by_the_test_part(
    evidence, monkeypatch
):
    small = replace(
        quadratic(2),
        evaluate=lambda x: {"validation": jnp.sum(x**2), "test": -jnp.sum(x**2)},
        goal=Goal("validation", reported="test"),
    )
    monkeypatch.setattr(evidence, "SETTINGS", {"small": lambda: small})
    best = evidence.tuned("small", "fast", 20).best()
    assert best == {"learning_rate": 0.5}
    np.testing.assert_array_less(evidence.score("small", "fast", 20), 0)
    (row,) = evidence.claim_rows(evidence.Claim("", "fast", "slow", ("small",), 20))
    assert "| test (min), chosen by validation |" in row
    assert "0, 0, 20 | **did not hold" in row  # the metrics are opposites


def test_a_script_replaces_its_own_section(documents, monkeypatch, tmp_path):
    study = documents("study")
    page = tmp_path / "evidence.md"
    monkeypatch.setattr(study, "PAGE", page)
    page.write_text("# Evidence\n")
    study.write_section("one", ["## Old"])
    study.write_section("two", ["## Two"])
    study.write_section("one", ["## One", "text"])
    first, second = study.mark("one"), study.mark("two")
    sections = f"{first}\n## One\ntext\n\n{second}\n## Two\n"
    assert page.read_text() == "# Evidence\n\n" + sections
