"""A small network, class folders of images and fast settings for tests of commands."""

import numpy as np
import torch
from PIL import Image

from conftest import make_images, make_net
from torchxnn.cli.main import main
from torchxnn.models.preprocessing import Preprocessing

FAST = ["--hidden", "16", "--epochs", "8", "--trials", "1", "--pretrain-epochs", "1"]


def small_network(num_classes=4):
    """Factory for `xnn fit cli_examples:small_network`."""
    net = make_net(num_classes)
    net.preprocessing = Preprocessing(size=12, resize="squash")
    return net


def unsupported_network():
    """A network with an operation that excitation backprop has no rule for."""

    class Sorting(torch.nn.Module):
        preprocessing = Preprocessing(size=12, resize="squash")

        def __init__(self):
            super().__init__()
            self.inner = make_net()

        def forward(self, x):
            return self.inner(torch.fft.fft2(x).real)

    return Sorting()


def write_letters(root):
    """64 pictures in the class folders a, b, c and d."""
    images, labels = make_images(64)
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = root / "abcd"[label]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image / 3).clamp(0, 1).permute(1, 2, 0).numpy() * 255
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return root


def text_of(capsys):
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), " ".join(captured.err.split())


def fails(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    out, err = text_of(capsys)
    assert "Traceback" not in err + out
    lines = [line for line in err.split("xnn: error: ") if line]
    return lines[-1]
