"""Flow matching, image by image, from the formulas of Lipman et al. and Liu et al., 2023."""


def flow_loss(velocity, images, noises, times, labels, domains):
    """Mean over images of the mean square of v((1 − t) x0 + t x1, t) − (x1 − x0)."""
    total = 0.0
    rows = zip(images, noises, times.tolist(), labels.tolist(), domains.tolist(), strict=True)
    for image, noise, time, label, domain in rows:
        found = velocity((1 - time) * noise + time * image, time, label, domain)
        total += float(((found - (image - noise)) ** 2).mean())
    return total / len(images)


def midpoint(velocity, noise, label, domain, steps, guidance):
    """One image along guided velocities, by midpoints."""

    def guided(image, time):
        none = velocity(image, time, -1, domain)
        return none + guidance * (velocity(image, time, label, domain) - none)

    image, length = noise, 1 / steps
    for step in range(steps):
        half = image + length / 2 * guided(image, step * length)
        image = image + length * guided(half, step * length + length / 2)
    return ((image + 1) / 2).clip(0, 1)
