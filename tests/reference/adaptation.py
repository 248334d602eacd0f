"""Adaptation algorithms written from their papers, in plain steps on a plain network."""

import math

import torch

from tests.reference.losses import probabilities


def averaged(states, decay):
    """Teacher after each of several states of a network: ``a = min(decay, 1 - 1/t)``."""
    teacher = dict(states[0])
    for t, state in enumerate(states[1:], start=1):
        a = min(decay, 1 - 1 / t)
        teacher = {name: a * teacher[name] + (1 - a) * state[name] for name in teacher}
    return teacher


def dann_ramp(share, gamma=10.0):
    """λ of Ganin et al. 2016, sec. 5.2.2."""
    return 2.0 / (1.0 + math.exp(-gamma * share)) - 1.0


def binary_cross_entropy(logit, label):
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p) if label else -math.log(1 - p)


def cdan(source, target, discriminate, sure):
    """Long et al. 2018, sec. 3: the discriminator's loss of lists of pairs (features, logits).

    ``discriminate`` makes a logit of the products of each feature with each class; ``sure`` weighs
    samples by ``1 + exp(-H)``, normalized within their domain.
    """
    total = 0.0
    for label, pairs in ((1, source), (0, target)):
        loss = mass = 0.0
        for features, row in pairs:
            p = probabilities(row)
            weight = 1 + math.exp(sum(x * math.log(x) for x in p)) if sure else 1.0
            products = [f * x for f in features for x in p]
            loss += weight * binary_cross_entropy(discriminate(products), label)
            mass += weight
        total += loss / mass / 2
    return total


def mcd(generator, classifiers, source, labels, target, *, lr, classifier_lr, steps):
    """Saito et al. 2018, sec. 3, steps A to C of one batch by plain gradient steps, in place."""

    def supervised():
        features = generator(source)
        return sum(torch.nn.functional.cross_entropy(c(features), labels) for c in classifiers)

    def distance():
        features = generator(target)
        one, other = (classifier(features).softmax(1) for classifier in classifiers)
        return (one - other).abs().mean()

    def descend(loss, rates):
        moved = [(p, rate) for module, rate in rates for p in module.parameters()]
        gradients = torch.autograd.grad(loss, [p for p, _ in moved])
        with torch.no_grad():
            for (p, rate), gradient in zip(moved, gradients, strict=True):
                p.sub_(rate * gradient)

    both = [(classifier, classifier_lr) for classifier in classifiers]
    descend(supervised(), [(generator, lr), *both])
    descend(supervised() - distance(), both)
    for _ in range(steps):
        descend(distance(), [(generator, lr)])


def eata(network, batches, parameters, *, lr, margin, redundancy, fisher, fisher_weight):
    """Niu et al. 2022, alg. 1: logits of each batch, while ``parameters`` move by SGD (0.9).

    ``network`` normalizes by the statistics of the batch. Written one sample after another.
    """
    start = [p.detach().clone() for p in parameters]
    velocity = [torch.zeros_like(p) for p in parameters]
    mean_probability, outputs, kept_counts = None, [], []
    for batch in batches:
        logits = network(batch)
        outputs.append(logits.detach().clone())
        limit = margin * math.log(logits.shape[1])
        kept, losses, vectors = 0, [], []
        for row in logits:
            p = row.softmax(0)
            entropy = -(p * p.log()).sum()
            if float(entropy.detach()) >= limit:
                continue
            if mean_probability is not None:
                q = p.detach()
                cosine = float(q @ mean_probability / (q.norm() * mean_probability.norm()))
                if abs(cosine) >= redundancy:
                    continue
            kept += 1
            vectors.append(p.detach())
            losses.append(math.exp(limit - float(entropy.detach())) * entropy)
        kept_counts.append(kept)
        if not kept:
            continue
        new = torch.stack(vectors).mean(0)
        mean_probability = new if mean_probability is None else 0.9 * mean_probability + 0.1 * new
        loss = sum(losses) / kept
        for p, origin, importance in zip(parameters, start, fisher, strict=True):
            loss = loss + fisher_weight * (importance * (p - origin) ** 2).sum()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(lr * v)
    return outputs, kept_counts


