"""Section of the page of evidence on the relatives of AdaSmooth and of momentum."""

import dataclasses
import re
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

from optax_extras.tasks import Goal, quadratic

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)

START = "<!-- written by docs/evidence_relatives.py -->\n"
WORDS = ("better", "worse", "no difference was shown")
SAME = WORDS[-1]


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
        assert peer[4:] == ["", "", ""]
        for *_, ratio, counts, word in rows:
            wins, ties, losses = map(int, counts.split(", "))
            assert wins + ties + losses == 20
            # 1 %, up to what the page rounds off.
            better = wins + ties / 2 >= 15 and float(ratio) < 0.995
            worse = losses + ties / 2 >= 15 and float(ratio) > 1.005
            assert word in WORDS
            assert better or word != "better"
            assert worse or word != "worse"
            if word == SAME:
                assert not (better and float(ratio) < 0.985)
                assert not (worse and float(ratio) > 1.015)
        for word in WORDS:
            assert listed(text, word) == [row[0] for row in rows if row[-1] == word]


def test_ratios_on_the_page_are_those_of_the_medians(section):
    for text, (peer, *rows) in parts(section).values():
        (head,) = re.findall(r"^\| method \| best rate \| .* \|$", text, re.MULTILINE)
        power = 1 if "(min)" in head else -1
        middle = float(peer[2].split(" ")[0])
        for _, _, shown, _, ratio, *_ in rows:
            expected = (float(shown.split(" ")[0]) / middle) ** power
            assert float(ratio) == pytest.approx(expected, rel=0.02)


def test_misses_are_shown_where_rates_are_chosen_by_another_metric(section):
    shown = []
    for text, rows in parts(section).values():
        cells = [row[3] for row in rows]
        if ", chosen by " in text:
            shown += [float(cell.removesuffix("%")) for cell in cells]
        else:
            assert set(cells) == {""}
    (line,) = re.findall(r"The miss is more than 1% for .*", section)
    count, of, most = re.findall(r"(\d+) of (\d+) methods on tasks, .* (\d+)%", line)[0]
    assert [int(of), int(most)] == [len(shown), round(max(shown))]
    assert sum(x > 1.05 for x in shown) <= int(count) <= sum(x > 0.95 for x in shown)


def claims_of(section):
    """What is said of AdaSmooth beside each rival: the line from there on."""
    (line,) = re.findall(r"^\*\*AdaSmooth is better than .*$", section, re.MULTILINE)
    return dict(re.findall(r"Beside (\S+), this (.*?)\.(?= |$)", line))


def verdicts_of(text):
    """Method, verdict and task of each comparison with a difference."""
    found = re.findall(r"(?:: |; )([^;:]*?) (better|worse) on ([^;]*)", text)
    return {(method, task): word for method, word, task in found}


def test_the_claim_on_the_page_follows_from_its_tables(documents, section):
    script = documents("evidence_relatives")
    found, claims = parts(section), claims_of(section)
    assert list(claims) == list(script.RIVALS)
    for text in claims.values():
        said = verdicts_of(text)
        count = len(script.UNSTEADY) * len(script.CLAIMANTS)
        better, worse = (list(said.values()).count(word) for word in WORDS[:2])
        numbers = f"{better} are better, {worse} worse, and in {count - better - worse}"
        assert f"of {count} comparisons on {', '.join(script.UNSTEADY)}" in text
        assert f"{numbers} {SAME}" in text
        assert text.startswith("**held") == (better > worse or better == count)
    assert verdicts_of(claims["optax.adam"]) == {
        (row[0], name): row[-1]
        for name in script.UNSTEADY
        for row in found[name][1]
        if row[0] in script.CLAIMANTS and row[-1] != SAME
    }
    # Beside another method than the peer of a table, medians can tell.
    for (method, name), word in verdicts_of(claims["adashift"]).items():
        text, rows = found[name]
        median = {row[0]: float(row[2].split(" ")[0]) for row in rows}
        lower = median[method] < median["adashift"]
        assert (word == "better") == (lower == ("(min)" in text))


@pytest.fixture
def readme():
    """What the README says of when to use a method."""
    text = (DOCS.parent / "README.md").read_text()
    return text.partition("## When to use it, and when not")[2].partition("\n## ")[0]


PLACES = {
    "digits": "on digits",
    "digits-wrong-labels": "with wrong labels",
    "jumping-quadratic": "with jumps",
    "cart-pole": "on the policy gradient",
}
LABELS = {
    "adasmooth": "AdaSmooth",
    "adashift": "AdaShift",
    "adai": "Adai",
    "diffgrad": "diffGrad",
    "qhadam": "QHAdam",
}


def said_of(word_at):
    """Better and worse in words, from the verdict of each task."""
    phrases = []
    for word in WORDS[:2]:
        where = [PLACES[task] for task in PLACES if word_at.get(task) == word]
        if where:
            *first, last = where
            listed = f"{', '.join(first)} and {last}" if first else last
            phrases.append(f"{word} {listed}")
    return " and ".join(phrases)


