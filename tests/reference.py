"""Slow, literal second versions of the formulas, in plain Python and float64."""

import itertools
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


def part_pixels(parts):
    """parts is a list of (x, y, visible); the pixel (row, column) of every visible one."""
    return {
        p: (math.floor(y), math.floor(x)) for p, (x, y, visible) in enumerate(parts) if visible > 0
    }


def voronoi_weights(parts, box, height, width):
    """Algorithm 1: weights[part][row][column], the last part is the context."""
    pixels = part_pixels(parts)
    left, top, wide, high = box
    weights = [[[0.0] * width for _ in range(height)] for _ in range(len(parts) + 1)]
    cells = {p: [] for p in pixels}
    for i in range(height):
        for j in range(width):
            inside = top <= i + 0.5 < top + high and left <= j + 0.5 < left + wide
            if not inside:
                weights[-1][i][j] = 1.0
            elif pixels:
                squared = {p: (i - a) ** 2 + (j - b) ** 2 for p, (a, b) in pixels.items()}
                owner = min(squared, key=lambda p: (squared[p], p))
                cells[owner].append((i, j, math.sqrt(squared[owner])))
    for p, cell in cells.items():
        largest = max((d for _, _, d in cell), default=0.0)
        for i, j, d in cell:
            weights[p][i][j] = 1 - (d / largest if largest > 0 else 0.0)
    return weights


def part_relevance(heatmap, weights):
    """S_p of one map[row][column], or None if it has no positive relevance."""
    positive = [[max(value, 0.0) for value in row] for row in heatmap]
    total = sum(sum(row) for row in positive)
    if total == 0:
        return None
    return [
        sum(
            w * c / total
            for w_row, c_row in zip(plane, positive, strict=True)
            for w, c in zip(w_row, c_row, strict=True)
        )
        for plane in weights
    ]


def histogram_entropy(histogram):
    total = sum(histogram)
    return -sum(s / total * math.log(s / total) for s in histogram if s > 0)


def locality_of_feature(relevances, measured):
    """relevances[image][part] or None for an empty map; measured[image][part]."""
    histogram = []
    for p in range(len(measured[0])):
        seen = [
            row[p]
            for row, known in zip(relevances, measured, strict=True)
            if row is not None and known[p]
        ]
        histogram.append(sum(seen) / len(seen) if seen else 0.0)
    return histogram_entropy(histogram)


def matched_similarity(similarity):
    """Largest mean over all permutations."""
    n = len(similarity)
    return max(
        sum(similarity[row][order[row]] for row in range(n)) / n
        for order in itertools.permutations(range(n))
    )


def pearson(first, second):
    a = [x - sum(first) / len(first) for x in first]
    b = [y - sum(second) / len(second) for y in second]
    norm = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm > 0 else 0.0