def fisher(network, batches, parameters):
    """Mean over batches of the squared gradient of cross-entropy to the network's own labels."""
    totals = [torch.zeros_like(p) for p in parameters]
    for batch in batches:
        logits = network(batch)
        picked = [row.log_softmax(0)[int(row.argmax())] for row in logits]
        loss = -sum(picked) / len(picked)
        gradients = torch.autograd.grad(loss, parameters)
        totals = [total + gradient**2 for total, gradient in zip(totals, gradients, strict=True)]
    return [total / len(batches) for total in totals]


def pseudo_labels(rows, threshold):
    """Most probable class of each row of logits, −1 where it is less probable than asked."""
    labels = []
    for row in rows:
        p = probabilities(row)
        best = max(range(len(p)), key=p.__getitem__)
        labels.append(best if p[best] >= threshold else -1)
    return labels


def class_confusion(rows, temperature):
    """Jin et al. 2020, eq. 2 to 6, one pair of classes after another."""
    p = [probabilities([value / temperature for value in row]) for row in rows]
    entropy = [-sum(x * math.log(x) for x in row) for row in p]
    raw = [1 + math.exp(-h) for h in entropy]
    weight = [len(rows) * value / sum(raw) for value in raw]
    classes = range(len(rows[0]))
    total = 0.0
    for i in classes:
        line = [sum(w * row[i] * row[j] for w, row in zip(weight, p, strict=True)) for j in classes]
        total += sum(value for j, value in enumerate(line) if j != i) / sum(line)
    return total / len(classes)


def centroid_labels(features, rows):
    """Liang et al. 2020, eq. 5 and 6: two rounds of centroids and cosines, in plain Python."""

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    p = [probabilities(row) for row in rows]
    count = len(rows[0])
    lengths = [math.sqrt(sum(x * x for x in row) + 1) for row in features]
    points = [[x / n for x in [*row, 1.0]] for row, n in zip(features, lengths, strict=True)]
    present = {max(range(count), key=row.__getitem__) for row in p}
    weights = p
    for _ in range(2):
        centroids = {
            k: [
                sum(w[k] * point[axis] for w, point in zip(weights, points, strict=True))
                for axis in range(len(points[0]))
            ]
            for k in present
        }
        labels = [max(sorted(present), key=lambda k: cosine(x, centroids[k])) for x in points]
        weights = [[float(k == label) for k in range(count)] for label in labels]
    return labels


def cotta(student, teacher, source, batches, *, lr, decay, restore, views, varied):
    """Wang et al. 2022, alg. 1: the teacher's logits of each batch; ``views`` 0: sure of all.

    The three are pairs of a function of images and its parameters, which start equal. Adam written
    out (0.9, 0.999, 1e-8).
    """
    (run, parameters), (run_teacher, averaged_), (_, origin) = student, teacher, source
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    outputs = []
    for t, batch in enumerate(batches, start=1):
        logits = run(batch)
        with torch.no_grad():
            told = run_teacher(batch)
            if views:
                seen = [varied(batch) for _ in range(views)]
                told = sum(run_teacher(image) for image in seen) / views
        outputs.append(told)
        losses = [
            -sum(p * q for p, q in zip(row.softmax(0), own.log_softmax(0), strict=True))
            for row, own in zip(told, logits, strict=True)
        ]
        gradients = torch.autograd.grad(sum(losses) / len(losses), parameters)
        with torch.no_grad():
            for p, m, v, g in zip(parameters, first, second, gradients, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.sub_(lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))
            for a, p in zip(averaged_, parameters, strict=True):
                a.copy_(decay * a + (1 - decay) * p)
            for p, o in zip(parameters, origin, strict=True):
                back = torch.rand_like(p) < restore
                p.copy_(torch.where(back, o, p))
    return outputs


