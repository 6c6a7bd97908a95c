"""Tables of a comparison: the numbers in them are those that went in, whatever the form."""

import csv
import io
import json
import statistics
from dataclasses import replace

import pytest

from pansharpen_cli.evaluation import tables
from pansharpen_cli.evaluation.tables import Comparison, Result
from pansharpen_cli.imaging.wald import Excerpts

ERGAS = {"a_net": [1.0, 2.0, 4.0], "exp": [3.0, 3.5, 5.0], "gsa": [2.0, 2.5, 4.5]}
Q2N = {"a_net": [0.8, 0.9, 0.7], "exp": [0.5, None, 0.6], "gsa": [0.8, 0.9, 0.7]}


def comparison(scenes: int = 3) -> Comparison:
    """Two metrics, one better when it is small, the other when it is large; a value is missing."""
    methods = {
        name: [Result({"ERGAS": ERGAS[name][i], "Q2n": Q2N[name][i]}, 0.5 + i, 2.0) for i in range(scenes)]
        for name in ERGAS
    }
    names = ["first", "second, with a comma", "third"][:scenes]
    return Comparison(names, ("ERGAS", "Q2n"), methods, {"ratio": 4, "sensor": "QB", "maxval": None}, {"x": "why"})


def test_json_has_every_value_and_sample_statistics():
    found = json.loads(json.dumps(tables.as_dict(comparison()), allow_nan=False))
    assert found["scenes"] == ["first", "second, with a comma", "third"]
    assert (found["ratio"], found["sensor"], found["left_out"]) == (4, "QB", {"x": "why"})
    for method, values in ERGAS.items():
        assert found["methods"][method]["ERGAS"] == {
            "mean": pytest.approx(statistics.mean(values)),
            "std": pytest.approx(statistics.stdev(values)),  # divisor n - 1
            "per_scene": values,
        }
    assert found["methods"]["exp"]["Q2n"]["per_scene"] == [0.5, None, 0.6]
    assert found["methods"]["exp"]["Q2n"]["mean"] == pytest.approx(0.55)
    assert found["methods"]["gsa"]["seconds"]["per_scene"] == [0.5, 1.5, 2.5]
    assert found["methods"]["gsa"]["megapixels_per_second"]["per_scene"] == [4.0, pytest.approx(4 / 3), 0.8]


def test_one_scene_has_no_deviation():
    assert tables.as_dict(comparison(1))["methods"]["exp"]["ERGAS"] == {"mean": 3.0, "std": None, "per_scene": [3.0]}
    assert "±" not in tables.as_text(comparison(1)) + tables.as_markdown(comparison(1)) + tables.as_latex(comparison(1))


def test_of_excerpts_it_is_told_how_much_they_are():
    parts = [Excerpts(33_000_000, 900_000_000), None, Excerpts(30_000_000, 100_000_000)]
    found = replace(comparison(), excerpts=parts)
    assert tables.as_dict(found)["excerpts"] == [
        {"pixels": 33_000_000, "of": 900_000_000}, None, {"pixels": 30_000_000, "of": 100_000_000},
    ]  # fmt: skip
    assert found.caption == "3 scenes, ratio 4, sensor QB, excerpts of 2: 63.0 of 1000.0 MPix"
    assert replace(found, excerpts=[None] * 3).caption == comparison().caption


def test_best_and_second_best():
    found = comparison()
    assert {name: found.rank(name, "ERGAS") for name in ERGAS} == {"a_net": 1, "gsa": 2, "exp": None}
    # the larger is better, and two are equally good
    assert {name: found.rank(name, "Q2n") for name in ERGAS} == {"a_net": 1, "gsa": 1, "exp": 2}
    assert found.rank("exp", "seconds") is None
    alone = Comparison(["one"], ("ERGAS",), {"exp": [Result({"ERGAS": 1.0}, 1, 1)]})
    assert alone.rank("exp", "ERGAS") is None


def test_csv_is_read_back():
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(comparison()))))
    assert [row["scene"] for row in rows[:5]] == ["first", "second, with a comma", "third", "mean", "std"]
    assert len(rows) == 3 * 5
    assert [float(row["ERGAS"]) for row in rows if row["method"] == "gsa"] == pytest.approx([2, 2.5, 4.5, 3, 1.75**0.5])
    assert [row["Q2n"] for row in rows if row["method"] == "exp"][:3] == ["0.5", "", "0.6"]


def test_text_is_aligned():
    head, *rows = tables.as_text(comparison()).splitlines()[:4]
    assert head.split() == ["method", "ERGAS↓", "Q2n↑", "seconds", "MPix/s"]
    ends = {tuple(i for i, letter in enumerate(row.ljust(len(rows[0]))) if letter == "±") for row in rows}
    assert len(ends) == 1
    assert " ".join(rows[0].split()) == "a_net 2.333 ± 1.528* 0.8000 ± 0.1000* 1.500 1.33"
    assert " ".join(rows[1].split()) == "exp 3.833 ± 1.041 0.5500 ± 0.0707+ 1.500 1.33"
    assert "3 scenes, ratio 4, sensor QB\n" in tables.as_text(comparison())


def test_markdown_and_latex_mark_the_same_values():
    table = [line.strip("| ").split(" | ") for line in tables.as_markdown(comparison()).splitlines()[:5]]
    assert {len(row) for row in table} == {5}
    assert table[2][:3] == ["a_net", "**2.333 ± 1.528**", "**0.8000 ± 0.1000**"]
    assert table[4][:2] == ["gsa", "<u>3.000 ± 1.323</u>"]
    lines = tables.as_latex(comparison()).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrr}"
    assert lines[2] == r"method & ERGAS$\downarrow$ & Q2n$\uparrow$ & seconds & MPix/s \\"
    assert lines[4].startswith(r"a\_net & \textbf{2.333 $\pm$ 1.528} & ")
    assert lines[6].startswith(r"gsa & \underline{3.000 $\pm$ 1.323} & ")
    assert all(line.count("&") == 4 for line in lines[2:7] if "&" in line)


def test_a_value_that_is_nowhere():
    nowhere = Comparison(
        ["one"],
        ("Q2n",),
        {name: [Result({"Q2n": None}, 1, 1)] for name in ("exp", "gsa")},
        reasons={"Q2n": "too small"},
    )
    assert [line.split()[1] for line in tables.as_text(nowhere).splitlines()[1:3]] == ["-", "-"]
    assert "no Q2n: too small" in tables.as_text(nowhere)
    assert tables.as_dict(nowhere)["methods"]["exp"]["Q2n"] == {"mean": None, "std": None, "per_scene": [None]}
