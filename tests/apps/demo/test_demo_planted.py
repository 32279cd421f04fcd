"""The demonstration without photographs: what it prepares, and what it says was found."""

from dataclasses import replace

import pytest

from torchxnn import XNN, TrainConfig
from torchxnn.apps.demo import prepare_planted
from torchxnn.apps.planted_things import headline, known_reasons, planted_sentence, sentences
from torchxnn.cli.main import main
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.record import record_activations
from torchxnn.errors import DegenerateFitWarning
from torchxnn.metrics.ground_truth import Recovery, ReproducedChange
from torchxnn.metrics.planted import PlantedScores, Score, Truth
from torchxnn.models.planted import ALWAYS_WEIGHT, CLASSES, FACTORY, THING_NAMES


def test_what_is_prepared():
    setup = prepare_planted(seed=1, images=80)
    assert (len(setup.train), setup.validation, len(setup.test)) == (80, None, 20)
    assert setup.factory == FACTORY
    assert setup.target_name == "pattern A"


def test_what_was_planted():
    said = planted_sentence(0)
    assert "3 x red disc + 2 x blue square" in said
    assert "1 x green plus - 2 x magenta disc + a constant" in said
    for name in (*CLASSES[0].weights, CLASSES[0].spurious, "cyan floor"):
        assert name in said


@pytest.mark.filterwarnings(f"ignore::{DegenerateFitWarning.__module__}.DegenerateFitWarning")
def test_a_fitted_xnn_is_compared():
    setup = prepare_planted(images=90)
    xnn = XNN(setup.model, setup.layer, class_names=setup.classes)
    config = TrainConfig(hidden=(8,), epochs=2, pretrain_epochs=0, trials=1)
    xnn.fit(make_loader(setup.train), setup.target, config=config)
    data = record_activations(xnn.model, xnn.layer, make_loader(setup.test))
    compared = setup.truth.compare(xnn, data)
    said = " ".join(compared.sentences)
    own = {each.name for each in compared.reasons if each.verdict != "false"}
    assert {"red disc", "blue square"} <= own <= set(CLASSES[0].weights)  # few images lack some
    index = setup.test.labels.index(0)
    effects = dict(setup.truth.in_image(xnn, index))
    shown = setup.test.present[index].nonzero().flatten().tolist()
    floor = "cyan floor (on every image)"
    assert sorted(effects) == sorted([*(THING_NAMES[thing] for thing in shown[:-1]), floor])
    known = CLASSES[0].weights | {floor: ALWAYS_WEIGHT}
    for name, value in effects.items():  # a detector answers with at most about 1
        weight = known.get(name, 0.0)
        assert abs(value) <= 1.1 * abs(weight) + 1e-3
        assert weight * value >= 0
        assert abs(value) > 0.3 or not weight
    assert said.startswith("What was planted: the logit of pattern A is")
    assert "by drawing" in said
    assert "x-feature 1" in said
    assert "False concepts" in said


def test_what_is_said():
    disc, square, plus = map(THING_NAMES.index, ("red disc", "blue square", "red plus"))
    drop, share = [0.0] * len(THING_NAMES), [0.0] * len(THING_NAMES)
    drop[disc], drop[square], share[disc], share[square] = 2.0, -1.0, 0.7, 0.3
    scores = PlantedScores(
        recovery=Recovery(0.9, 0.5, (0, 1)),
        specificity=0.8,
        sign=Score(0.5, 0.5),
        against=0.0,
        share=Score(0.12, 0.2),
        false_features=(1,),
        active=2,
        intervention=ReproducedChange(0.75, 0.9),
        pairs=((0, disc), (1, square)),
        truth=Truth(tuple(drop), (disc, square), tuple(share)),
    )
    said = sentences(scores, (0.6, 0.4), 7, ("one", "two"))
    assert said == [
        "What was found, by drawing 7 test images again without each of their things: the things "
        "were told apart. 90% of what the x-features change, up to what each thing causes, lies on "
        "pairs of an x-feature and the one thing that it is matched with (100% if every thing had "
        "an x-feature of its own, 50% with shuffled things). An x-feature's own largest thing has "
        "80% of its change.",
        "Shares of the logit, as the matched x-feature reports them and as they were planted: red "
        "disc: one says 60%, planted 70%; blue square: two says 40%, planted 30%. The mean error "
        "is 12 points (chance 20).",
        "Direction: 1 of 2 things have an x-feature that pushes the logit their way.",
        "What speaks against the class (blue square) is not reported with a negative contribution.",
        "False concepts: 1 of 2 active x-features (two) answers most to something that is no "
        "reason, or to nothing.",
        "The reproduced logit follows the network's when things go: R² 0.750.",
    ]
    reasons = known_reasons(scores, ((disc, 0.6), (plus, 0.9)), (0.6, 0.4), ("one", "two"))
    assert [(one.name, one.planted, one.verdict, one.said) for one in reasons] == [
        ("red disc", "+ 70%", "found", "one, 60%; 60% of what changes it is this"),
        ("blue square", "\N{MINUS SIGN} 30%", "mixed", "two, 40%; answers more to the red plus"),
        ("red plus", "no reason", "false", "two, 40%"),
    ]
    assert "It has found 1 of the 2 as an x-feature that is mostly that" in headline(0, reasons)
    half = known_reasons(scores, ((disc, 0.5), (plus, 0.9)), (0.6, 0.04), ("one", "two"))
    assert [one.verdict for one in half] == ["mixed", "mixed"], "4% is not active"
    assert "for 2 reasons" in headline(0, half)
    assert "none of the 2 as an x-feature of its own, but mixes them;" in headline(0, half)
    nothing = known_reasons(scores, ((None, 0.0), (plus, 0.9)), (0.6, 0.04), ("one", "two"))
    assert (nothing[0].verdict, nothing[0].said) == ("missed", "one, 60%; answers to nothing")
    assert "but mixes 1 of them;" in headline(0, nothing)
    none = known_reasons(scores, ((None, 0.0), (None, 0.0)), (0.6, 0.4), ("one", "two"))
    assert [one.verdict for one in none] == ["missed", "missed"], "no thing is made up"
    assert "It has found none of the 2; the table" in headline(0, none)
    alone = replace(scores, pairs=((0, disc),))
    missed = known_reasons(alone, ((disc, 0.6), (disc, 0.9)), (0.6, 0.4), ("one", "two"))[1]
    assert (missed.verdict, missed.said) == ("missed", "by no x-feature")
    mixed = replace(scores, recovery=Recovery(0.7, 0.5, (0, 1)))
    assert "the things were not told apart" in sentences(mixed, (0.6, 0.4), 7, ("one", "two"))[0]


@pytest.mark.slow
def test_the_command_writes_a_page_that_says_it(tmp_path, capsys):
    assert main(["demo", "--data", "planted", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    for text in (printed, page):
        assert "What was planted: the logit of pattern A is" in text
        assert "What was found, by drawing" in text
    assert (
        page.index("A test with a known answer.")
        < page.index("What was planted, and what the XNN found")
        < page.index("Planted in it:")
        < page.index("What was planted: the logit")
        < page.index("What matters</h2>")
    )
    image = tmp_path / "image.png"
    from PIL import Image

    setup = prepare_planted(images=8)
    Image.fromarray(setup.preprocessing.picture(setup.test[0].image)).save(image)
    words = ["explain", str(tmp_path / "demo" / "xnn"), str(image), "--out", str(tmp_path / "e")]
    assert main(words) == 0
