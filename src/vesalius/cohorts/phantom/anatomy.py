# SPDX-License-Identifier: Apache-2.0
"""One simulated torso: superellipsoids bent by smooth random waves, painted on any grid.

Frame: RAS+ millimeters, origin in the middle of the upper abdomen. The shapes are ours; sizes are
those of adults in anatomy textbooks, to a few millimeters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.cohorts.phantom.physics import Tissue
from vesalius.types import Affine, Array, Shape3

# label value -> (name, tissues)
STRUCTURES: dict[int, tuple[str, tuple[Tissue, ...]]] = {
    1: ("liver", (Tissue.LIVER, Tissue.LIVER_VESSEL)),
    2: ("spleen", (Tissue.SPLEEN,)),
    3: ("kidneys", (Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA)),
    4: ("spine", (Tissue.VERTEBRA, Tissue.VERTEBRA_SHELL, Tissue.DISC)),
    5: ("lesion", (Tissue.CYST, Tissue.TUMOR)),
}
STRUCTURE_NAMES = tuple(name for name, _ in STRUCTURES.values())
LABEL_OF_TISSUE: Array = np.zeros(len(Tissue), np.uint8)
for _value, (_name, _tissues) in STRUCTURES.items():
    LABEL_OF_TISSUE[list(_tissues)] = _value

_VERTEBRA_MM = 34.0


@dataclass(frozen=True, slots=True)
class Waves:
    """A smooth random function of space: a sum of sines, each of the given amplitude."""

    vectors: Array  # (n, 3), radians per millimeter
    phases: Array  # (n,)
    amplitude: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, amplitude: float, wavelength: tuple[float, float], n: int = 3
    ) -> Waves:
        """Draw `n` waves with directions at random and lengths (mm) in a range."""
        directions = rng.normal(size=(n, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = rng.uniform(*wavelength, size=(n, 1))
        vectors = directions * 2 * np.pi / lengths
        return cls(vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, n), amplitude)

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """Return the value at points given by three broadcastable float32 arrays."""
        total: Array = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
        for (a, b, c), phase in zip(self.vectors, self.phases, strict=True):
            total += np.sin(a * x + b * y + c * z + np.float32(phase))
        return total * np.float32(self.amplitude)

    def on_grid(self, affine: Affine, shape: Shape3) -> Array:
        """Return the value at a grid's voxel centers: a wave is a product over the three axes."""
        total: Array = np.zeros(shape, np.float32)
        for vector, phase in zip(self.vectors.astype(np.float64), self.phases, strict=True):
            i, j, k = (
                np.exp(1j * (vector @ affine[:3, axis]) * np.arange(n))
                for axis, n in enumerate(shape)
            )
            i = i * np.exp(1j * (vector @ affine[:3, 3] + phase))
            plane = np.multiply.outer(i, j)
            # the imaginary part of the product, in real arithmetic
            total += np.multiply.outer(plane.imag.astype(np.float32), k.real.astype(np.float32))
            total += np.multiply.outer(plane.real.astype(np.float32), k.imag.astype(np.float32))
        return total * np.float32(self.amplitude)