def fixmatch_loss(weak, strong, thresholds):
    """Sohn et al. 2020, eq. 4: over all samples; a threshold for each class."""
    total = 0.0
    for row, other in zip(weak, strong, strict=True):
        p = probabilities(row)
        best = max(range(len(p)), key=p.__getitem__)
        if p[best] >= thresholds[best]:
            total -= math.log(probabilities(other)[best])
    return total / len(weak)


def free_thresholds(batches, decay):
    """Wang et al. 2023, eq. 5 to 7: thresholds of all classes after each batch."""
    count = len(batches[0][0])
    level, usual, found = 1 / count, [1 / count] * count, []
    for batch in batches:
        level = decay * level + (1 - decay) * sum(max(p) for p in batch) / len(batch)
        for k in range(count):
            mean = sum(p[k] for p in batch) / len(batch)
            usual[k] = decay * usual[k] + (1 - decay) * mean
        found.append([level * u / max(usual) for u in usual])
    return found


def fairness_losses(weak, strong, counted, decay):
    """Wang et al. 2023, eq. 9 to 11, as -Σ a log b, of each batch; classes unseen in it are out.

    ``weak`` and ``strong`` are probabilities of the views, ``counted`` the weight of each sample.
    """
    count = len(weak[0][0])
    usual, histogram, losses = [1 / count] * count, [1 / count] * count, []
    for batch, changed, weights in zip(weak, strong, counted, strict=True):
        for k in range(count):
            mean = sum(p[k] for p in batch) / len(batch)
            often = sum(max(p) == p[k] for p in batch) / len(batch)
            usual[k] = decay * usual[k] + (1 - decay) * mean
            histogram[k] = decay * histogram[k] + (1 - decay) * often
        a = [u / h for u, h in zip(usual, histogram, strict=True)]
        b = {}
        for k in range(count):
            pairs = list(zip(changed, weights, strict=True))
            often = sum(w for p, w in pairs if max(p) == p[k])
            if often > 0:
                b[k] = sum(w * p[k] for p, w in pairs) / often
        losses.append(-sum(a[k] / sum(a) * math.log(b[k] / sum(b.values())) for k in b))
    return losses


def aligned(batches, labels, decay, prior=None):
    """Probabilities of each batch, aligned to those of labels (None: a prior, or equal)."""
    count = len(batches[0][0])
    share, prior, found = [1 / count] * count, prior or [1 / count] * count, []
    for t, (batch, known) in enumerate(zip(batches, labels, strict=True), start=1):
        a = min(decay, 1 - 1 / t)
        for k in range(count):
            share[k] = a * share[k] + (1 - a) * sum(p[k] for p in batch) / len(batch)
            if known is not None:
                count_k, all_known = known.count(k), len(known) - known.count(-1)
                prior[k] = a * prior[k] + (1 - a) * count_k / all_known
        rows = [[p[k] * prior[k] / share[k] for k in range(count)] for p in batch]
        found.append([[value / sum(row) for value in row] for row in rows])
    return found


def dacs_loss(rows, labels, pasted, confidences, threshold):
    """Tranheden et al. 2021, alg. 1: a weight for each pixel, 1 where pasted, else the sure share.

    ``rows``, ``labels``, ``pasted`` of the pixels of mixed images; ``confidences`` of the teacher
    on those of target images.
    """
    share = sum(c >= threshold for c in confidences) / len(confidences)
    total = 0.0
    for row, label, known in zip(rows, labels, pasted, strict=True):
        total -= (1.0 if known else share) * math.log(probabilities(row)[label])
    return total / len(rows)


def feature_distance(features, start, chosen):
    """Hoyer et al. 2022, sec. 3.3: mean length of differences, over the chosen cells."""
    lengths = [
        math.sqrt(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)))
        for one, other, wanted in zip(features, start, chosen, strict=True)
        if wanted
    ]
    return sum(lengths) / len(lengths)


