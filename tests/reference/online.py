"""Streams without gradients, written from their papers one image after another."""

import math

import torch

from tests.reference.losses import probabilities


def entropy(row):
    return -sum(p * math.log(p) for p in probabilities(row) if p > 0)


def dot(one, other):
    return sum(x * y for x, y in zip(one, other, strict=True))


def unit(vector):
    length = math.sqrt(dot(vector, vector))
    return [x / length for x in vector] if length > 0 else list(vector)


def classify(weight, bias, features):
    return [dot(row, features) + b for row, b in zip(weight, bias, strict=True)]


def neo(weight, bias, batches):
    """Murphy et al. 2026: logits of features from which the mean of all so far is taken away."""
    seen, outputs = [], []
    for batch in batches:
        seen += batch
        mean = [sum(column) / len(seen) for column in zip(*seen, strict=True)]
        centred = [[x - m for x, m in zip(z, mean, strict=True)] for z in batch]
        outputs.append([classify(weight, bias, z) for z in centred])
    return outputs


def t3a(weight, bias, batches, most):
    """Iwasawa and Matsuo 2021, alg. 1; ``most`` is M, None for all."""
    supports = []  # (entropy, number, label, vector)

    def add(vector):
        row = classify(weight, bias, vector)
        supports.append((entropy(row), len(supports), row.index(max(row)), vector))

    for row in weight:
        add(row)
    outputs = []
    for batch in batches:
        for z in batch:
            add(z)
        prototypes = []
        for k in range(len(weight)):
            chosen = sorted(one for one in supports if one[2] == k)[:most]
            vectors = [unit(one[3]) for one in chosen] or [weight[k]]
            prototypes.append(unit([sum(column) for column in zip(*vectors, strict=True)]))
        outputs.append([[dot(z, one) for one in prototypes] for z in batch])
    return outputs


def lame(rows, features, kind, neighbours, iterations=100):
    """Boudiaf et al. 2022, eq. 4 to 6: probabilities of one batch of logits ``rows``."""
    count = len(rows)
    told = [probabilities(row) for row in rows]
    z = [unit(one) for one in features]
    far = [[math.dist(one, other) for other in z] for one in z]
    nearest = [
        sorted((far[n][m], m) for m in range(count) if m != n)[: min(neighbours, count - 1)]
        for n in range(count)
    ]
    size = sum(near[-1][0] for near in nearest) / count

    def affinity(n, m):
        if kind == "linear":
            return dot(z[n], z[m])
        if kind == "rbf":
            return math.exp(-(far[n][m] ** 2) / (2 * size**2))
        is_near = (m in [i for _, i in nearest[n]], n in [i for _, i in nearest[m]])
        return sum(is_near) / 2

    weights = [[affinity(n, m) for m in range(count)] for n in range(count)]
    found, former = told, math.nan
    for _ in range(iterations):
        attracted = [
            [dot(weights[n], [one[k] for one in found]) for k in range(len(told[0]))]
            for n in range(count)
        ]
        found = [
            probabilities([math.log(p) + a for p, a in zip(told[n], attracted[n], strict=True)])
            for n in range(count)
        ]
        now = sum(
            q * (math.log(q) - math.log(p) - a)
            for n in range(count)
            for q, p, a in zip(found[n], told[n], attracted[n], strict=True)
        )
        if abs(now - former) <= 1e-8 * abs(former):
            break
        former = now
    return found


def mixed_moments(source, images, prior):
    """Schneider et al. 2020, eq. 1, of one channel: values of each image, and the source's."""
    share = len(images) / (len(images) + prior)
    values = [value for image in images for value in image]
    mean = sum(values) / len(values)
    var = sum((value - mean) ** 2 for value in values) / len(values)
    return tuple(
        (1 - share) * one + share * other for one, other in zip(source, (mean, var), strict=True)
    )


def row_entropy(row):
    p = row.softmax(0)
    return -(p * p.log()).sum()


