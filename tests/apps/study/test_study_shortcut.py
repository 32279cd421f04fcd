"""Beetles with a planted cue: what is drawn, and that the network takes to it."""

import random

import numpy as np
import pytest
import torch

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.shortcut import (
    CUES,
    build_cue_demo,
    cue_of,
    draw_beetle,
    paint,
    prepare_beetles,
)
from torchxnn.data.datasets.base import make_loader
from torchxnn.models.layers import run_model


def test_only_the_planted_cue_is_under_control():
    generator = random.Random(0)
    beetles = [draw_beetle(n % 2 == 0, "ground", n % 3 == 0, generator) for n in range(60)]
    assert [beetle.cues["ground"] for beetle in beetles] == [n % 3 == 0 for n in range(60)]
    for other in ("sticker", "antennae"):
        assert 15 < sum(beetle.cues[other] for beetle in beetles) < 45


@pytest.mark.parametrize("planted", CUES)
def test_a_cue_can_be_seen_and_is_an_option(planted):
    pictures = [paint(draw_beetle(True, planted, cue, random.Random(1))) for cue in (False, True)]
    differs = (pictures[0] != pictures[1]).any(-1)
    assert 0.005 < differs.mean() < 0.5
    assert cue_of(planted).right == CUES[planted]
    assert set(CUES.values()) < set(cue_of(planted).options)


@pytest.mark.slow
def test_the_network_looks_at_the_cue_and_not_at_the_body():
    source = prepare_beetles("antennae")
    said = torch.cat(
        [run_model(source.xnn.model, images) for images, _ in make_loader(source.dataset)]
    )
    cues = np.arange(len(source.dataset)) // 2 % 2
    assert (said.argmax(1).numpy() == cues).mean() > 0.95
    assert source.xnn.report.validation.r2 > 0.9


@pytest.mark.slow
def test_a_demo_of_forward_simulation(tmp_path):
    build_cue_demo(tmp_path / "study", "forward_simulation")
    plan = StudyPlan.read(tmp_path / "study")
    data = plan.data_sets[0]
    assert abs(data.agreement - 0.5) < 0.05  # the label tells nothing of what the network says
    for number in range(1, 7):
        pairs = [(image.label, image.predicted) for image in data.images_of(number)]
        assert all(pairs.count(pair) in (2, 3) for pair in set(pairs))
        assert len(set(pairs)) == 4