def cosine_distance(features, start):
    """Program of Englert et al. 2025: 0.1 smooth L1 + 0.9 (1 - cosine), mean over places."""
    total = 0.0
    for one, other in zip(features, start, strict=True):
        apart = [abs(x - y) for x, y in zip(one, other, strict=True)]
        smooth = [d * d / 2 if d < 1 else d - 0.5 for d in apart]
        product = sum(x * y for x, y in zip(one, other, strict=True))
        lengths = math.sqrt(sum(x * x for x in one) * sum(y * y for y in other))
        total += 0.1 * sum(smooth) / len(smooth) + 0.9 * (1 - product / lengths)
    return total / len(features)


def group_weights(losses, step_size):
    """q of Sagawa et al. 2020, alg. 1, after each of several steps; a row of losses for each."""
    q = [1 / len(losses[0])] * len(losses[0])
    found = []
    for row in losses:
        q = [weight * math.exp(step_size * loss) for weight, loss in zip(q, row, strict=True)]
        q = [weight / sum(q) for weight in q]
        found.append(q)
    return found


def loss_valley(losses, start_patience, end_patience, tolerance):
    """First and last segment to average, Cha et al. 2021, alg. 1, from all losses at once.

    Where no valley starts, from the first least loss to the end.
    """
    start = None
    for i in range(len(losses) - start_patience + 1):
        if losses[i] == min(losses[i : i + start_patience]):
            start = i
            break
    if start is None:
        return losses.index(min(losses)), len(losses) - 1
    threshold = tolerance * sum(losses[start : start + start_patience]) / start_patience
    for i in range(start + start_patience, len(losses) - end_patience + 1):
        if min(losses[i : i + end_patience]) > threshold:
            return start, i - 1
    return start, len(losses) - 1


def attract_and_disperse(features, rows, index, bank_features, bank_rows, *, count, alpha):
    """Yang et al. 2022, eq. 5, one image after another; banks map an index to what is kept."""

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def cosine(a, b):
        return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))

    p = [probabilities(row) for row in rows]
    bank_features = {**bank_features, **dict(zip(index, features, strict=True))}
    kept = {of: probabilities(row) for of, row in bank_rows.items()}
    kept |= dict(zip(index, p, strict=True))
    attract = disperse = 0.0
    for own, feature, q in zip(index, features, p, strict=True):
        others = [of for of in bank_features if of != own]
        others.sort(key=lambda of: -cosine(feature, bank_features[of]))
        attract -= sum(dot(q, kept[of]) for of in others[:count])
        disperse += sum(dot(q, r) for of, r in zip(index, p, strict=True) if of != own)
    return attract / len(p), alpha * disperse / len(p)


def centroids_after(former, features, labels, kept):
    """Chang et al. 2019, class by class: ``kept`` of what was, the rest the mean of a batch."""
    found = []
    for k, old in enumerate(former):
        own = [row for row, label in zip(features, labels, strict=True) if label == k]
        means = [sum(values) / len(own) for values in zip(*own, strict=True)] if own else old
        share = kept if own else 1.0
        found.append([share * o + (1 - share) * m for o, m in zip(old, means, strict=True)])
    return found


def mean_square(a, b):
    """Over all entries of two tables."""
    squares = [
        (x - y) ** 2
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
    ]
    return sum(squares) / len(squares)


def sfda(rows_of_images, priors, mean_prior, floor=0.01):
    """Bateson et al. 2020, eq. 1 to 3: entropy and divergence of pixels' logits, one by one."""
    inverse = [1 / max(share, floor) for share in mean_prior]
    weight = [one / sum(inverse) for one in inverse]
    entropy, pixels, divergence = 0.0, 0, 0.0
    for rows, prior in zip(rows_of_images, priors, strict=True):
        p = [probabilities(row) for row in rows]
        entropy -= sum(w * x * math.log(x) for q in p for w, x in zip(weight, q, strict=True))
        pixels += len(p)
        shares = [sum(column) / len(p) for column in zip(*p, strict=True)]
        divergence += sum(r * math.log(r / own) for r, own in zip(shares, prior, strict=True))
    return entropy / pixels, divergence / len(priors)