def opinion_entropy(row):
    """Zhang et al. 2025: of belief in each class and in none, the length of the row constant."""
    row = row / row.norm() * float(row.detach().norm())
    total = row.exp().sum() + len(row)
    masses = [*(row.exp() / total), len(row) / total]
    return -sum(mass * mass.log() for mass in masses)


class Descent:
    """SGD with momentum 0.9, or Adam, by plain sums."""

    def __init__(self, parameters, lr, *, adam=False, nesterov=False):
        self.parameters, self.lr, self.adam, self.nesterov = parameters, lr, adam, nesterov
        self.forget()

    def forget(self):
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def gradients(self, loss):
        return torch.autograd.grad(loss, self.parameters)

    @torch.no_grad()
    def step(self, gradients):
        self.steps += 1
        for p, m, v, g in zip(self.parameters, self.first, self.second, gradients, strict=True):
            if not self.adam:
                m.mul_(0.9).add_(g)
                p.sub_(self.lr * (g + 0.9 * m if self.nesterov else m))
                continue
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            corrected = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            p.sub_(self.lr * corrected[0] / (corrected[1].sqrt() + 1e-8))


def tent(network, batches, descent, entropy_of=row_entropy):
    """Wang et al. 2021: logits of each batch, and a step on their mean entropy after it."""
    outputs = []
    for batch in batches:
        logits = network(batch)
        outputs.append(logits.detach().clone())
        descent.step(descent.gradients(sum(map(entropy_of, logits)) / len(logits)))
    return outputs


def sar(network, batches, descent, *, margin, radius, floor):
    """Niu et al. 2023, alg. 1; the numbers of batches after which it went back."""
    start = [p.detach().clone() for p in descent.parameters]
    outputs, returns, average, first_entropy = [], [], None, None
    for number, batch in enumerate(batches):
        logits = network(batch)
        outputs.append(logits.detach().clone())
        limit = margin * math.log(logits.shape[1])
        kept = [n for n, row in enumerate(logits) if float(row_entropy(row).detach()) < limit]
        if not kept:
            continue
        gradients = descent.gradients(sum(row_entropy(logits[n]) for n in kept) / len(kept))
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        here = [p.detach().clone() for p in descent.parameters]
        with torch.no_grad():
            for p, g in zip(descent.parameters, gradients, strict=True):
                p.add_(radius / length * g)
        there = network(batch)
        kept = [n for n in kept if float(row_entropy(there[n]).detach()) < limit]
        entropy = sum(row_entropy(there[n]) for n in kept) / max(1, len(kept))
        gradients = descent.gradients(entropy) if kept else None
        with torch.no_grad():
            for p, former in zip(descent.parameters, here, strict=True):
                p.copy_(former)
        if gradients is None:
            continue
        descent.step(gradients)
        entropy = float(entropy.detach())
        average = entropy if average is None else 0.9 * average + 0.1 * entropy
        first_entropy = entropy if first_entropy is None else first_entropy
        least = floor * math.log(logits.shape[1])
        if average < least <= first_entropy:
            returns.append(number)
            average = None
            descent.forget()
            with torch.no_grad():
                for p, former in zip(descent.parameters, start, strict=True):
                    p.copy_(former)
    return outputs, returns


def deyo(network, batches, descent, *, margin, drop, shuffled):
    """Lee et al. 2024, alg. 1; ``shuffled`` makes the copies of images that are asked for."""
    outputs, counts = [], []
    for batch in batches:
        logits = network(batch)
        outputs.append(logits.detach().clone())
        most = math.log(logits.shape[1])
        near = [
            n for n, row in enumerate(logits) if float(row_entropy(row).detach()) < margin * most
        ]
        if not near:
            counts.append(0)
            continue
        with torch.no_grad():
            other = network(shuffled(batch[near]))
        losses = []
        for n, row in zip(near, other, strict=True):
            p = logits[n].detach().softmax(0)
            lost = float(p.max() - row.softmax(0)[int(p.argmax())])
            if lost > drop:
                entropy = row_entropy(logits[n])
                weight = math.exp(0.4 * most - float(entropy.detach())) + math.exp(lost)
                losses.append(weight * entropy)
        counts.append(len(losses))
        if losses:
            descent.step(descent.gradients(sum(losses) / len(losses)))
    return outputs, counts


