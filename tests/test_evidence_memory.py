"""Sections of the page of evidence on states in fewer bits, and on bad batches."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import optax
import pytest

from optax_extras.codecs import bfloat16, blockwise
from optax_extras.tasks import quadratic

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)

START = "<!-- written by docs/evidence_memory.py -->\n"
SMALL = {"STEPS": 200, "LONG": 300, "TUNING_SEEDS": range(2)}


@pytest.fixture
def section():
    """The section as it is on the page."""
    _, start, rest = (DOCS / "evidence.md").read_text().partition(START)
    assert start
    return rest.partition("<!-- written by")[0]


def tables(text):
    """The tables, each a list of rows of cells without the head."""
    found = []
    for part in re.findall(r"(?:^\|.*\n)+", f"{text}\n", re.MULTILINE):
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in part.splitlines()
        ]
        assert len({len(row) for row in rows}) == 1
        found.append(rows[2:])
    return found


def listed(text, after):
    """What a sentence lists after some words."""
    return re.search(rf"{after}: (.*?)\.(?: |\n|$)", text)[1].split("; ")


def test_the_page_has_the_methods_of_the_script(documents, section):
    methods = documents("memory_methods")
    *trained, memory = tables(section)
    studies = [methods.study(name) for name in methods.TASKS]
    studies.append(methods.longer(studies[-1]))
    names = [list(found.methods) for found in studies]
    assert [[row[0] for row in rows] for rows in trained] == names
    assert [row[0] for row in memory] == list(documents("long_average").CODECS)


def test_verdicts_on_the_page_follow_from_its_numbers(section):
    words = []
    *trained, _ = tables(section)
    for rows in trained:
        for *_, difference, _, counts, word in rows:
            if counts:
                wins, ties, losses = map(int, counts.split(", "))
                assert wins + ties + losses == 20
                assert word != "better" or wins + ties / 2 >= 15
                assert word != "worse" or losses + ties / 2 >= 15
                mean, error = (float(x[:-1]) for x in difference.split(" ± "))
                if word == "within noise":  # up to what the page rounds off
                    assert abs(mean) <= 3 * error + 0.2
                words.append(word)
    noise = words.count("within noise")
    text = re.search(r"^Of (\d+) rows .*, (\d+) are within noise\.(.*)$", section, re.M)
    assert text.groups()[:2] == (str(len(words)), str(noise))
    for word in {"better", "worse", "slightly better", "slightly worse"}:
        found = re.search(rf"\. ?{word.capitalize()}: ([^:]*)", text[0])
        assert (found[1].count("(") if found else 0) == words.count(word)


def test_rates_on_the_page_are_compared_where_they_differ(section):
    *trained, _ = tables(section)
    for rows in trained:
        of_peer = ""
        for method, _, rate, _, _, at_one_rate, *_ in rows:
            if method.endswith(", float32"):
                of_peer = rate
            assert bool(at_one_rate) == (rate != of_peer)


def test_codecs_on_the_page_are_sorted_by_their_errors(section):
    rows = tables(section)[-1]
    sides = {False: "Further away", True: "Within 2% of float32 in the mean"}
    for side, words in sides.items():
        expected = [
            name
            for name, one, _, several, _ in rows
            if all(abs(float(x.removesuffix("%"))) <= 2 for x in (one, several)) == side
        ]
        assert listed(section, words) == expected


@pytest.fixture
def small(documents, monkeypatch, tmp_path):
    """The script with few methods on a small task."""
    methods, script = documents("memory_methods"), documents("evidence_memory")
    average = documents("long_average")
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    for name, value in SMALL.items():
        for module in (methods, script):
            monkeypatch.setattr(module, name, value)
    rates = {"Adam": [0.0002, 0.0004]}
    states = {"Adam": (optax.adam, {"8 bit": {"mu": blockwise()}})}
    for module in (methods, script):
        task = partial(quadratic, 64, 10.0)
        monkeypatch.setattr(module, "TASKS", {"small": (task, rates)})
    roundings = {k: methods.ROUNDINGS[k] for k in ("nearest", "Kahan")}
    monkeypatch.setattr(methods, "STATES", states)
    monkeypatch.setattr(methods, "ROUNDINGS", roundings)
    monkeypatch.setattr(average, "lines", lambda: ["| a |", "| --- |", "| b |"])
    return script


@pytest.mark.slow
def test_the_section_in_small(small, tmp_path):
    page = "\n".join(small.section())
    first, long, memory = tables(page)
    assert [row[0] for row in first] == [
        "Adam, float32",
        "Adam, 8 bit",
        "AdamW, float32",
        "AdamW, bfloat16 parameters, nearest",
        "AdamW, bfloat16 parameters, Kahan",
    ]
    assert [row[0] for row in long] == [row[0] for row in first]
    assert memory == [["b"]]
    # 12 bytes, 9.06 with codes of 8 bits, and the state's counts and keys.
    sizes = [float(row[1]) for row in first]
    np.testing.assert_allclose(sizes, [12, 9.06, 12, 10, 12], atol=0.4)
    assert all(row[2].startswith("0.0004 (end of the grid)") for row in first)
    # Rounded to the nearest, the parameters stay where their updates are too small.
    assert first[3][-2:] == long[3][-2:] == ["0, 0, 20", "worse"]
    assert first[0][-4:] == [""] * 4
    assert "AdamW, bfloat16 parameters, nearest (small)" in page
    picture = tmp_path / "images" / "evidence-memory.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_long_average_rises_where_it_is_rounded_to_the_nearest(
    documents, monkeypatch
):
    module = documents("long_average")
    near = bfloat16(stochastic=False)
    monkeypatch.setattr(module, "CODECS", {"near": near, "8": blockwise(signed=False)})
    monkeypatch.setattr(module, "SPREADS", {0.0: "one"})
    monkeypatch.setattr(module, "STEPS", 2000)
    rows, page = tables("\n".join(module.lines()))[0], module.lines()[-1]
    assert float(rows[0][1][:-1]) > 10
    assert abs(float(rows[1][1][:-1])) < 2
    assert page.endswith(": 8. Further away: near.")


@pytest.mark.slow
def test_guards_in_small(documents, monkeypatch):
    """What guards leave out on tasks of few parameters."""
    module = documents("evidence_guards")
    monkeypatch.setattr(module, "digits", partial(quadratic, 4, 10.0))
    monkeypatch.setattr(module, "characters", partial(quadratic, 5, 10.0))
    small = {"SEEDS": 2, "STEPS": 60, "LENGTH": 80, "BAD": 50}
    for name, value in {**small, "SPIKES": range(50, 80, 3)}.items():
        monkeypatch.setattr(module, name, value)
    page = "\n".join(module.section())
    clean, bad = tables(page)
    assert [row[2] for row in clean] == ["0 of 120"] * 4
    lost = {name: cells for name, *cells in bad}
    assert lost["`skip_spikes`"] == ["0", "1", "1", "10 of 10"]
    assert lost["`optax.apply_if_finite`"] == ["0", "1", "0", "0 of 10"]
    assert lost["none"][1] == "all: parameters are not finite"
