"""The Pareto front of a tuning, as a figure."""

from torchxnn.apps.benchmark.figures.pareto_front import front_figure
from torchxnn.apps.benchmark.tune import JUDGED, choose

SETTING = {"method": "SRAE", "beta": 1.0, "eta": 0.1, "q": 100.0}


def row(r2, value, method="SRAE"):
    figures = (JUDGED, "mean_squared_correlation", "locality")
    return {"r2": r2, **dict.fromkeys(figures, value), **SETTING, "method": method}


def lines_of(rows):
    figure = front_figure(choose({"0": rows}))
    found = []
    for axes in figure.axes:
        data = [line.get_data() for line in axes.lines]
        found.append([point for xs, ys in data for point in zip(xs, ys, strict=True)])
    return figure, found


def test_the_line_joins_what_nothing_beats():
    rows = {
        "NN": row(0.99, 0.9, "NN"),
        "a": row(0.98, 0.5),
        "b": row(0.97, 0.6),  # a beats it
        "c": row(0.96, 0.2),
        "d": row(0.98, 0.7),  # a beats it: no less faithful, more local
    }
    figure, lines = lines_of(rows)
    assert lines == [[(0.96, 0.2), (0.98, 0.5)]] * 3
    key = " ".join(text.get_text() for text in figure.texts)
    assert "3  c (chosen)" in key
    assert "0  NN" in key


def test_figures_that_do_not_exist_leave_no_point():
    rows = {"NN": row(0.99, 0.9, "NN"), "a": row(0.98, 0.5), "b": row(0.97, None)}
    _, lines = lines_of(rows)
    assert lines == [[(0.98, 0.5)]] * 3
    rows["a"] = row(0.98, None)
    _, lines = lines_of(rows)
    assert lines == [[]] * 3


def test_nothing_that_can_be_compared_is_an_empty_figure():
    _, lines = lines_of({"NN": row(None, None, "NN"), "a": row(None, None)})
    assert lines == [[]] * 3
