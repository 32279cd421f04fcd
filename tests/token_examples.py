"""A small network of tokens whose odd habits can be switched on, and images for it."""

import torch
from torch import nn

from torchxnn.models.preprocessing import Preprocessing

SIZE, PATCH, DIMS, OUTPUTS = 12, 4, 8, 4
PATCHES = (SIZE // PATCH) ** 2


class Block(nn.Module):
    """Attention among the tokens and a layer of neurons; as a tuple if asked."""

    def __init__(self, as_tuple, tokens_first):
        super().__init__()
        self.norm = nn.LayerNorm(DIMS)
        self.attention = nn.MultiheadAttention(DIMS, 2, batch_first=not tokens_first)
        self.mlp = nn.Sequential(nn.LayerNorm(DIMS), nn.Linear(DIMS, 12), nn.GELU())
        self.out = nn.Linear(12, DIMS)
        self.as_tuple = as_tuple

    def forward(self, tokens):
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.out(self.mlp(tokens))
        return (tokens, "what else it found") if self.as_tuple else tokens


class TokenNet(nn.Module):
    """Patches to tokens, a class token in front of them, blocks, the class token's logits.

    Args:
        as_tuple: blocks return a tuple whose first entry is the tokens.
        tokens_first: tokens are (T, B, D).
        joins_at: the block before which the class token joins; None for a network without one,
            whose logits are those of the mean.
    """

    preprocessing = Preprocessing(size=SIZE, resize="squash")

    def __init__(self, as_tuple=False, tokens_first=False, joins_at=0):
        super().__init__()
        self.patches = nn.Conv2d(3, DIMS, PATCH, PATCH)
        if joins_at is not None:
            self.cls_token = nn.Parameter(torch.randn(1, 1, DIMS))
        self.position = nn.Parameter(torch.randn(1, PATCHES, DIMS))
        self.blocks = nn.ModuleList([Block(as_tuple, tokens_first) for _ in range(2)])
        self.norm = nn.LayerNorm(DIMS)
        self.head = nn.Linear(DIMS, OUTPUTS)
        self.tokens_first, self.joins_at = tokens_first, joins_at

    def forward(self, images):
        tokens = self.patches(images).flatten(2).mT + self.position
        tokens = tokens.transpose(0, 1) if self.tokens_first else tokens
        for number, block in enumerate(self.blocks):
            if number == self.joins_at:
                shape = (1, len(images)) if self.tokens_first else (len(images), 1)
                token = self.cls_token.expand(*shape, -1)
                tokens = torch.cat([token, tokens], 0 if self.tokens_first else 1)
            found = block(tokens)
            tokens = found[0] if isinstance(found, tuple) else found
        tokens = self.norm(tokens)
        tokens = tokens.transpose(0, 1) if self.tokens_first else tokens
        return self.head(tokens.mean(1) if self.joins_at is None else tokens[:, 0])


def token_net(seed=0, **habits):
    """A `TokenNet` with random weights that uses its attention."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = TokenNet(**habits)
        for block in net.blocks:
            block.attention.in_proj_weight.data.mul_(3)
        net.head.weight.data.mul_(4)
    return net.eval()


def grid_net():
    """A network that keeps its maps with the channels last, as Swin does."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.grid = nn.Conv2d(3, DIMS, PATCH, PATCH), nn.LayerNorm(DIMS)
            self.head = nn.Linear(DIMS, OUTPUTS)

        def forward(self, images):
            return self.head(self.grid(self.patches(images).permute(0, 2, 3, 1)).mean((1, 2)))

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Last().eval()


def some_images(count=4, seed=0):
    """Random images (count, 3, 12, 12)."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