def top_pixels(scores, kept):
    """Flat indices of the highest positive scores, the earlier of equal ones first."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return {i for i in order[:kept] if scores[i] > 0}


def signed_rank_p_less(differences):
    """Exact one-sided p of Wilcoxon's test, over all assignments of signs."""
    differences = [d for d in differences if d != 0]
    sizes = sorted(abs(d) for d in differences)

    def rank(size):
        places = [i + 1 for i, other in enumerate(sizes) if other == size]
        return sum(places) / len(places)

    ranks = [rank(abs(d)) for d in differences]
    observed = sum(r for r, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [
        sum(r for r, positive in zip(ranks, signs, strict=True) if positive)
        for signs in itertools.product((False, True), repeat=len(ranks))
    ]
    return sum(total <= observed + 1e-9 for total in sums) / len(sums)


def shrink_maps_reference(values, size):
    """Relevance of every pixel of a map, shared out among the cells that it lies in."""
    height, width = len(values), len(values[0])
    found = [[0.0] * size for _ in range(size)]

    def shared(pixel, cell, pixels):
        low, high = cell * pixels / size, (cell + 1) * pixels / size
        return max(0.0, min(pixel + 1, high) - max(pixel, low))

    for y, x, i, j in itertools.product(range(height), range(width), range(size), range(size)):
        found[i][j] += values[y][x] * shared(y, i, height) * shared(x, j, width)
    return found


def fit_one(z, logits, positives, held_out, start, config, n_targets=1, components=None):
    """One SRAE, fitted by autograd and Adam, step by step as the formulas say (paper eq. 5).

    `z`, `logits`, `positives` are the training data, `held_out` the same three for early stopping;
    `start` gives the embedding to begin with and the generator that draws the batches;
    `components` are the contributions that x-features are held near, in training and held out.
    """
    import copy

    import torch

    def weights_of(positive):
        weight = torch.ones(len(positive), dtype=z.dtype)
        share = config.positive_share
        weight[positive] = share / int(positive.sum())
        weight[~positive] = (1 - share) / int((~positive).sum())
        return weight / weight.sum()

    def penalty(moments, means, shares):
        centred = moments.clone()
        for mean, count in zip(means, shares, strict=True):
            centred = centred - torch.outer(mean, mean) / count
        total = 0.0
        n = len(centred)
        for i in range(n):
            for j in range(n):
                alive = [centred[k, k] > 1e-12 + 1e-6 * moments[k, k] for k in (i, j)]
                if i != j:
                    cosine = centred[i, j] / (centred[i, i] * centred[j, j]).sqrt()
                    total = total + (cosine**2 if all(alive) else 1.0)
        return total / (n * (n - 1))

    spread = logits.std(0, correction=0)

    def distance(e, embedding, near):
        if near is None:
            return torch.zeros(len(e), dtype=e.dtype)
        return (((e * embedding.readout.weight[0] - near) / spread[0]) ** 2).sum(1)

    near, near_held_out = components or (None, None)

    def exact(embedding, data):
        zs, ys, positive = data
        weight = weights_of(positive)
        with torch.no_grad():
            e = embedding.encode(zs)
            q = (weight[:, None] * ((embedding.decode(e) - zs) / embedding.scale) ** 2).sum(0)
            fit = (weight * (((embedding.readout(e) - ys) / spread) ** 2).sum(1)).sum()
            masks = [positive, ~positive]
            means = [(weight[m, None] * e[m]).sum(0) for m in masks]
            moments = e.T @ (weight[:, None] * e)
            apart = penalty(moments, means, [weight[m].sum() for m in masks])
            sparse = torch.log(1 + config.q * q).mean()
            away = (weight * distance(e, embedding, near_held_out)).sum()
        return float(fit + config.beta * sparse + config.eta * apart + config.components * away)

    embedding, generator = start
    weight = weights_of(positives)
    optimizer = torch.optim.Adam(
        embedding.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, best_epoch = exact(embedding, held_out), 0
    state = copy.deepcopy(embedding.state_dict())
    known = {}
    steps = len(z) // config.batch_size

    def estimate(name, batch):
        old = known.get(name)
        new = batch.detach() if old is None else old + (batch.detach() - old) / steps
        known[name] = new
        return new + batch - batch.detach()

    for epoch in range(1, config.epochs + 1):
        if config.decay_every == "cosine":
            fallen = 0.5 + 0.5 * math.cos(math.pi * (epoch - 1) / config.epochs)
            optimizer.param_groups[0]["lr"] = config.learning_rate * fallen
        draws = torch.multinomial(weight, steps * config.batch_size, True, generator=generator)
        for step in range(steps):
            rows = draws[step * config.batch_size : (step + 1) * config.batch_size]
            e = embedding.encode(z[rows])
            error = (embedding.readout(e) - logits[rows]) / spread
            q = (((embedding.decode(e) - z[rows]) / embedding.scale) ** 2).mean(0)
            on = positives[rows].to(z.dtype)
            means = [(on[:, None] * e).mean(0), ((1 - on)[:, None] * e).mean(0)]
            moments = estimate("moments", e.T @ e / len(rows))
            means = [estimate(f"mean {i}", mean) for i, mean in enumerate(means)]
            apart = penalty(moments, means, [weight[positives].sum(), weight[~positives].sum()])
            loss = (error**2).sum(1).mean()
            loss = loss + config.beta * torch.log(1 + config.q * estimate("q", q)).mean()
            loss = loss + config.eta * apart
            own = None if near is None else near[rows]
            loss = loss + config.components * distance(e, embedding, own).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        current = exact(embedding, held_out)
        if current < best:
            best, best_epoch = current, epoch
            state = copy.deepcopy(embedding.state_dict())
        if epoch - best_epoch >= config.patience:
            break
    embedding.load_state_dict(state)
    return embedding, best, epoch


def error_bound(errors, positives):
    """Of positives and of others: the smallest error that 99% of m + 1 images stay within."""
    bounds = []
    for kind in (True, False):
        part = sorted(e for e, p in zip(errors, positives, strict=True) if p == kind)
        rank = 1
        while rank < len(part) and rank < 0.99 * (len(part) + 1):
            rank += 1
        bounds.append(part[rank - 1] if part else 0.0)
    return max(bounds)


def krippendorff_alpha(units):
    """By all ordered pairs of judgements, within units and over all of them; None: not defined."""
    units = [[c for c in unit if c is not None] for unit in units]
    units = [unit for unit in units if len(unit) > 1]
    values = [c for unit in units for c in unit]
    n = len(values)
    observed = expected = 0.0
    for unit in units:
        for i, j in itertools.permutations(range(len(unit)), 2):
            observed += (unit[i] != unit[j]) / (len(unit) - 1) / n
    for i, j in itertools.permutations(range(n), 2):
        expected += (values[i] != values[j]) / (n * (n - 1))
    return 1 - observed / expected if expected else None


def insertion_deletion_masks(regions, order):
    """Pixels that stay while regions are deleted, and that are there while they are put back."""
    n, height, width = len(regions), len(regions[0]), len(regions[0][0])
    deletion = [[[True] * width for _ in range(height)] for _ in range(n + 1)]
    insertion = [[[True] * width for _ in range(height)] for _ in range(n + 1)]
    for step in range(n + 1):
        for i in range(height):
            for j in range(width):
                taken = [order[at] for at in range(step) if regions[order[at]][i][j]]
                later = [order[at] for at in range(step, n) if regions[order[at]][i][j]]
                deletion[step][i][j] = not taken
                insertion[step][i][j] = bool(taken) or not later
    return deletion, insertion


def step_curve_area(values):
    """Mean over images of the area under each curve: a sum over trapezoids of width 1/n."""
    total = 0.0
    for row in values:
        n = len(row) - 1
        for j in range(n):
            total += (float(row[j]) + float(row[j + 1])) / 2 / n
    return total / len(values)
