"""The official protocol on drawn birds: compositions, answers of a network, whole scores."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reference_funnybirds as literal
from dataset_examples import BIRD_BACKGROUND, BIRD_THINGS, draw_bird, write_funnybirds
from torchxnn.apps.benchmark.funnybirds import composed
from torchxnn.apps.benchmark.funnybirds.composed import Scene, composition_error
from torchxnn.apps.benchmark.funnybirds.official import (
    answer_interventions,
    explain_with_maps,
    tally_official,
)
from torchxnn.attribution.captum_methods import InputXGradient
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds
from torchxnn.errors import DataError
from torchxnn.metrics.funnybirds_protocol import THRESHOLDS, PartImportances, part_importances
from torchxnn.metrics.funnybirds_scores import official_scores
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import plain, structure

SQUASH = Preprocessing(size=32, resize="squash")
# Class 0 shares beak and eye with 1, foot and tail with 2; so it has a contrast.
CLASSES = [(0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (1, 1, 0, 0, 1), (1, 1, 1, 1, 0)]
OBJECTS = {"object 0": 0, "object 1": 0}


def kinds_of(birds, index):
    return dict(zip(PARTS, birds.kinds[index].tolist(), strict=True))


def drawn(birds, index, removed=(), lacking=None):
    """The truth: a bird without some parts, and without one background object."""
    kept = {part: kind for part, kind in kinds_of(birds, index).items() if part not in removed}
    return draw_bird(kept | {name: 0 for name in OBJECTS if name != f"object {lacking}"})


class Matched(nn.Module):
    """Logits are products with the birds of the classes, plus fixed noise in the weights."""

    def __init__(self, birds):
        super().__init__()
        whole = [dict(zip(PARTS, kinds, strict=True)) for kinds in birds.class_kinds.tolist()]
        templates = torch.stack([SQUASH(draw_bird(kinds | OBJECTS)) for kinds in whole]).flatten(1)
        generator = torch.Generator().manual_seed(0)
        noise = 0.02 * torch.randn(templates.shape, generator=generator)
        self.head = nn.Linear(templates.shape[1], len(whole))
        with torch.no_grad():
            self.head.weight.copy_((templates - templates.mean(0) + noise) / 20)
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture
def birds(tmp_path):
    return FunnyBirds(write_funnybirds(tmp_path, classes=CLASSES), SQUASH, "test")


def subsets():
    return [[part for p, part in enumerate(PARTS) if s >> p & 1] for s in range(32)]


def test_compositions_of_drawn_birds_are_exact(birds):
    scene = Scene(birds, 2)
    made = 0
    for kept in subsets():
        picture, was_composed = scene.with_parts(kept)
        made += was_composed
        truth = drawn(birds, 2, set(PARTS) - set(kept))
        np.testing.assert_array_equal(picture, np.asarray(truth))
        np.testing.assert_array_equal(scene.compose(kept), np.asarray(truth))
    assert made == 32 - 7
    error = composition_error(birds, [0, 3])
    assert (error.difference, error.differing, error.images) == (0, 0, 2)
    assert error.whole_difference > 1
    assert error.whole_differing > 0.05


def test_renderings_come_before_compositions(birds):
    path = birds.root / "test_interventions/0/000000/body_beak_wing.png"
    draw_bird({}).save(path)
    picture, was_composed = Scene(birds, 0).with_parts(["wing", "beak"])
    assert not was_composed
    np.testing.assert_array_equal(picture, np.asarray(draw_bird({})))


def test_objects_are_painted_over(birds):
    scene = Scene(birds, 0)
    for number in range(2):
        picture, was_composed = scene.without_object(number)
        assert was_composed
        np.testing.assert_array_equal(picture, np.asarray(drawn(birds, 0, (), number)))
    unseen, was_composed = scene.without_object(2)
    assert unseen is scene.whole
    assert not was_composed
    path = birds.root / "test_interventions/0/000000/background_interventions/1.png"
    path.parent.mkdir()
    draw_bird({}).save(path)
    np.testing.assert_array_equal(scene.without_object(1)[0], np.asarray(draw_bird({})))


def test_outlines_go_with_their_thing(birds):
    """A rendering in which a removed part, and an object, had a black outline."""
    (top, bottom, left, right), _, _ = BIRD_THINGS["object 0"]
    pixels = np.asarray(drawn(birds, 0)).copy()
    pixels[bottom, left:right] = 0  # below the object
    Image.fromarray(pixels).save(birds.root / birds.paths[0])
    picture, _ = Scene(birds, 0).without_object(0)
    assert (picture[bottom, left:right] == BIRD_BACKGROUND).all()
    assert (picture[top:bottom, left:right] == BIRD_BACKGROUND).all()


def test_what_lies_behind_two_removed_parts_comes_from_the_rendering_without_parts(birds):
    scene = Scene(birds, 0)
    behind = birds.root / "test_interventions/0/000000/body_.png"
    pixels = np.asarray(drawn(birds, 0, PARTS)).copy()
    pixels[10:13, 18:24] = (1, 2, 3)  # near eye and beak, which nothing but they hide
    Image.fromarray(pixels).save(behind)
    picture = scene.compose(["foot", "tail", "wing"])
    eye, beak, wing = (scene._layer(part).region for part in ("eye", "beak", "wing"))
    shown = (picture == (1, 2, 3)).all(axis=2)
    assert shown[eye & beak & ~wing].any()
    assert not shown[~(eye & beak & ~wing)].any()


def test_answers_are_those_of_the_true_pictures(birds):
    model = Matched(birds)
    answers = answer_interventions(model, birds, [0, 3, 5], batch_size=7)
    assert (answers.shown, answers.composed) == (3 * 34, 3 * 27)
    assert answers.composition_error == pytest.approx(0, abs=1e-5)
    for row, index in enumerate(answers.images):
        label = birds.labels[index]
        with torch.no_grad():
            for subset, kept in enumerate(subsets()):
                truth = SQUASH(drawn(birds, index, set(PARTS) - set(kept)))
                torch.testing.assert_close(answers.kept[row, subset], model(truth[None])[0])
            for number in range(2):
                truth = model(SQUASH(drawn(birds, index, (), number))[None])[0, label]
                torch.testing.assert_close(answers.without_object[row, number], truth)
            for part, name in enumerate(PARTS):
                truth = model(SQUASH(drawn(birds, index, {name}))[None])[0, label]
                torch.testing.assert_close(answers.without_part[row, part], truth)
        assert answers.logits[row] == answers.kept[row, 31, label]


def test_objects_that_a_picture_does_not_have_are_nan(birds):
    path = birds.root / "dataset_test.json"
    entries = json.loads(path.read_text())
    entries[0]["bg_objects"] = "0,1,2,"
    path.write_text(json.dumps(entries))
    changed = FunnyBirds(birds.root, SQUASH, "test")
    answers = answer_interventions(Matched(birds), changed, [0, 1])
    assert answers.without_object[0, 2] == answers.logits[0]  # an object that is not seen
    assert answers.without_object[1].isnan().tolist() == [False, False, True]


def explanations(birds, seed):
    """Random importances for every picture and class, some of them with a negative sum."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(len(birds), len(CLASSES), 5, generator=generator, dtype=torch.float64)
    objects = torch.randn(len(birds), len(CLASSES), 2, generator=generator, dtype=torch.float64)
    total = 2 + 2 * torch.randn(len(birds), len(CLASSES), generator=generator, dtype=torch.float64)
    return parts, total, objects