@dataclass(frozen=True, slots=True)
class Blob:
    """An ellipsoid with a wavy surface."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    rotation: Array  # (3, 3)
    surface: Waves

    def level(self, x: Array, y: Array, z: Array) -> Array:
        """Return the relative radius: 1 on the surface, 0 at the center."""
        dx, dy, dz = (p - np.float32(c) for p, c in zip((x, y, z), self.center, strict=True))
        square: Array = np.zeros((), np.float32)
        for row, radius in zip(self.rotation, self.radii, strict=True):
            a, b, c = (row / radius).astype(np.float32)
            square = square + (a * dx + b * dy + c * dz) ** 2
        relative: Array = np.sqrt(square) / (1 + self.surface(x, y, z))
        return relative


@dataclass(frozen=True, slots=True)
class Lesion:
    """A focal lesion of the liver, in world millimeters."""

    kind: str  # "cyst" | "tumor"
    diameter_mm: float
    center: tuple[float, float, float]
    lobe: str  # "right" | "left"
    blob: Blob


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Everything that decides which tissue fills a point of one patient."""

    half_width: float
    half_depth: float
    fat_mm: float
    wall_mm: float
    scale: tuple[float, float, float]
    bend: tuple[Waves, Waves, Waves]
    organs: dict[str, Blob]
    bowel: tuple[tuple[Blob, bool], ...]  # with or without gas
    vessels: tuple[tuple[Array, Array, float], ...]  # ends and radius, inside the liver
    disc_phase: float
    lesions: tuple[Lesion, ...]

    def tissues(self, affine: Affine, shape: Shape3, *, couch: bool = False) -> Array:
        """Return the `Tissue` at each voxel center of a grid, uint8 `(i, j, k)`."""
        out = np.zeros(shape, np.uint8)
        box = self._around_body(affine, shape)
        part = affine.copy()
        part[:3, 3] += affine[:3, :3] @ [each.start for each in box]
        x, y, z = _world(part, out[box].shape)
        out[box] = self.tissues_at(x, y, z, affine=part)
        if couch:
            x, y, z = _world(affine, shape)
            below = y + np.float32(1.12 * self.half_depth * self.scale[1])
            curved = below - (x / 260) ** 2 * 60
            plate = (curved < 0) & (curved > -9) & (np.abs(x) < 190)
            out[plate & (out == Tissue.AIR)] = Tissue.COUCH
        return out

    def _around_body(self, affine: Affine, shape: Shape3) -> tuple[slice, slice, slice]:
        """Return the part of a grid outside of which there is only air."""
        half = np.array([self.half_width, self.half_depth]) * self.scale[:2] + 8
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
        heights = (affine[:3, :3] @ ends + affine[:3, 3:])[2]
        corners = np.array(
            np.meshgrid([-half[0], half[0]], [-half[1], half[1]], [heights.min(), heights.max()])
        ).reshape(3, -1)
        inverse = np.linalg.inv(affine)
        index = inverse[:3, :3] @ corners + inverse[:3, 3:]
        i, j, k = (
            slice(max(0, int(low)), max(1, min(n, int(high) + 2)))
            for low, high, n in zip(index.min(axis=1), index.max(axis=1), shape, strict=True)
        )
        return i, j, k

    def tissues_at(self, x: Array, y: Array, z: Array, *, affine: Affine | None = None) -> Array:
        """Return the `Tissue` at points; `affine` tells that they form a grid, to save time."""
        world = (x, y, z)
        x, y, z = (
            (p + (wave(*world) if affine is None else wave.on_grid(affine, x.shape)))
            / np.float32(s)
            for p, wave, s in zip(world, self.bend, self.scale, strict=True)
        )
        inverse: Affine | None = (
            None if affine is None else np.linalg.inv(affine).astype(np.float64)
        )
        out = np.zeros(x.shape, np.uint8)

        waist = 1 - 0.05 * np.exp(-(((z + 60) / 60) ** 2))
        across, along = np.abs(x / (self.half_width * waist)), np.abs(y / self.half_depth)
        radius = across**2 * np.sqrt(across) + along**2 * np.sqrt(along)  # exponent 2.5
        depth = self.half_depth * (1 - radius ** np.float32(0.4))
        inside, cavity = depth > 0, depth > self.fat_mm + self.wall_mm
        out[inside] = Tissue.FAT
        out[depth > self.fat_mm] = Tissue.MUSCLE
        out[cavity] = Tissue.FAT
        slanted = z - 0.35 * y
        ribs = (depth > self.fat_mm + 3) & (depth < self.fat_mm + 10) & (y < 0.8 * self.half_depth)
        ribs &= (np.mod(slanted / 27, 1) < 0.4) & (z > 10 - 0.5 * np.abs(x) + 0.35 * y)
        out[ribs] = Tissue.RIB

        def window(name_or_blob: str | Blob, grow: float = 1.0) -> tuple[Blob, tuple[slice, ...]]:
            blob = self.organs[name_or_blob] if isinstance(name_or_blob, str) else name_or_blob
            return blob, self._window(blob, inverse, out.shape, grow)

        def paint(blob: str | Blob, tissue: Tissue, *, only: Array | None = None) -> None:
            shape, box = window(blob)
            hit = shape.level(x[box], y[box], z[box]) < 1
            if only is not None:
                hit &= only[box]
            out[box][hit] = tissue

        def paint_hollow(blob: Blob, content: Tissue, gas: bool) -> None:
            shape, box = window(blob)
            level = shape.level(x[box], y[box], z[box])
            out[box][(level < 1) & cavity[box]] = Tissue.BOWEL
            lumen = (level < 0.8) & cavity[box]
            out[box][lumen] = content
            if gas:  # rises to the front of a supine patient
                out[box][lumen & (y[box] > shape.center[1] + 0.15 * shape.radii[1])] = Tissue.GAS

        for loop, gas in self.bowel:
            paint_hollow(loop, Tissue.BOWEL, gas)
        for side in ("right lung", "left lung"):
            paint(side, Tissue.LUNG, only=depth > self.fat_mm + 0.75 * self.wall_mm)
        paint("heart", Tissue.HEART)
        paint("heart chambers", Tissue.BLOOD)
        paint_hollow(self.organs["stomach"], Tissue.FLUID, True)
        for side in ("right kidney", "left kidney"):
            blob, box = window(side, 1.3)
            level = blob.level(x[box], y[box], z[box])
            out[box][(level < 1.25) & cavity[box]] = Tissue.FAT
            out[box][level < 1] = Tissue.KIDNEY_CORTEX
            out[box][level < 0.68] = Tissue.KIDNEY_MEDULLA
            out[box][level < 0.3] = Tissue.FAT
        paint("spleen", Tissue.SPLEEN, only=cavity)
        for lobe in ("liver right", "liver left"):
            paint(lobe, Tissue.LIVER, only=cavity)
        self._paint_liver_vessels(out, x, y, z, inverse)
        self._paint_spine(out, x, y, z, inside)
        self._paint_lesions(out, world, inverse)
        return out

    def _window(
        self, blob: Blob, inverse: Affine | None, shape: tuple[int, ...], grow: float
    ) -> tuple[slice, ...]:
        """Return the part of the grid that a blob, bent and scaled, can reach."""
        if inverse is None:
            return (slice(None),) * len(shape)
        center = np.append(np.asarray(blob.center) * self.scale, 1)
        reach = max(blob.radii) * max(self.scale) * grow * 1.12 + 8
        middle = (inverse @ center)[:3]
        half = np.linalg.norm(inverse[:3, :3], axis=1) * reach
        return tuple(
            slice(max(0, int(m - h)), max(0, int(m + h) + 2))
            for m, h in zip(middle, half, strict=True)
        )

    def _paint_liver_vessels(
        self, out: Array, x: Array, y: Array, z: Array, inverse: Affine | None
    ) -> None:
        box = self._window(self.organs["liver right"], inverse, out.shape, 1.3)
        inner = out[box]
        liver = inner == Tissue.LIVER
        px, py, pz = x[box][liver], y[box][liver], z[box][liver]
        hit = np.zeros(px.shape, bool)
        for start, end, radius in self.vessels:
            axis = (end - start).astype(np.float32)
            length = float(axis @ axis)
            dx, dy, dz = px - start[0], py - start[1], pz - start[2]
            along = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length, 0, 1)
            gap = (dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2
            gap += (dz - along * axis[2]) ** 2
            hit |= gap < (radius * (1 - 0.4 * along)) ** 2
        inner[liver] = np.where(hit, np.uint8(Tissue.LIVER_VESSEL), np.uint8(Tissue.LIVER))

    def _paint_spine(self, out: Array, x: Array, y: Array, z: Array, inside: Array) -> None:
        center_y = -0.58 * self.half_depth
        near = np.abs(x) < 62
        near &= (y < center_y + 60) & inside
        px, py, pz = x[near], y[near], z[near]
        tissue = out[near]
        for side in (-1, 1):  # muscles along the spine
            muscle = ((px - side * 32) / 27) ** 2 + ((py - center_y + 26) / 24) ** 2 < 1
            tissue[muscle] = Tissue.MUSCLE
        for px0, py0, r in ((-14, center_y + 33, 10.5), (19, center_y + 36, 11.5)):
            tissue[(px - px0) ** 2 + (py - py0) ** 2 < r * r] = Tissue.BLOOD  # aorta, vena cava
        body = np.sqrt((px / 23) ** 2 + ((py - center_y) / 17.5) ** 2)
        height = np.mod(pz / _VERTEBRA_MM + self.disc_phase, 1)  # discs take the last fifth
        body = body + 0.08 * np.cos(2 * np.pi * (height - 0.9))
        disc = height > 0.8
        tissue[(body < 1) & ~disc] = Tissue.VERTEBRA_SHELL
        tissue[(body < 0.88) & (height > 0.05) & (height < 0.75)] = Tissue.VERTEBRA
        tissue[(body < 1) & disc] = Tissue.DISC
        arch_y = center_y - 27
        arch = np.sqrt((px / 19) ** 2 + ((py - arch_y) / 14) ** 2)
        bony = (height > 0.15) & (height < 0.85)
        tissue[(arch < 1) & (body >= 1) & bony] = Tissue.VERTEBRA_SHELL
        spinous = (np.abs(px) < 4.5) & (py < arch_y) & (py > arch_y - 30)
        tissue[spinous & (height > 0.3) & (height < 0.8)] = Tissue.VERTEBRA_SHELL
        transverse = (np.abs(px) < 38) & (np.abs(py - arch_y) < 5) & (np.abs(height - 0.5) < 0.15)
        tissue[transverse] = Tissue.VERTEBRA_SHELL
        canal = (px / 10.5) ** 2 + ((py - arch_y) / 8) ** 2 < 1
        tissue[canal & (body >= 1)] = Tissue.CANAL
        out[near] = tissue

    def _paint_lesions(
        self, out: Array, world: tuple[Array, Array, Array], inverse: Affine | None
    ) -> None:
        for lesion in self.lesions:
            blob = lesion.blob
            if inverse is None:
                box: tuple[slice, ...] = (slice(None),) * out.ndim
            else:
                middle = (inverse @ np.append(blob.center, 1))[:3]
                half = np.linalg.norm(inverse[:3, :3], axis=1) * max(blob.radii) * 1.8
                box = tuple(
                    slice(max(0, int(m - h)), max(0, int(m + h) + 2))
                    for m, h in zip(middle, half, strict=True)
                )
            px, py, pz = (np.broadcast_to(p, out.shape)[box] for p in world)
            hit = blob.level(px, py, pz) < 1
            inner = out[box]
            hit &= (inner == Tissue.LIVER) | (inner == Tissue.LIVER_VESSEL)
            inner[hit] = Tissue.CYST if lesion.kind == "cyst" else Tissue.TUMOR


def draw_anatomy(
    rng: np.random.Generator, *, female: bool, lesions: tuple[tuple[str, float], ...]
) -> Anatomy:
    """Draw one person; `lesions` are (kind, diameter in mm), placed at random inside the liver."""
    size = rng.normal(0.96 if female else 1.02, 0.03)
    girth = rng.normal(1, 0.045)
    fat_mm = float(rng.uniform(8, 20) * (1.15 if female else 1))

    def blob(
        center: tuple[float, float, float],
        radii: tuple[float, float, float],
        *,
        wave: float = 0.035,
        tilt: float = 6.0,
    ) -> Blob:
        move = rng.normal(0, 3.5, 3)
        grow = rng.normal(1, 0.06, 3).clip(0.85, 1.18)
        return Blob(
            _triple(np.asarray(center) + move),
            _triple(np.asarray(radii) * grow),
            _rotation(rng.normal(0, tilt, 3)),
            Waves.draw(rng, wave, (50, 120)),
        )

    heart = blob((-22, 32, 118), (52, 44, 44), tilt=15)
    organs = {
        "right lung": blob((76, -8, 128), (60, 80, 92)),
        "left lung": blob((-80, -12, 128), (56, 80, 92)),
        "heart": heart,
        "heart chambers": Blob(
            heart.center, _triple(0.72 * np.asarray(heart.radii)), heart.rotation, heart.surface
        ),
        "stomach": blob((-55, 38, 32), (42, 34, 40), tilt=15),
        "right kidney": blob((60, -40, -52), (27, 25, 52), tilt=10, wave=0.02),
        "left kidney": blob((-60, -42, -40), (27, 25, 54), tilt=10, wave=0.02),
        "spleen": blob((-90, -32, 38), (29, 46, 52), tilt=12),
        "liver right": blob((72, 4, 22), (74, 78, 78)),
        "liver left": blob((8, 42, 44), (72, 36, 36)),
    }
    bowel = tuple(
        (
            blob(
                _triple(rng.uniform((-95, 0, -180), (95, 65, -45))),
                _triple(rng.uniform((20, 16, 18), (38, 26, 30))),
                tilt=25,
            ),
            bool(rng.random() < 0.45),
        )
        for _ in range(14)
    )
    root = np.array([30.0, 5.0, 25.0]) + rng.normal(0, 4, 3)
    tips = np.array([[110, 20, 70], [120, -30, 20], [80, 50, -10], [60, -40, 70], [0, 55, 50]])
    vessels = tuple((root, tip + rng.normal(0, 8, 3), float(rng.uniform(4.5, 6.5))) for tip in tips)
    bend = tuple(Waves.draw(rng, 2.2, (140, 300)) for _ in range(3))
    anatomy = Anatomy(
        half_width=float(155 * girth + 0.7 * (fat_mm - 12)),
        half_depth=float(108 * girth * rng.normal(1, 0.02) + 0.7 * (fat_mm - 12)),
        fat_mm=fat_mm,
        wall_mm=float(rng.uniform(12, 16)),
        scale=_triple(size * rng.normal(1, 0.015, 3)),
        bend=(bend[0], bend[1], bend[2]),
        organs=organs,
        bowel=bowel,
        vessels=vessels,
        disc_phase=float(rng.random()),
        lesions=(),
    )
    placed: list[Lesion] = []
    for kind, diameter in lesions:
        placed.append(_place(anatomy, rng, kind, diameter, placed))
    return Anatomy(
        **{name: getattr(anatomy, name) for name in Anatomy.__slots__ if name != "lesions"},
        lesions=tuple(placed),
    )


def _place(
    anatomy: Anatomy, rng: np.random.Generator, kind: str, diameter: float, others: list[Lesion]
) -> Lesion:
    """Find the random site in the liver that holds most of the lesion, apart from the others."""
    ball = rng.normal(size=(200, 3))
    ball *= (rng.random((200, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=1, keepdims=True)
    best, best_share = np.zeros(3), -1.0
    for _ in range(12):
        sites = rng.uniform((-40, -70, -45), (135, 80, 95), size=(40, 3)) * anatomy.scale
        points = (sites[:, None] + ball * diameter / 2).astype(np.float32)
        tissue = anatomy.tissues_at(points[..., 0], points[..., 1], points[..., 2])
        share = np.isin(tissue, (Tissue.LIVER, Tissue.LIVER_VESSEL)).mean(axis=1)
        for other in others:
            apart = np.linalg.norm(sites - other.center, axis=1)
            share[apart < (diameter + other.diameter_mm) / 2 + 4] = -1
        n = int(share.argmax())
        if share[n] > best_share:
            best, best_share = sites[n], float(share[n])
        if best_share == 1.0:
            break
    irregular = 0.12 if kind == "tumor" else 0.015
    flatten = rng.normal(1, 0.08 if kind == "tumor" else 0.03, 3).clip(0.8, 1.2)
    radii = diameter / 2 * flatten / np.cbrt(flatten.prod())
    blob = Blob(
        _triple(best),
        _triple(radii),
        _rotation(rng.uniform(0, 180, 3)),
        Waves.draw(rng, irregular, (0.5 * diameter, 1.2 * diameter)),
    )
    lobe = "right" if best[0] > 32 * anatomy.scale[0] else "left"
    return Lesion(kind, float(diameter), _triple(best), lobe, blob)


def _world(affine: Affine, shape: Shape3) -> tuple[Array, Array, Array]:
    """Return the world coordinates of a grid's voxel centers, float32."""
    axes = [
        np.arange(n, dtype=np.float32).reshape([-1 if m == a else 1 for m in range(3)])
        for a, n in enumerate(shape)
    ]
    x, y, z = (
        np.broadcast_to(
            sum(
                (np.float32(affine[row, a]) * axes[a] for a in range(3)),
                start=np.float32(affine[row, 3]),
            ),
            shape,
        )
        for row in range(3)
    )
    return x, y, z


def _rotation(degrees: Array) -> Array:
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation: Array = about_z @ about_y @ about_x
    return rotation


def _triple(values: Array) -> tuple[float, float, float]:
    x, y, z = values
    return float(x), float(y), float(z)
