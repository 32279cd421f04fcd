"""Slow, literal second versions of the formulas, in plain Python and float64."""

import math


def mean(values, weights):
    return sum(w * v for v, w in zip(values, weights, strict=True)) / sum(weights)


def faithfulness(reproduced, logits, weights):
    errors = [
        sum((r - y) ** 2 for r, y in zip(row, truth, strict=True))
        for row, truth in zip(reproduced, logits, strict=True)
    ]
    return mean(errors, weights)


def sparse_reconstruction(reconstruction, z, weights, q):
    dims = len(z[0])
    total = 0.0
    for k in range(dims):
        errors = [(a[k] - b[k]) ** 2 for a, b in zip(reconstruction, z, strict=True)]
        total += math.log(1 + q * mean(errors, weights))
    return total / dims


def pull_away(features, weights, centred):
    n = len(features[0])
    columns = [[row[i] for row in features] for i in range(n)]
    if centred:
        columns = [[x - mean(column, weights) for x in column] for column in columns]

    def dot(a, b):
        return sum(w * x * y for x, y, w in zip(a, b, weights, strict=True))

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            norm = dot(columns[i], columns[i]) * dot(columns[j], columns[j])
            total += dot(columns[i], columns[j]) ** 2 / norm if norm > 0 else 1.0
    return total / (n * (n - 1))


def map_covariance(maps):
    """maps[image][feature] is a list of pixels."""
    n = len(maps[0])
    pixels = [[max(p, 0.0) for image in maps for p in image[i]] for i in range(n)]
    count = len(pixels[0])
    means = [sum(p) / count for p in pixels]
    return [
        [
            sum((a - means[i]) * (b - means[j]) for a, b in zip(pixels[i], pixels[j], strict=True))
            / count
            for j in range(n)
        ]
        for i in range(n)
    ]
