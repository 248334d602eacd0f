"""What streets are made of; each function paints one thing."""

from __future__ import annotations

import numpy as np

from domainnorm.data.drawings.canvas import Canvas, Colour

WALLS = [(0.72, 0.60, 0.48), (0.60, 0.36, 0.30), (0.78, 0.76, 0.70), (0.52, 0.53, 0.56)]
PAINTS = [(0.75, 0.12, 0.12), (0.85, 0.85, 0.86), (0.12, 0.13, 0.15), (0.15, 0.28, 0.55)]
CLOTHES = [(0.20, 0.25, 0.45), (0.55, 0.15, 0.18), (0.80, 0.75, 0.60), (0.25, 0.25, 0.27)]
SKIN = (0.78, 0.60, 0.50)
RUBBER = (0.06, 0.06, 0.07)
GLASS = (0.20, 0.25, 0.30)
SIZES = {  # width, height and length in metres
    "car": (1.8, 1.45, 4.2),
    "truck": (2.4, 3.4, 8.0),
    "bus": (2.5, 3.1, 11.0),
    "train": (2.5, 3.4, 22.0),
}


def building(canvas: Canvas, side: int, near: float, far: float) -> None:
    """A house with rows of windows, some of them lit at night."""
    front, height = side * canvas.number(8.2, 10.5), canvas.number(7, 19)
    wall = canvas.shade(_one(canvas, WALLS))
    back = front + side * 12
    gable = [(front, 0.0, near), (back, 0.0, near), (back, height, near), (front, height, near)]
    canvas.polygon(gable, _darker(wall, 0.72), "building")
    canvas.polygon(_along(front, 0, height, near, far), wall, "building")
    for low in np.arange(1.0, height - 2, 3.1):
        for start in np.arange(near + 0.8, far - 1.6, 2.6):
            glow = 0.9 if canvas.chance(0.35) else 0.0
            pane = _along(front, low, low + 1.7, start, start + 1.3)
            canvas.polygon(pane, GLASS, "building", glow)


def barrier(canvas: Canvas, side: int, near: float, far: float, name: str) -> None:
    """A wall of stone, or a fence, which is labelled as one surface, gaps included."""
    if name == "wall":
        canvas.polygon(_along(side * 8.3, 0, 2.2, near, far), canvas.shade((0.6, 0.57, 0.55)), name)
        return
    canvas.polygon(_along(side * 7.7, 0, 1.2, near, far), canvas.shade((0.45, 0.36, 0.28)), name)
    for z in np.arange(near, far, 0.8):
        gap = _along(side * 7.7, 0.15, 1.05, z + 0.2, z + 0.7)
        canvas.polygon(gap, (0.40, 0.46, 0.30), name)


def tree(canvas: Canvas, x: float, z: float) -> None:
    """A trunk and a crown of several discs."""
    crown = canvas.number(3.5, 5.5)
    trunk = canvas.upright(x - 0.15, x + 0.15, 0, crown, z)
    canvas.polygon(trunk, canvas.shade((0.30, 0.22, 0.16), 0.04), "vegetation")
    leaves = canvas.shade((0.22, 0.40, 0.16))
    for _ in range(7):
        centre = (x + canvas.number(-1.1, 1.1), crown + canvas.number(-1.0, 1.3), z)
        radii = (canvas.number(0.6, 1.3), canvas.number(0.6, 1.1))
        canvas.disc(centre, radii, canvas.shade(leaves, 0.07), "vegetation")


def pole(canvas: Canvas, x: float, z: float, kind: str) -> None:
    """A pole that carries a traffic sign, a traffic light or a lamp."""
    height = 5.5 if kind == "lamp" else 2.9
    canvas.polygon(canvas.upright(x - 0.07, x + 0.07, 0, height, z), (0.45, 0.46, 0.48), "pole")
    if kind == "traffic sign":
        canvas.disc((x, height, z), (0.38, 0.38), (0.80, 0.10, 0.10), kind)
        canvas.disc((x, height, z), (0.27, 0.27), (0.95, 0.95, 0.95), kind)
    elif kind == "traffic light":
        canvas.polygon(canvas.upright(x - 0.2, x + 0.2, height - 0.9, height, z), RUBBER, kind)
        lamps = [(0.95, 0.15, 0.10), (0.95, 0.75, 0.10), (0.10, 0.85, 0.35)]
        lit = int(canvas.generator.integers(3))
        for row, lamp in enumerate(lamps):
            colour = lamp if row == lit else _darker(lamp, 0.25)
            centre = (x, height - 0.15 - 0.3 * row, z)
            canvas.disc(centre, (0.12, 0.12), colour, kind, float(row == lit))
    else:
        arm = canvas.upright(min(x, 0.75 * x), max(x, 0.75 * x), height - 0.1, height, z)
        canvas.polygon(arm, (0.45, 0.46, 0.48), "pole")
        canvas.disc((0.75 * x, height - 0.12, z), (0.3, 0.14), (0.9, 0.9, 0.85), "pole", 1.0)