@pytest.mark.parametrize("seed", range(4))
def test_scores_against_a_literal_version(birds, seed):
    model, images = Matched(birds), [0, 1, 2, 4, 5, 7]
    with torch.no_grad():  # some birds are taken for others
        turned = torch.randn(model.head.bias.shape, generator=torch.Generator().manual_seed(seed))
        model.head.bias.copy_(60 * turned)
    parts, total, objects = explanations(birds, seed)
    asked = []

    def explain(indices, target):
        asked.append(target)
        rows = list(indices)
        return PartImportances(parts[rows, target], total[rows, target], objects[rows, target])

    def logits_of(image, removed, lacking):
        picture = drawn(birds, images[image], {PARTS[part] for part in removed}, lacking)
        with torch.no_grad():
            return model(SQUASH(picture)[None])[0].tolist()

    def explained(image, target):
        tables = parts, total, objects
        return [table[images[image], target].tolist() for table in tables]

    answers = answer_interventions(model, birds, images)
    tally = tally_official(answers, birds, explain)
    scores = official_scores(tally)
    assert len(asked) == len(set(asked))
    expected = literal.protocol(
        CLASSES, [(birds.labels[i], 2) for i in images], logits_of, explained, list(THRESHOLDS)
    )
    assert not math.isnan(scores["official_ts"])
    assert scores.pop("composed_share") == pytest.approx(27 / 34)
    assert scores == pytest.approx(expected, nan_ok=True)
    halves = [answer_interventions(model, birds, half) for half in (images[:2], images[2:])]
    first, second = (tally_official(half, birds, explain) for half in halves)
    assert official_scores(first + second) == pytest.approx(official_scores(tally), nan_ok=True)
    assert structure(plain(tally), type(tally), "a tally") == tally