def roid(network, batches, descent, *, temperature, decay, varied):
    """Marsden et al. 2024: log of predictions times the smoothed prior, one image after another."""
    start = [p.detach().clone() for p in descent.parameters]
    mean, outputs = None, []

    def between(values):
        least, most = min(values), max(values)
        return [(v - least) / (most - least) if most > least else 0.0 for v in values]

    for batch in batches:
        logits = network(batch)
        told = logits.detach().softmax(1)
        mean = torch.full_like(told[0], 1 / told.shape[1]) if mean is None else mean
        unlike = between([float(1 - mean @ p / (mean.norm() * p.norm())) for p in told])
        sure = between([-float(row_entropy(row)) for row in logits.detach()])
        average = sum(unlike) / len(unlike)
        kept = [n for n, d in enumerate(unlike) if d >= average - 1e-12]
        mean = 0.9 * mean + 0.1 * told.mean(0)
        views = network(varied(batch[kept]))
        loss = 0.0
        for n, view in zip(kept, views, strict=True):
            weight = math.exp(unlike[n] * sure[n] / temperature)
            p = logits[n].softmax(0).clamp(max=0.99)
            ratio = -(p * (p / (1 - p) + 1e-5).log()).sum()
            one, other = view, logits[n]
            cross = -(other.softmax(0) * one.log_softmax(0)).sum() / 2
            cross = cross - (one.softmax(0) * other.log_softmax(0)).sum() / 2
            loss = loss + weight * (ratio + cross)
        descent.step(descent.gradients(loss / len(logits)))
        with torch.no_grad():
            for p, former in zip(descent.parameters, start, strict=True):
                p.copy_(decay * p + (1 - decay) * former)
        prior = told.mean(0)
        smooth = max(1 / len(told), 1 / told.shape[1]) / float(prior.max())
        prior = (prior + smooth) / (1 + smooth * told.shape[1])
        outputs.append((told * prior).log())
    return outputs


class Robust(torch.nn.Module):
    """Yuan et al. 2023, eq. 1 and 2: batch norm by moments that follow the images, with gradients.

    In the place of the statistics of a layer; ``learning`` when the moments move.
    """

    takes_rows = tokens = learning = False

    def __init__(self, mean, var, eps, share):
        super().__init__()
        self.mean, self.var, self.eps, self.share = mean.clone(), var.clone(), eps, share

    def forward(self, x, scale, shift, condition, rows=False):
        mean, var = self.mean, self.var
        if self.learning:
            values = x.transpose(0, 1).flatten(1)
            own = values.mean(1)
            own_var = ((values - own[:, None]) ** 2).mean(1)
            mean = (1 - self.share) * mean + self.share * own
            var = (1 - self.share) * var + self.share * own_var
            self.mean, self.var = mean.detach(), var.detach()
        shape = (1, -1, 1, 1)
        normal = (x - mean.view(shape)) / (var.view(shape) + self.eps) ** 0.5
        return normal * scale[..., None, None] + shift[..., None, None]


def enters(kept, label, burden, size):
    """Yuan et al. 2023, alg. 2: whether an image enters a memory, from which another may go.

    ``kept`` are lists [image, entropy, age] of each class, ``burden`` is of entropy and age.
    """
    entropy, full = burden.entropy, None
    if len(kept[label]) >= size / len(kept):
        full = [label]
    elif sum(map(len, kept)) >= size:
        full = [k for k in range(len(kept)) if len(kept[k]) == max(map(len, kept))]
    worst = None
    for k in full or []:
        for number, one in enumerate(kept[k]):
            found = burden(one[1], one[2])
            if worst is None or found >= worst[0]:
                worst = (found, k, number)
    if worst is None:
        return True
    if worst[0] <= burden(entropy, 0):
        return False
    kept[worst[1]].pop(worst[2])
    return True


