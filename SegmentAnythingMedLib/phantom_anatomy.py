"""An abdomen as implicit solids in body millimetres: x to the patient's left, y to the back, z to the head.

Zero is between the kidneys. `anatomy` lists what is painted, in order, and what is segmented; the truth of a
structure is its own field, so it does not depend on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.phantom_shapes import Shape, Solid, ellipsoid, oval, smooth_max, solid, tube, union

HEART_MM = (30.0, -24.0, 132.0)
_VERTEBRA_MM = 34.0


@dataclass(frozen=True)
class Tissue:
    """How a tissue looks: CT in HU, MR (T2-weighted) in arbitrary units, PET in SUV, ultrasound as echo amplitude.

    ``texture_hu`` is the CT's low-frequency variation; the other kinds vary in proportion.
    """

    CT: float
    MR: float
    PET: float
    US: float
    texture_hu: float = 4.0


AIR = Tissue(-1000, 4, 0.01, 0.0, 0)
COUCH = Tissue(-320, 4, 0.01, 0.0, 0)
SKIN = Tissue(15, 170, 0.5, 0.5)
FAT = Tissue(-104, 640, 0.28, 0.34, 7)
MESENTERY = Tissue(-100, 610, 0.32, 0.38, 8)
MUSCLE = Tissue(55, 135, 0.7, 0.09, 5)
LUNG = Tissue(-860, 25, 0.4, 1.5, 35)
CORTICAL = Tissue(620, 45, 0.7, 1.6, 40)
SPONGY = Tissue(210, 380, 1.2, 1.6, 45)
DISC = Tissue(88, 230, 0.6, 0.5)
CORD = Tissue(28, 820, 1.1, 0.08)
LIVER = Tissue(110, 240, 2.2, 0.20, 4)
LESION = Tissue(60, 500, 8.5, 0.045, 6)
SPLEEN = Tissue(120, 420, 1.8, 0.22, 3)
CORTEX = Tissue(182, 440, 2.9, 0.10, 4)
MEDULLA = Tissue(128, 590, 2.6, 0.03, 4)
SINUS = Tissue(-60, 620, 1.5, 0.7, 8)
PELVIS = Tissue(12, 900, 11.0, 0.02)
GUT_WALL = Tissue(82, 190, 1.5, 0.15, 5)
FLUID = Tissue(20, 880, 0.6, 0.04, 4)
STOOL = Tissue(38, 420, 0.9, 0.5, 45)
GAS = Tissue(-950, 8, 0.3, 1.6, 0)
BILE = Tissue(7, 930, 0.6, 0.004, 2)
VESSEL_WALL = Tissue(48, 150, 1.4, 0.5)
ARTERY = Tissue(235, 70, 1.8, 0.01, 4)
VEIN = Tissue(168, 95, 1.8, 0.01, 4)
PANCREAS = Tissue(98, 270, 1.7, 0.42, 9)
MYOCARDIUM = Tissue(108, 190, 6.5, 0.3, 4)
URINE = Tissue(6, 950, 24.0, 0.004, 2)


@dataclass(frozen=True, eq=False)
class Part:
    """One coat of paint: where, of which tissue, and whether it moves with the heart."""

    tissue: Tissue
    shape: Shape
    beats: bool = False


@dataclass(frozen=True, eq=False)
class Organ:
    """What can be segmented: a name, a colour (r, g, b) in 0 to 1, and its exact solid."""

    name: str
    color: tuple[float, float, float]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts in painting order, the organs in label order, and the warp that makes every seed another patient."""

    parts: tuple[Part, ...]
    organs: tuple[Organ, ...]
    warp_phases: np.ndarray
    warp_mm: float = 3.0
    warp_wavelength_mm: float = 125.0

    def warped(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Body coordinates, shifted by at most ``warp_mm`` along each axis."""
        amplitude = np.float32(self.warp_mm)
        turns = np.float32(2 * np.pi / self.warp_wavelength_mm)
        a, b, c = self.warp_phases.astype(np.float32)
        return (
            x + amplitude * np.sin(turns * (y + z / 2) + a),
            y + amplitude * np.sin(turns * (z + x / 2) + b),
            z + amplitude * np.sin(turns * (x + y / 2) + c),
        )


def anatomy(seed: int, phase: float = 0.0, ribs: bool = True) -> Anatomy:
    """The body of one seed at one phase of the heart beat.

    Parameters
    ----------
    seed
        Chooses the warp, and the lesions' places and sizes.
    phase
        0 is the end of diastole, 0.5 of systole; only the heart depends on it.
    ribs
        False leaves the ribs out, as if an ultrasound probe looked between them.
    """
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, 3)
    cavity, wall_parts = _body_wall()
    spine, spine_parts = _spine()
    lung_parts = _lungs(cavity)
    rib_parts = _ribs() if ribs else []
    kidneys, kidney_parts = _kidneys()
    aorta, cava, vessel_organs, vessel_parts = _great_vessels()
    portal, hepatic = _liver_vessels()
    gallbladder = ellipsoid((-44, -44, -4), (14, 13, 29), (-22, 8, 0))
    ventricle, myocardium, heart_sac, heart_parts = _heart(phase)
    spleen = _spleen(cavity, kidneys[1])
    pancreas = _pancreas().without(kidneys[1], 2).without(spleen, 2).without(aorta, 1)
    liver = _liver(cavity, kidneys, gallbladder).without(cava, 1).without(heart_sac, 0.5).without(pancreas, 2)
    lesion = ellipsoid(
        (-72 + rng.uniform(-8, 8), -4 + rng.uniform(-12, 12), 34 + rng.uniform(-10, 10)), rng.uniform(13, 19, 3)
    )
    second = ellipsoid((-42 + rng.uniform(-6, 6), -38 + rng.uniform(-6, 6), 58), rng.uniform(6, 9, 3))
    lesion, second = lesion.within(liver), second.within(liver)
    stomach = _stomach().without(liver, 2).without(spleen, 3).without(pancreas, 2).without(kidneys[1], 3)
    stomach = stomach.without(heart_sac, 0.5).without(aorta, 2)
    colon = _colon().without(liver, 2).without(spleen, 2).without(stomach, 2).without(kidneys[0], 3)
    bladder = ellipsoid((0, -28, -205), (38, 30, 30), squareness=0.2)
    colon = colon.without(kidneys[1], 3).without(gallbladder, 1).without(bladder, 2)
    bowel = _small_bowel(rng).without(colon, 2).without(stomach, 2).without(pancreas, 2).without(liver, 3)
    parts = [
        *wall_parts, *lung_parts, *rib_parts, *spine_parts,
        *_gut(bowel, 2.2, FLUID, _bubbles(-40, 8)), *_gut(colon, 2.5, STOOL, _above(-30, 9)),
        *vessel_parts, Part(LIVER, liver), Part(VEIN, portal), Part(VEIN, hepatic),
        Part(LESION, lesion), Part(LESION, second), Part(SPLEEN, spleen), *kidney_parts, Part(PANCREAS, pancreas),
        Part(VEIN, _splenic_vein()), *_gut(stomach, 3.5, FLUID, _above(-24, 0)),
        Part(GUT_WALL, gallbladder), Part(BILE, gallbladder.grown(-2.5)),
        Part(MUSCLE, bladder), Part(URINE, bladder.grown(-3.5)), *heart_parts,
    ]  # fmt: skip
    organs = (
        Organ("liver", (0.87, 0.51, 0.40), liver),
        Organ("spleen", (0.62, 0.42, 0.64), spleen),
        Organ("right kidney", (0.80, 0.42, 0.33), kidneys[0]),
        Organ("left kidney", (0.73, 0.40, 0.45), kidneys[1]),
        Organ("stomach", (0.85, 0.62, 0.41), stomach),
        Organ("pancreas", (0.98, 0.71, 0.44), pancreas),
        Organ("gallbladder", (0.55, 0.69, 0.38), gallbladder),
        Organ("gallbladder wall", (0.36, 0.54, 0.30), gallbladder.wall(2.5)),
        Organ("colon", (0.80, 0.65, 0.56), colon),
        Organ("spine", (0.95, 0.84, 0.57), spine.without(aorta)),
        *vessel_organs,
        Organ("portal vein", (0.20, 0.45, 0.85), portal),
        Organ("bladder", (0.87, 0.80, 0.40), bladder),
        Organ("left ventricle", (0.85, 0.25, 0.25), ventricle),
        Organ("myocardium", (0.75, 0.45, 0.45), myocardium),
        Organ("liver lesion", (1.00, 0.90, 0.25), lesion),
        Organ("small liver lesion", (0.95, 0.70, 0.20), second),
    )
    return Anatomy(tuple(parts), organs, phases)


def _ring(x: np.ndarray, y: np.ndarray, z: np.ndarray, half: tuple[float, float], middle: float) -> np.ndarray:
    """Distance in mm (roughly) from the trunk's outline: narrower at the waist, flatter at the back."""
    waist = 1 - np.float32(0.05) * np.exp(-(((z + 55) / 75) ** 2))
    u, v = x / (half[0] * waist), (y - np.float32(middle)) / half[1]
    flat = np.float32(0.06) * np.maximum(v, 0)
    return (oval(u, v * (1 + flat), 0.42) - 1) * np.float32(half[1])


def _body_wall() -> tuple[Solid, list[Part]]:
    body = solid(lambda x, y, z: _ring(x, y, z, (143, 103), 0), (-160, -112, -9e3), (160, 112, 9e3))
    wall = solid(lambda x, y, z: _ring(x, y, z, (125, 90), 1), (-140, -104, -9e3), (140, 104, 9e3))
    cavity = solid(lambda x, y, z: _ring(x, y, z, (113, 79), -2), (-130, -94, -9e3), (130, 94, 9e3))
    couch = solid(
        lambda x, y, z: np.maximum(np.abs(y - 116 + (x / 38) ** 2) - 1.2, np.abs(x) - 185),
        (-185, 88, -9e3),
        (185, 120, 9e3),
    )

    def muscles(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        side = np.abs(x)
        erector = (oval((side - 29) / 23, (y - 76) / 14, 0.35) - 1) * 14
        lower = np.clip((60 - z) / 130, 0, 1.25)
        psoas = (oval((side - 30 - 6 * lower) / (6 + 12 * lower), (y - 42) / (7 + 10 * lower), 0.1) - 1) * 10
        lumbar = np.maximum((oval((side - 66) / 17, (y - 60) / 8, 0.2) - 1) * 9, z - 18)
        return np.minimum(np.minimum(erector, psoas), lumbar)

    crura = tube([(-14, 24, 120), (-15, 20, 60), (-15, 26, 10), (-12, 28, -20)], [5, 7, 6, 2])
    other = tube([(24, 26, 120), (25, 22, 60), (23, 26, 10), (18, 28, -20)], [5, 6, 5, 2])
    parts = [
        Part(COUCH, couch),
        Part(SKIN, body),
        Part(FAT, body.grown(-2.2)),
        Part(MUSCLE, wall),
        Part(MESENTERY, cavity),
    ]
    parts.append(Part(MUSCLE, solid(muscles, (-90, 10, -9e3), (90, 96, 9e3))))
    return cavity, [*parts, Part(MUSCLE, crura), Part(MUSCLE, other)]


def _dome(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the diaphragm."""
    right = 104 - np.float32(0.011) * ((x + 52) ** 2 + (y + 12) ** 2)
    left = 96 - np.float32(0.012) * ((x - 52) ** 2 + (y + 8) ** 2)
    return smooth_max(right, left, 24)


def _lungs(cavity: Solid) -> list[Part]:
    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        middle = 26 - np.sqrt((x / 1.3) ** 2 + np.minimum(y - 20, 0) ** 2 / 9 + np.float32(0.1))
        inside = np.maximum(cavity.field(x, y, z) - 1, (_dome(x, y) + 4 - z) * np.float32(0.7))
        return smooth_max(inside, middle, 8)

    return [Part(LUNG, solid(field, (-132, -96, -20), (132, 96, 9e3)))]


def _ribs() -> list[Part]:
    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        front = (90 - y) / 180
        height = z + 105 * front - 8 * np.minimum(np.abs(x) / 30, 1)
        between = (height + 13) % 27 - 13.5
        shell = _ring(x, y, z, (119, 84.5), -0.5)
        rib = (oval(shell / np.float32(3.6), between / np.float32(6.5), 0.3) - 1) * np.float32(3.6)
        margin = (165 * front - 48 + 12 * np.sin(x / 20) - z) * np.float32(0.6)
        return np.maximum(np.maximum(rib, margin), 26 - np.abs(x))

    ribs = solid(field, (-136, -98, -60), (136, 98, 9e3))
    return [Part(CORTICAL, ribs), Part(SPONGY, ribs.grown(-1.5))]


def _spine() -> tuple[Shape, list[Part]]:
    period = np.float32(_VERTEBRA_MM)

    def level(z: np.ndarray) -> np.ndarray:
        return (z + period / 2) % period - period / 2

    def column(x: np.ndarray, y: np.ndarray, waist: np.ndarray | float) -> np.ndarray:
        side = (oval(x / (23 + waist), (y - 43) / (17.5 + waist), 0.25) - 1) * np.float32(17.5)
        hollow = 24 - np.sqrt(x * x + (y - 82) ** 2)
        return smooth_max(side, hollow, 6)

    def bodies(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        height = level(z)
        return smooth_max(column(x, y, 2.5 * (height / 13) ** 2 - 1.5), np.abs(height) - np.float32(13.2), 3)

    def arches(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        height, side = level(z), np.abs(x)
        pedicle = np.maximum(oval((side - 14) / 5, (height - 4) / 7, 0.2) * 5 - 5, np.abs(y - 64) - 9)
        radius = np.sqrt(x * x + (y - 69) ** 2)
        lamina = np.maximum(np.maximum(np.abs(radius - 13.5) - 2.8, 66 - y), np.abs(height + 3) - 9)
        slope = (height + 8 + (y - 84) / 3) / 2
        spinous = np.maximum(oval(x / 3.4, slope / 3.4, 0.2) * 3.4 - 3.4, np.abs(y - 87) - 9)
        transverse = np.maximum(oval((y - 69 - side / 12) / 4, (height - 4) / 5.5) * 4 - 4, np.abs(side - 26) - 15)
        facet = (oval((side - 18) / 7, (y - 75) / 6.5, 0.2) - 1) * 6 + np.maximum(np.abs(height - 14) - 9, 0)
        return np.minimum(np.minimum(np.minimum(pedicle, lamina), np.minimum(spinous, transverse)), facet)

    box = (-46, 20, -9e3), (46, 102, 9e3)
    body, arch = solid(bodies, *box), solid(arches, *box)
    disc = solid(lambda x, y, z: column(x, y, 0.0), *box)
    canal = solid(lambda x, y, z: (oval(x / 11.5, (y - 69) / 8.5, 0.1) - 1) * 8.5, *box)
    bone = union([body, arch]).without(canal)
    parts = [Part(DISC, disc), Part(CORTICAL, bone), Part(SPONGY, union([body.grown(-1.6), arch.grown(-2.2)]))]
    fat_ring = canal.grown(0.5)
    return bone, [*parts, Part(FAT, fat_ring), Part(CORD, canal.grown(-2.5))]


def _liver(cavity: Solid, kidneys: list[Shape], gallbladder: Shape) -> Shape:
    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        outer = cavity.field(x, y, z) + np.float32(1.2)
        top = (z - _dome(x, y)) * np.float32(0.75)
        below = (x + 24) * np.float32(0.60) + (y - 2) * np.float32(0.34) - (z + 2) * np.float32(0.72)
        below = below + 5 * np.sin(y / 19 + 1) + 3 * np.sin(z / 23)
        left = (x - 62) * np.float32(0.80) + (y + 40) * np.float32(0.55)
        bulk = smooth_max(smooth_max(outer, top, 14), smooth_max(below, left, 30), 22)
        column = 36 - np.sqrt((x + 2) ** 2 + (y - 42) ** 2)
        behind = (x + 88) * np.float32(0.6) + (y - 44) * np.float32(0.7) - np.maximum(z - 40, 0) + 3 * np.sin(z / 17)
        bulk = smooth_max(bulk, behind, 8)
        cleft = 2.2 - oval(x - 4, np.maximum(y + 56, 0) / 3, 0.0) - np.maximum(z - 52, 0) / 9
        return smooth_max(smooth_max(bulk, column, 10), cleft, 6)

    whole = solid(field, (-128, -92, -105), (100, 90, 112))
    return whole.without(gallbladder, 0.8).without(kidneys[0], 3).without(kidneys[1], 3)


def _liver_vessels() -> tuple[Shape, Shape]:
    portal = union(
        [
            tube([(-2, -8, 2), (-14, -10, 14), (-30, -8, 26), (-44, -4, 32)], [7.5, 7.5, 7, 6]),
            tube([(-44, -4, 32), (-60, 4, 40), (-80, 14, 46), (-94, 18, 48)], [6, 4.6, 3.4, 1.8]),
            tube([(-44, -4, 32), (-62, -18, 26), (-80, -26, 16), (-92, -30, 6)], [5.5, 4.2, 3, 1.6]),
            tube([(-30, -8, 26), (-20, -26, 42), (-4, -44, 52), (18, -54, 56)], [5.5, 4.6, 3.6, 1.8]),
        ],
        3,
    )
    meeting = (-19, 12, 84)
    hepatic = union(
        [
            tube([meeting, (-44, 18, 76), (-72, 20, 62), (-92, 6, 44)], [5, 4.4, 3.4, 1.6]),
            tube([meeting, (-36, -12, 74), (-54, -32, 58), (-66, -46, 40)], [5, 4.4, 3.4, 1.6]),
            tube([meeting, (-12, -14, 80), (2, -34, 70), (16, -46, 66)], [5, 4, 3, 1.6]),
        ],
        3,
    )
    return portal, hepatic


def _great_vessels() -> tuple[Shape, Shape, list[Organ], list[Part]]:
    artery = union(
        [
            tube([(14, 22, 190), (11, 17, 110), (7, 14, 40), (5, 12, -20), (3, 10, -84)], [12, 11, 10, 9.5, 9]),
            tube([(3, 10, -84), (22, 12, -112), (40, 22, -150), (52, 12, -200)], [7.5, 6.5, 5.5, 5]),
            tube([(3, 10, -84), (-18, 12, -112), (-38, 22, -150), (-50, 12, -200)], [7.5, 6.5, 5.5, 5]),
        ],
        4,
    )
    mesenteric = tube([(6, 8, 14), (4, -6, 6), (3, -14, -10), (-6, -20, -50), (-16, -24, -80)], [4, 4, 3.8, 3, 2])
    celiac = tube([(8, 8, 30), (6, -6, 32), (-8, -12, 30), (-24, -14, 28)], [4, 4, 3.2, 2.4])
    renal = [
        tube([(6, 13, 2), (20, 20, 2), (34, 28, 4), (42, 33, 6)], [4, 3.6, 3.2, 2.6]),
        tube([(5, 13, 0), (-16, 26, -2), (-30, 29, -4), (-42, 33, -4)], [4, 3.6, 3.2, 2.6]),
    ]
    cava = tube([(-22, -2, 120), (-19, 10, 90), (-20, 12, 40), (-19, 13, -20), (-15, 16, -90)], [13, 12, 11, 11, 10])
    iliac = [
        tube([(-15, 16, -90), (-24, 20, -118), (-44, 28, -155), (-54, 18, -200)], [8, 7, 6.5, 6]),
        tube([(-15, 16, -90), (14, 20, -118), (44, 28, -155), (56, 18, -200)], [8, 7, 6.5, 6]),
    ]
    veins = [
        tube([(-18, 12, -2), (-30, 22, -6), (-42, 30, -8)], [5, 4.5, 3.5]),
        tube([(-16, 8, 2), (6, -1, 2), (26, 18, 4), (42, 30, 4)], [5, 4, 4.5, 3.5]),
    ]
    superior = tube([(-2, -10, 2), (-6, -18, -12), (-16, -24, -50), (-28, -28, -82)], [6.5, 6, 5, 2.5])
    parts = [Part(VEIN, union([cava, *iliac])), *(Part(VEIN, vein) for vein in [*veins, superior])]
    parts += [Part(ARTERY, vessel) for vessel in [*renal, mesenteric, celiac]]
    parts += [Part(VESSEL_WALL, artery), Part(ARTERY, artery.grown(-1.8))]
    organs = [
        Organ("aorta", (0.88, 0.38, 0.30), artery),
        Organ("aorta wall", (0.95, 0.60, 0.50), artery.wall(1.8)),
        Organ("inferior vena cava", (0.10, 0.59, 0.81), cava.without(artery)),
    ]
    return artery, cava, organs, parts


def _kidneys() -> tuple[list[Shape], list[Part]]:
    wholes: list[Shape] = []
    parts: list[Part] = []
    for side, height in ((-1, -4.0), (1, 6.0)):
        bean = ellipsoid((side * 61, 41, height), (24, 21, 54), (10, side * -9, side * -22), 0.12)
        hilum = ellipsoid((side * 38, 30, height), (20, 11, 17), (0, 0, side * 22))

        def whole_field(
            x: np.ndarray, y: np.ndarray, z: np.ndarray, bean: Solid = bean, hilum: Solid = hilum
        ) -> np.ndarray:
            return smooth_max(bean.field(x, y, z), -hilum.field(x, y, z), 9)

        def pyramids(
            x: np.ndarray, y: np.ndarray, z: np.ndarray, bean: Solid = bean, side: int = side, height: float = height
        ) -> np.ndarray:
            around = np.arctan2(y - 38, np.abs(x) - 50)
            pattern = np.cos(around * 3) + np.cos((z - np.float32(height)) * np.float32(0.36))
            return np.maximum(bean.field(x, y, z) + 7, (np.float32(0.15) - pattern) * 5)

        kidney = solid(whole_field, bean.low, bean.high)
        sinus = ellipsoid((side * 53, 37, height), (13, 8, 26), (8, side * -9, side * -22)).within(kidney.grown(-2))
        pelvis = union(
            [
                ellipsoid((side * 46, 34, height), (9, 5, 9), (0, 0, side * 22)),
                tube([(side * 50, 36, height - 16), (side * 46, 34, height), (side * 52, 36, height + 17)], [3, 4, 3]),
                tube([(side * 44, 34, height - 4), (side * 36, 34, -40), (side * 34, 26, -90)], [3.5, 2.2, 2.0]),
            ],
            3,
        )
        wholes.append(kidney)
        parts += [Part(CORTEX, kidney), Part(MEDULLA, solid(pyramids, bean.low, bean.high).within(kidney))]
        parts += [Part(SINUS, sinus), Part(PELVIS, pelvis)]
    return wholes, parts


def _spleen(cavity: Solid, kidney: Shape) -> Shape:
    bulk = ellipsoid((80, 28, 50), (36, 54, 60), (18, 0, 28), 0.1)
    medial = ellipsoid((44, 12, 52), (32, 46, 60), (0, 0, 20))

    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        inside = smooth_max(bulk.field(x, y, z), cavity.field(x, y, z) + 3, 8)
        dome = (z - _dome(x, y) + 1) * np.float32(0.7)
        return smooth_max(smooth_max(inside, -medial.field(x, y, z), 8), dome, 8)

    return solid(field, bulk.low, bulk.high).without(kidney, 4)


def _pancreas() -> Shape:
    path = [(-26, -10, -18), (-22, -16, -4), (-4, -24, 8), (16, -20, 16), (36, 2, 24), (56, 22, 34)]
    lobes = tube(path, [11, 12.5, 8, 9, 9.5, 7])
    return lobes.rippled(lambda x, y, z: np.sin(x * np.float32(0.62)) * np.sin(z * np.float32(0.7) + y / 2))


def _splenic_vein() -> Shape:
    return tube([(-4, -10, 4), (14, -8, 14), (34, 12, 25), (54, 30, 38)], [4.5, 4, 3.6, 2.6])


def _stomach() -> Shape:
    path = [(44, 12, 78), (54, -8, 58), (56, -28, 28), (34, -42, 0), (4, -42, -4), (-18, -32, 6)]
    return tube(path, [27, 30, 27, 20, 14, 6], steps=4)


def _colon() -> Shape:
    path = [
        (-76, -8, -150), (-84, 2, -110), (-86, 8, -70), (-80, 0, -44), (-58, -44, -42), (-20, -60, -56), (20, -60, -52),
        (56, -48, -24), (80, -8, 2), (88, 22, -6), (88, 26, -50), (86, 22, -100), (74, 10, -150), (40, 20, -180),
        (8, 14, -192), (2, 18, -240),
    ]  # fmt: skip
    radii = [24, 24, 22, 20, 17, 16, 16, 15, 15, 14, 13, 13, 14, 15, 16, 18]

    def haustra(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        folds = np.sin((z + 0.7 * x) * np.float32(0.26)) * np.cos((y - 0.4 * x) * np.float32(0.17))
        return np.float32(2.2) * folds

    return tube(path, radii, steps=2).rippled(haustra)


def _small_bowel(rng: np.random.Generator) -> Shape:
    loops = []
    for level in (-30, -56, -82, -108, -134):
        for row in range(3 if level > -60 else 4):
            turns = rng.uniform(0, 2 * np.pi) + np.arange(9) * rng.uniform(1.9, 2.6)
            x = np.linspace(-60, 60, 9) + rng.uniform(-5, 5, 9)
            y = -56 + 20 * row + 7 * np.cos(turns * 1.3)
            y = np.minimum(y, np.where(np.abs(x) < 26, -4, 22))
            loops.append(tube(np.stack([x, y, level + 15 * np.sin(turns)], axis=1), rng.uniform(7, 10.5, 9), steps=2))
    return union(loops)


def _gut(outer: Shape, wall_mm: float, content: Tissue, gas: Shape) -> list[Part]:
    lumen = outer.grown(-wall_mm)
    return [Part(GUT_WALL, outer), Part(content, lumen), Part(GAS, gas.within(lumen))]


def _above(level_y: float, swing_mm: float) -> Shape:
    """Gas of a patient on the back: everything in front of a level that changes slowly along the body."""
    return solid(lambda x, y, z: y - np.float32(level_y) - np.float32(swing_mm) * np.sin(z / 17 + x / 29))


def _bubbles(level_y: float, swing_mm: float) -> Shape:
    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return y - np.float32(level_y) + np.float32(3 * swing_mm) * (1 + np.sin(z / 11 + 2) + np.sin(x / 13))

    return solid(field)


def _heart(phase: float) -> tuple[Shape, Shape, Shape, list[Part]]:
    """Left ventricle (blood), myocardium (a ring), the sac around both; the wall thickens as the pool shrinks."""
    squeeze = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    rest = np.array([22.0, 21.0, 38.0])
    pool = rest * (1 - np.array([0.32, 0.32, 0.16]) * squeeze)
    wall_mm = 9.0 + 4.0 * squeeze
    tilt = (-52, 0, -38)
    ventricle = ellipsoid(HEART_MM, pool, tilt)
    outer = ellipsoid(HEART_MM, pool + wall_mm, tilt)
    right = ellipsoid((0, -44, 130), np.array([34, 24, 40]) * (1 - 0.12 * squeeze), (-20, 0, -20)).without(outer, 1)
    sac = union([ellipsoid(HEART_MM, rest + 15, tilt), ellipsoid((0, -44, 130), (41, 31, 47), (-20, 0, -20))])
    parts = [Part(FAT, sac, True), Part(MYOCARDIUM, right, True), Part(VEIN, right.grown(-3.5), True)]
    parts += [Part(MYOCARDIUM, outer, True), Part(ARTERY, ventricle, True)]
    return ventricle, outer.without(ventricle), sac, parts
