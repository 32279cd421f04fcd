import torch

from torchxnn.apps.report.build import choose_examples, top_images


def test_examples_are_spaced_over_the_positives_and_end_with_the_nearest_other():
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 9.0, -3.0])
    positives = torch.tensor([True] * 5 + [False] * 2)
    assert choose_examples(logits, positives, 4) == (0, 2, 4, 5)
    assert choose_examples(logits, positives, 1) == (0,)
    assert choose_examples(logits, positives, 20) == (0, 1, 2, 3, 4, 5)


def test_examples_without_others():
    assert choose_examples(torch.tensor([1.0, 2.0]), torch.tensor([True, True]), 3) == (1, 0)


def test_top_images_are_by_activation_and_never_inactive():
    activations = torch.tensor([0.0, 3.0, 1.0, 0.0, 2.0])
    assert top_images(activations, 2) == (1, 4)
    assert top_images(activations, 5) == (1, 4, 2)
    assert top_images(torch.zeros(3), 2) == ()
