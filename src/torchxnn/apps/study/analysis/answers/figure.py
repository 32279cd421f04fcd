"""Shares of right answers by stage, a point per participant."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from torchxnn.apps.study.analysis.answers.results import AnswerResults
from torchxnn.apps.study.analysis.answers.scores import by_person
from torchxnn.apps.study.analysis.figures import CHANCE, STAGE_COLOURS, STYLE, draw_box


def answers_figure(results: AnswerResults, rows: pd.DataFrame) -> Figure:
    """Box plots of participants' shares, with chance and, if it is known, who answers the truth."""
    shown = [each for each in results.stages if not each.data_set]
    rng = np.random.default_rng(results.options.seed)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.6, 1.6 * len(shown) + 1.2), 4.6), layout="constrained")
        axis = figure.subplots()
        for place, each in enumerate(shown):
            values = 100 * by_person(rows, "right", each.stage).to_numpy()
            draw_box(axis, place, values, STAGE_COLOURS[place % len(STAGE_COLOURS)], rng)
        labels = [f"{each.name.replace(' (', chr(10) + '(')}\nn = {each.right.n}" for each in shown]
        axis.set_xticks(range(len(shown)), labels)
        axis.set_xlim(-0.6, len(shown) - 0.4)
        axis.set_ylim(0, 103)
        axis.set_ylabel("Right answers (%)")
        axis.axhline(100 * results.chance, color=CHANCE, ls="--", lw=1.8)
        if results.label_follower is not None:
            axis.axhline(100 * results.label_follower, color=CHANCE, ls=":", lw=1.8)
        axis.grid(axis="y", color="#e3e6e9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