def person(canvas: Canvas, x: float, z: float, base: float = 0.0, name: str = "person") -> None:
    """Legs, trunk, arms and head; 1.7 m above ``base``."""
    coat, trousers = canvas.shade(_one(canvas, CLOTHES)), canvas.shade(_one(canvas, CLOTHES))
    step = canvas.number(0.05, 0.2)
    for foot in (-step, step):
        leg = [(x - 0.1, 0.85), (x + 0.1, 0.85), (x + foot + 0.08, 0.0), (x + foot - 0.08, 0.0)]
        canvas.polygon([(u, base + v, z) for u, v in leg], trousers, name)
    trunk = [(x - 0.24, 1.42), (x + 0.24, 1.42), (x + 0.19, 0.75), (x - 0.19, 0.75)]
    canvas.polygon([(u, base + v, z) for u, v in trunk], coat, name)
    canvas.disc((x, base + 1.58, z), (0.12, 0.15), canvas.shade(SKIN, 0.1), name)


def rider(canvas: Canvas, x: float, z: float, name: str) -> None:
    """A person on a bicycle or motorcycle, seen from behind at an angle."""
    frame = canvas.shade(_one(canvas, PAINTS))
    person(canvas, x, z + 0.1, 0.25, "rider")
    tyre = (0.16, 0.34) if name == "bicycle" else (0.26, 0.36)
    for offset in (-0.42, 0.42):
        canvas.disc((x + offset, 0.34, z), tyre, RUBBER, name)
    bar = 0.06 if name == "bicycle" else 0.2
    canvas.polygon(canvas.upright(x - 0.45, x + 0.45, 0.5 - bar, 0.5 + bar, z), frame, name)
    canvas.disc((x, 0.62, z - 0.05), (0.06, 0.05), (0.85, 0.10, 0.10), name, 0.9)


def vehicle(canvas: Canvas, x: float, z: float, name: str) -> None:
    """A box with glass, wheels and lamps; its near face is at ``z``."""
    width, height, length = SIZES[name]
    paint = canvas.shade(_one(canvas, PAINTS))
    left, right, far = x - width / 2, x + width / 2, z + length
    inner = left if x > 0 else right  # the flank that the camera sees
    waist = 0.55 * height if name == "car" else 0.45 * height
    shadow = [(left, 0.0, z), (right, 0.0, z), (right, 0.0, far), (left, 0.0, far)]
    canvas.polygon(shadow, (0.10, 0.10, 0.11), "road")
    canvas.polygon(_along(inner, 0.3, waist, z, far), _darker(paint, 0.8), name)
    roof = (z + 0.2 * length, far - 0.25 * length) if name == "car" else (z, far)
    canvas.polygon(_along(inner * 0.98, waist, height, *roof), _darker(GLASS, 0.9), name)
    for wheel in (z + 0.18 * length, z + 0.8 * length):
        round_ = [(inner, 0.33 + 0.33 * np.sin(t), wheel + 0.33 * np.cos(t)) for t in _turns()]
        canvas.polygon(round_, RUBBER, name)
    _face(canvas, left, right, z, (0.3, waist, height), paint, name)


def _face(
    canvas: Canvas,
    left: float,
    right: float,
    z: float,
    heights: tuple[float, float, float],
    paint: Colour,
    name: str,
) -> None:
    """The face towards the camera: bumper, window, tyres and lamps."""
    low, waist, high = heights
    inset = 0.22 if name == "car" else 0.0
    for side in (left + 0.2, right - 0.2):
        canvas.polygon(canvas.upright(side - 0.12, side + 0.12, 0, 0.4, z), RUBBER, name)
    canvas.polygon(canvas.upright(left, right, low, waist, z), paint, name)
    top = [(left, waist, z), (right, waist, z), (right - inset, high, z), (left + inset, high, z)]
    canvas.polygon(top, paint, name)
    window = canvas.upright(left + inset + 0.12, right - inset - 0.12, waist, high - 0.15, z)
    canvas.polygon(window, GLASS, name, 0.35 if name in ("bus", "train") else 0.0)
    oncoming = left + right < 0
    lamp = (0.95, 0.93, 0.85) if oncoming else (0.80, 0.08, 0.08)
    for side in (left + 0.22, right - 0.22):
        canvas.disc((side, waist - 0.12, z), (0.14, 0.09), lamp, name, 1.0 if oncoming else 0.7)


def _along(x: float, low: float, high: float, near: float, far: float) -> list[Colour]:
    """A rectangle parallel to the road."""
    return [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]


def _turns() -> list[float]:
    return [float(turn) for turn in np.linspace(0, 2 * np.pi, 16, endpoint=False)]


def _one(canvas: Canvas, colours: list[Colour]) -> Colour:
    return colours[int(canvas.generator.integers(len(colours)))]


def _darker(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
