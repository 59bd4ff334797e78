"""Section of the page of evidence on the relatives of AdaSmooth and of momentum."""

import dataclasses
import importlib
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tasks import Goal, quadratic

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)

START = "<!-- written by docs/evidence_relatives.py -->\n"
WORDS = ("better", "worse", "no difference")


@pytest.fixture
def documents(monkeypatch):
    """Imports a module of the documents."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


@pytest.fixture
def section():
    """The section as it is on the page."""
    _, start, rest = (DOCS / "evidence.md").read_text().partition(START)
    assert start
    return rest.partition("<!-- written by")[0]


def parts(text):
    """Text and rows of cells of each task, by its name."""
    found = {}
    for part in text.split("\n#### ")[1:]:
        name, _, body = part.partition("\n")
        lines = re.findall(r"^\|.*$", body, re.MULTILINE)
        rows = [[cell.strip() for cell in x.split("|")[1:-1]] for x in lines]
        assert len({len(row) for row in rows}) == 1
        found[name] = body, rows[2:]
    return found


def listed(text, word):
    """The methods that the sentence below a table calls by a word."""
    names = re.search(rf"^Beside .*? {word.capitalize()}: (.*?)\.(?: |$)", text, re.M)
    return [] if names[1] == "none" else names[1].split("; ")


def test_the_page_has_the_tasks_and_methods_of_the_script(documents, section):
    methods = documents("relatives_methods")
    found = {
        name: [row[0] for row in rows] for name, (_, rows) in parts(section).items()
    }
    assert found == {name: list(methods.study(name).methods) for name in methods.TASKS}
    assert "(end of the grid)" not in section


def test_verdicts_on_the_page_follow_from_its_numbers(section):
    for text, (peer, *rows) in parts(section).values():
        assert peer[3:] == ["", "", ""]
        for _, _, _, ratio, counts, word in rows:
            wins, ties, losses = map(int, counts.split(", "))
            assert wins + ties + losses == 20
            # 1 %, up to what the page rounds off.
            better = wins + ties / 2 >= 15 and float(ratio) < 0.995
            worse = losses + ties / 2 >= 15 and float(ratio) > 1.005
            assert word in WORDS
            assert better or word != "better"
            assert worse or word != "worse"
            if word == "no difference":
                assert not (better and float(ratio) < 0.985)
                assert not (worse and float(ratio) > 1.015)
        for word in WORDS:
            assert listed(text, word) == [row[0] for row in rows if row[-1] == word]


def test_ratios_on_the_page_are_those_of_the_medians(section):
    for text, (peer, *rows) in parts(section).values():
        (head,) = re.findall(r"^\| method \| best rate \| .* \|$", text, re.MULTILINE)
        power = 1 if "(min)" in head else -1
        middle = float(peer[2].split(" ")[0])
        for _, _, shown, ratio, *_ in rows:
            expected = (float(shown.split(" ")[0]) / middle) ** power
            assert float(ratio) == pytest.approx(expected, rel=0.02)


def test_the_claim_on_the_page_follows_from_its_tables(documents, section):
    script = documents("evidence_relatives")
    found = parts(section)
    verdicts = {
        (row[0], name): row[-1]
        for name in script.UNSTEADY
        for row in found[name][1]
        if row[0] in script.CLAIMANTS
    }
    words = list(verdicts.values())
    assert len(words) == 9
    (line,) = re.findall(r"^\*\*AdaSmooth and AdaShift.*$", section, re.MULTILINE)
    better, worse, same = (words.count(word) for word in WORDS)
    assert f" {better} are better, {worse} worse, and in {same} there" in line
    assert ("**held" in line) == (better > worse or better == len(words))
    for (method, name), word in verdicts.items():
        said = f"{method} {word} on {name}" in line
        assert said == (word != "no difference")


def fake(first, last, mode="min", steps=300):
    """A study of one method, with values of each seed."""
    curves = np.stack([first, last], axis=1)[None]
    result = SimpleNamespace(
        curves=lambda metric: curves, final=lambda metric: curves[..., -1]
    )
    task = SimpleNamespace(goal=Goal("value", mode))
    return SimpleNamespace(task=task, steps=steps, methods={"one": None}), result


@pytest.mark.parametrize(
    ("name", "last", "mode", "expected"),
    [
        ("quadratic", [1e-3, 0.1, 1.0, 2.0, np.nan], "min", [100, 300] + [np.inf] * 3),
        ("quadratic", [0.0], "min", [300 / -np.log10(np.finfo(np.float32).tiny)]),
        ("digits", [0.5, np.inf], "min", [0.5, np.inf]),
        ("cart-pole", [50.0, np.nan], "max", [50, -np.inf]),
    ],
)
def test_what_is_compared(documents, monkeypatch, name, last, mode, expected):
    script = documents("relatives_measures")
    found, result = fake(np.ones(len(last)), np.array(last), mode)
    monkeypatch.setattr(script, "fresh", lambda found, method: result)
    monkeypatch.setattr(documents("study"), "fresh", lambda found, method: result)
    scores = script.scores(name, found, "one")
    np.testing.assert_allclose(scores, expected)


def test_ratios_are_above_1_where_a_method_is_worse(documents, monkeypatch):
    script = documents("relatives_measures")
    monkeypatch.setattr(script, "scores", lambda *_: np.array([2.0, 4.0]))
    low, high = (fake(np.ones(2), np.ones(2), mode)[0] for mode in ("min", "max"))
    assert script.ratios("digits", low, "one", 2.0).tolist() == [1, 2]
    assert script.ratios("cart-pole", high, "one", 4.0).tolist() == [2, 1]


def test_a_restart_by_value_is_told_the_loss(documents):
    methods = documents("relatives_methods")
    task = quadratic(4, 10.0)
    tx = methods.told_the_loss(methods.restarted("value"), task)(0.5)
    params = task.init(jax.random.key(0))
    state, value, rises = tx.init(params), jnp.inf, 0
    for _ in range(40):
        before, value = value, task.loss(params, None, None)
        rises += int(value > before)
        gradient = jax.grad(task.loss)(params, None, None)
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    assert int(state.restarts) == rises > 0


@pytest.fixture
def chosen(documents, monkeypatch):
    """A study whose second rate was chosen for each of three methods."""
    script, measures = documents("evidence_relatives"), documents("relatives_measures")
    scores = {
        "one": np.array([3.0, 2.2, 2.0]),
        "two": np.array([-8.0, -6.0, -10.0]),
        "three": np.array([4.0, 1.0, 2.0]),
    }
    monkeypatch.setattr(
        measures,
        "tuned",
        lambda _, method: SimpleNamespace(
            scores=lambda metric: scores[method], best_row=lambda: 1
        ),
    )
    task = SimpleNamespace(goal=Goal("validation", reported="test"))
    return script, SimpleNamespace(task=task, methods=scores)


def test_what_the_choice_of_rates_costs(chosen):
    script, found = chosen
    alone = SimpleNamespace(task=SimpleNamespace(goal=Goal("value")), methods=["one"])
    text = script.misses({"digits": found, "line": alone})
    assert "by more than 1% for 2 of 3 methods" in text
    assert "by at most 40% (two on digits)" in text


def test_what_is_better_by_less_than_the_rate_of_the_peer_costs(
    documents, chosen, monkeypatch
):
    script, found = chosen
    measures = documents("relatives_measures")
    values = {"one": 1.0, "two": 0.95, "three": 0.8}
    monkeypatch.setattr(measures, "scores", lambda *x: np.full(20, values[x[2]]))
    text = script.remark_on_peer("digits", found)
    assert "costs it 10.0% among" in text
    assert text.endswith("Better by less than that: two.")
    monkeypatch.setattr(script, "peer_of", lambda found: "three")
    assert script.remark_on_peer("digits", found) == ""


@pytest.mark.slow
def test_the_section_in_small(documents, monkeypatch, tmp_path):
    methods, script = documents("relatives_methods"), documents("evidence_relatives")
    drawing, measures = documents("relatives_picture"), documents("relatives_measures")
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(drawing, "FOLDER", tmp_path)
    small = quadratic(4, 10.0)
    parts_of_data = dataclasses.replace(
        small,
        evaluate=lambda x: {"validation": jnp.sum(x**2), "test": jnp.sum(jnp.abs(x))},
        goal=Goal("validation", reported="test"),
    )
    setting = partial(methods.Setting, steps=20, per_decade=1)
    easy = setting("adaptive", lambda: parts_of_data, (0.01, 1))
    fast = setting("momentum", lambda: small, (0.001, 0.1), speed=True)
    tasks = {"easy": easy, "fast": fast}
    families = {
        "adaptive": {"optax.adam": optax.adam, "adasmooth": optax.sgd},
        "momentum": {
            "momentum 0.9": methods.METHODS["momentum"]["momentum 0.9"],
            "still": lambda learning_rate: optax.sgd(0 * learning_rate),
            methods.HIGH: methods.high,
            methods.BY_VALUE: methods.restarted("value"),
        },
    }
    for module in (methods, measures, script):
        monkeypatch.setattr(module, "TASKS", tasks)
    for module in (methods, script):
        monkeypatch.setattr(module, "METHODS", families)
        monkeypatch.setattr(module, "TUNING_SEEDS", range(2))
    monkeypatch.setattr(script, "UNSTEADY", ("easy",))
    monkeypatch.setattr(script, "CLAIMANTS", ("adasmooth",))
    page = "\n".join(script.section())
    easy, fast = parts(page).values()
    assert [row[0] for row in easy[1]] == ["optax.adam", "adasmooth"]
    assert "test (min), chosen by validation" in easy[0]
    assert "steps for each factor of ten (min)" in fast[0]
    assert "20 steps, 3 rates from 0.001 to 0.1." in fast[0]
    still = next(row for row in fast[1] if row[0] == "still")
    assert still[-2:] == ["0, 0, 20", "worse"]
    assert f"Beside {methods.HIGH}, restart by value is at a ratio of" in fast[0]
    assert "Of 1 comparisons on easy" in page
    assert "methods on tasks, and by at most" in page
    picture = tmp_path / "images" / "evidence-relatives.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