def test_the_readme_has_the_verdicts_of_the_tables(section, readme):
    found = parts(section)
    word_at = {}
    for task in PLACES:
        for row in found[task][1][1:]:
            word_at.setdefault(row[0], {})[task] = row[-1]
    for method, label in LABELS.items():
        assert re.search(rf"\b{label} was {said_of(word_at[method])}[;.]", readme)
    assert word_at["adasmooth"] == word_at["adasmooth, normalized"]
    beside = verdicts_of(claims_of(section)["adashift"])
    for method in ("adasmooth", "adasmooth, normalized"):
        said = {task: word for (name, task), word in beside.items() if name == method}
        assert f"beside AdaShift it was {said_of(said)}." in readme
    medians = {r[0]: float(r[2].split(" ")[0]) for r in found["jumping-quadratic"][1]}
    assert min(medians, key=medians.get) == "optax.sgd"
    assert "With jumps, plain `optax.sgd` was the best:" in readme
    adam, *others = found["cart-pole"][1]
    gain = next(1 - float(row[4]) for row in others if row[0] == "diffgrad")
    assert f"cost it {adam[3].replace('%', ' %')} of the return, more than" in readme
    assert 100 * gain < float(adam[3].removesuffix("%"))


HIGH, RESTARTED = "momentum 0.99", "momentum 0.99, restart by gradient"


def medians_at(text, chooser):
    """Medians of the seeds for tuning at the best rate of a method."""
    listed = re.search(
        rf"the best rate of {re.escape(chooser)}, medians .*? are: (.*?)\.(?: |$)", text
    )[1]
    pairs = (entry.rpartition(" ") for entry in listed.split("; "))
    return {method: float(value) for method, _, value in pairs}


def test_the_readme_has_the_numbers_of_restarts(section, readme):
    found = parts(section)
    functions = ["quadratic", "quadratic, condition 1000", "rosenbrock, random starts"]
    rates, shares, at_one_rate, words, ratios = [], [], [], [], []
    verdicts = []
    for name in functions:
        text, rows = found[name]
        row = {r[0]: r for r in rows}
        rates.append(float(row[RESTARTED][1]) / float(row[HIGH][1]))
        shares.append(float(row[RESTARTED][4]) / float(row[HIGH][4]))
        at = medians_at(text, HIGH)
        at_one_rate.append(round(100 * at[RESTARTED] / at[HIGH]))
        words.append(row[RESTARTED][-1])
        ratios.append(row[RESTARTED][4])
        verdicts.append({method: cells[-1] for method, cells in row.items()})
        assert verdicts[-1]["qhm"] == verdicts[-1]["aggmo"] == "worse"
    low, high = (round(100 * f(shares)) for f in (min, max))
    assert f"took {low} to {high} % of the steps" in readme
    # Of rates that the page rounds to two digits.
    said = re.findall(r"made (\d+) to (\d+) times as high", readme)[0]
    assert [int(x) for x in said] == pytest.approx([min(rates), max(rates)], rel=0.03)
    one, two, three = at_one_rate
    assert f"without restarts it took {one}, {two} and {three} %" in readme
    assert sorted(words) == ["better", "better", "worse"]
    assert f"worse on one ({ratios[words.index('worse')]} times the steps)" in readme
    assert [speeds["srsgd"] for speeds in verdicts].count("better") == 1
    assert "`srsgd` was faster on one of them" in readme


def test_the_readme_has_the_losses_of_restarts_with_mini_batches(section, readme):
    text, rows = parts(section)["digits, momentum"]
    row = {r[0]: r for r in rows}
    assert f"Beside {HIGH}, restart by gradient is at a ratio of 1: {SAME}" in text
    assert f"rate chosen for momentum of 0.99, {row[HIGH][1]}." in readme
    at = medians_at(text, "momentum 0.9")
    assert (
        f"At a rate of {row['momentum 0.9'][1]}, which is the best for momentum of 0.9,"
        f" they lowered the test loss from {at[HIGH]:.2f} to {at[RESTARTED]:.2f};"
        f" momentum of 0.9 had {at['momentum 0.9']:.2f}." in readme
    )


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
    monkeypatch.setattr(script, "RIVALS", ("optax.adam",))
    page = "\n".join(script.section())
    easy, fast = parts(page).values()
    assert [row[0] for row in easy[1]] == ["optax.adam", "adasmooth"]
    assert "test (min), chosen by validation" in easy[0]
    assert "steps for each factor of ten (min)" in fast[0]
    assert "20 steps, 3 rates from 0.001 to 0.1." in fast[0]
    still = next(row for row in fast[1] if row[0] == "still")
    assert still[-2:] == ["0, 0, 20", "worse"]
    assert f"Beside {methods.HIGH}, restart by value is at a ratio of" in fast[0]
    assert f"At 0.01, the best rate of {methods.HIGH}, medians of" in fast[0]
    assert "of 1 comparisons on easy" in page
    assert "of 2 methods on tasks, and at most" in page
    assert all(row[3].endswith("%") for row in easy[1])
    assert {row[3] for row in fast[1]} == {""}
    picture = tmp_path / "images" / "evidence-relatives.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