def test_the_truth_explains_best(birds):
    model = Matched(birds)
    answers = answer_interventions(model, birds, range(len(birds)))
    alone = [31 - (1 << part) for part in range(5)]

    def truth(indices, target):
        rows = [answers.images.index(index) for index in indices]
        kept = answers.kept[rows, :, target]
        return part_importances(kept[:, 31:] - kept[:, alone])

    def opposite(indices, target):
        found = truth(indices, target)
        return PartImportances(-found.parts, found.total, found.objects)

    best = official_scores(tally_official(answers, birds, truth))
    worst = official_scores(tally_official(answers, birds, opposite))
    assert (best["official_sd"], worst["official_sd"]) == pytest.approx((1, 0))
    assert best["official_ts"] == 1
    assert worst["official_ts"] == 0
    assert best["official_completeness"] > worst["official_completeness"] + 0.2


def test_classes_without_an_explanation_are_left_out(birds):
    answers = answer_interventions(Matched(birds), birds, [0, 1, 2])
    parts, *_ = explanations(birds, 0)

    def only_class_0(indices, target):
        rows = list(indices)
        return part_importances(parts[rows, target]) if target == 0 else None

    tally = tally_official(answers, birds, only_class_0)
    assert (tally.sd.count, tally.pc.count, tally.accuracy.count) == (2, 2, 3)
    assert math.isnan(official_scores(tally)["official_ts"])


def test_importances_of_heatmaps(birds):
    model = Matched(birds)
    explain = explain_with_maps(birds, InputXGradient(model), batch_size=2)
    found = explain((0, 3, 6), 1)
    for row, index in enumerate((0, 3, 6)):
        image = birds[index].image
        products = (model.head.weight[1].reshape(image.shape) * image).sum(0).detach()
        mask = birds[index].masks
        near = nn.functional.max_pool2d((mask == 4).float()[None], 5, 1, 2)[0]
        torch.testing.assert_close(found.parts[row, 3], (products * near).sum())
        torch.testing.assert_close(found.total[row], products.sum())
    answers = answer_interventions(model, birds, [0, 1])
    scores = official_scores(tally_official(answers, birds, explain))
    assert 0 <= scores["official_mean"] <= 1
    (birds.root / "test_part_map").rename(birds.root / "elsewhere")
    with pytest.raises(DataError, match=r"has no part maps of .*: test_part_map"):
        explain((0,), 1)


def test_the_model_is_left_as_it_was(birds):
    model = Matched(birds).train()
    answer_interventions(model, birds, [0])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_errors_name_the_picture(birds):
    with pytest.raises(DataError, match="needs at least one test picture"):
        answer_interventions(Matched(birds), birds, [])
    with pytest.raises(DataError, match="needs at least one picture"):
        composition_error(birds, [])
    (birds.root / "test_interventions/1/000002/body_beak_eye_foot_tail.png").unlink()
    with pytest.raises(DataError, match=r"test/1/000002\.png without its wing is missing"):
        Scene(birds, 2).with_parts(["beak"])
    Image.new("RGB", (20, 32)).save(birds.root / "test_part_map/0/000000.png")
    with pytest.raises(DataError, match=r"000000\.png has 32 x 32 pixels, its part map 20 x 32"):
        Scene(birds, 0).with_parts(["beak"])
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(birds.root / birds.paths[3])
    with pytest.raises(DataError, match=r"background of test/1/000003\.png has not one colour"):
        Scene(birds, 3).without_object(0)
    (birds.root / "test_interventions/2/000004/body_.png").unlink()
    with pytest.raises(DataError, match=r"000004\.png is not rendered without its parts"):
        composition_error(birds, [4])
    assert composed.DIFFERS == 30