class Burden:
    """What makes an image leave the memory: λ_t / (1 + exp(-age / size)) + λ_u H / ln K."""

    def __init__(self, weights, size, classes):
        self.weights, self.size, self.most = weights, size, math.log(classes)
        self.entropy = 0.0  # of the new image

    def __call__(self, entropy, age):
        old = 1 / (1 + math.exp(-age / self.size))
        return self.weights[0] * old + self.weights[1] * entropy / self.most


def timely_loss(told, seen, kept, size):
    """Yuan et al. 2023, eq. 5 to 8: probabilities, log-probabilities, and what is kept."""
    loss = 0.0
    for p, log_q, one in zip(told, seen, kept, strict=True):
        age = one[2] / size
        loss = loss - math.exp(-age) / (1 + math.exp(-age)) * (p * log_q).sum()
    return loss / len(kept)


def rotta(student, teacher, learning, batches, descent, *, classes, size, decay, weights, varied):
    """Yuan et al. 2023, alg. 1: logits of the teacher, and the memory at each step.

    ``learning(True)`` lets the moments of both networks move.
    """
    outputs, kept, contents, count = [], [[] for _ in range(classes)], [], 0
    burden = Burden(weights, size, classes)
    for batch in batches:
        with torch.no_grad():
            logits = teacher[0](batch)
        outputs.append(logits.clone())
        for image, row in zip(batch, logits, strict=True):
            label, burden.entropy = int(row.argmax()), float(row_entropy(row))
            if enters(kept, label, burden, size):
                kept[label].append([image, burden.entropy, 0])
            for one in (one for group in kept for one in group):
                one[2] += 1
            count += 1
            if count % size:
                continue
            found = [one for group in kept for one in group]
            contents.append(sorted((k, one[2]) for k in range(classes) for one in kept[k]))
            images = torch.stack([one[0] for one in found])
            views = varied(images)
            learning(True)
            with torch.no_grad():
                told = teacher[0](images).softmax(1)
            seen = student[0](views).log_softmax(1)
            descent.step(descent.gradients(timely_loss(told, seen, found, size)))
            learning(False)
            with torch.no_grad():
                for p, q in zip(teacher[1], student[1], strict=True):
                    p.copy_(decay * p + (1 - decay) * q)
    return outputs, contents


def reserved(kept, label, seen, size):
    """Gong et al. 2022, alg. 1 (PBRS): whether an image enters; another one may have gone."""
    if sum(map(len, kept.values())) < size:
        return True
    most = max(map(len, kept.values()))
    largest = sorted(k for k in kept if len(kept[k]) == most)
    if label not in largest:
        group = largest[int(torch.randint(len(largest), ()))]
        kept[group].pop(int(torch.randint(len(kept[group]), ())))
    elif float(torch.rand(())) <= len(kept[label]) / seen:
        kept[label].pop(int(torch.randint(len(kept[label]), ())))
    else:
        return False
    return True


def note(network, learning, batches, descent, *, size):
    """Gong et al. 2022, alg. 1: logits, and the classes in the memory at each step.

    ``learning(True)`` lets layers use and follow the moments of the images.
    """
    outputs, kept, seen, contents, count = [], {}, {}, [], 0
    for batch in batches:
        with torch.no_grad():
            logits = network(batch)
        outputs.append(logits.clone())
        for image, row in zip(batch, logits, strict=True):
            label = int(row.argmax())
            seen[label] = seen.get(label, 0) + 1
            if reserved(kept, label, seen[label], size):
                kept.setdefault(label, []).append(image)
            count += 1
            if count % size:
                continue
            contents.append(sorted(k for k in kept for _ in kept[k]))
            learning(True)
            found = network(torch.stack([one for k in kept for one in kept[k]]))
            descent.step(descent.gradients(sum(map(row_entropy, found)) / len(found)))
            learning(False)
    return outputs, contents
