"""The protocol of FunnyBirds written out image by image, in plain Python."""

import itertools
import math

from scipy.stats import spearmanr

PARTS = range(5)


def sufficient_sets(classes, target):
    """Minimal sets of parts that tell a class from all others."""
    enough = []
    for size in range(1, 6):
        for subset in itertools.combinations(PARTS, size):
            alike = [
                other
                for other in range(len(classes))
                if other != target
                and all(classes[other][part] == classes[target][part] for part in subset)
            ]
            if not alike:
                enough.append(set(subset))
    return [one for one in enough if not any(other < one for other in enough)]


def contrast(classes, target):
    def shared(other):
        return {part for part in PARTS if classes[other][part] == classes[target][part]}

    two = [other for other in range(len(classes)) if len(shared(other)) == 2]
    for first in two:
        for second in two:
            if first < second and not shared(first) & shared(second):
                return (first, shared(first)), (second, shared(second))
    return None


def important(parts, total, objects, threshold):
    """Names of the important things: numbers of parts, and ("object", number)."""
    values = dict(enumerate(parts))
    values |= {("object", number): value for number, value in enumerate(objects)}
    return {name for name, value in values.items() if value > total * threshold}


def mean(values):
    return sum(values) / len(values) if values else math.nan


def protocol(classes, images, logits_of, explained, thresholds):
    """The scores of the paper.

    images: (label, number of background objects); logits_of(image, removed parts, removed object)
    and explained(image, class) -> (parts, total, objects).
    """
    everything = set(PARTS)
    lists = {name: {t: [] for t in thresholds} for name in ("csdc", "pc", "dc", "d")}
    right, background, correlations, sensitive = [], [], [], []
    for image, (label, count) in enumerate(images):
        logits = logits_of(image, set(), None)
        said = max(range(len(classes)), key=lambda k: logits[k])
        right.append(float(said == label))
        before = logits[label]
        without = {part: logits_of(image, {part}, None)[label] for part in PARTS}
        for number in range(count):
            without["object", number] = logits_of(image, set(), number)[label]
        irrelevant = {
            name
            for name, after in without.items()
            if abs(before - after) < 0.05 * abs(before) or before < after
        }
        for number in range(count):
            after = without["object", number]
            needed = abs(before - after) >= 0.05 * abs(before) and before > after
            background.append(0.0 if needed else 1.0)
        own, of_said = explained(image, label), explained(image, said)
        for threshold in thresholds:
            mine = important(*own, threshold)
            if said == label:
                sets = sufficient_sets(classes, label)
                shares = [len(one & mine) / len(one) for one in sets]
                lists["csdc"][threshold].append(max(shares, default=0))
            if irrelevant:
                wrong = len(mine & irrelevant) / len(irrelevant)
                lists["d"][threshold].append(1 - wrong)
            chosen = important(*of_said, threshold) & everything
            kept = logits_of(image, everything - chosen, None)
            gone = logits_of(image, chosen, None)
            lists["pc"][threshold].append(float(kept.index(max(kept)) == said))
            lists["dc"][threshold].append(float(gone.index(max(gone)) != said))
        drops = [before - without[part] for part in PARTS]
        if len(set(own[0])) > 1 and len(set(drops)) > 1:
            correlations.append((spearmanr(own[0], drops).statistic + 1) / 2)
        pair = contrast(classes, label)
        if pair is None:
            continue
        (first, of_first), (second, of_second) = pair
        less, other = logits_of(image, of_first, None), logits_of(image, of_second, None)
        if not (less[first] < other[first] and other[second] < less[second]):
            continue
        one, two = explained(image, first)[0], explained(image, second)[0]
        sensitive.append(float(sum(one[p] for p in of_first) > sum(two[p] for p in of_first)))
        sensitive.append(float(sum(one[p] for p in of_second) < sum(two[p] for p in of_second)))

    means = {name: [mean(lists[name][t]) for t in thresholds] for name in lists}
    complete = [
        ((c + p + d) / 3 + free) / 2
        for c, p, d, free in zip(*(means[name] for name in ("csdc", "pc", "dc", "d")), strict=True)
    ]
    best = complete.index(max(complete))
    scores = {f"official_{name}": values[best] for name, values in means.items()}
    return scores | {
        "official_accuracy": mean(right),
        "official_bi": mean(background),
        "official_sd": mean(correlations),
        "official_ts": mean(sensitive),
        "official_completeness": complete[best],
        "official_correctness": mean(correlations),
        "official_contrastivity": mean(sensitive),
        "official_mean": mean([complete[best], mean(correlations), mean(sensitive)]),
        "official_threshold": thresholds[best],
    }
