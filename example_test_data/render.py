"""Render the example image and video, a street scene of objects that COCO-trained detectors recognize.

inference.py and inference_video.py use these two files by default. They are synthetic, so that the repository can ship
them without license restrictions. All lengths are meters, projected through one pinhole camera; the image is one
moment of the video. Rendering is deterministic.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Shape = ArrayLike  # corners on an upright plane, as complex numbers: meters along + meters up * 1j
Points = NDArray  # (N, 3) meters to the right, up and away from the camera
Color = tuple[int, int, int] | NDArray  # red, green, blue

FOLDER, SEED = Path(__file__).parent, 7
IMAGE_SIZE, IMAGE_MOMENT = (1280, 853), 1.45  # seconds into the video at which no object is occluded
VIDEO_SIZE, FRAMES, FRAMES_PER_SECOND = (640, 360), 96, 24
OVERSIZE = 2  # supersampling factor, for smooth edges
IMAGE_BLUR, VIDEO_BLUR = 0.8, 1.4  # lens blur in supersampled pixels; sharper edges would enlarge the video file

EYE_HEIGHT = 2.6  # meters, above the roof of a car
FOCAL, HORIZON = 0.86, 0.49  # in image widths, a field of view of 60 degrees; in image heights from the top
SHADOW = np.array([0.55, -0.2])  # right and away per meter of height; towards the camera, so not on earlier objects
HAZE, HAZE_DISTANCE = np.array([206, 220, 232]), 330  # meters at which 63 % of a color is haze

ROAD, ROAD_HALF, CORNER = 16.3, 3.7, 1.6  # crossing road: center, half width, radius of its kerbs
LANE, LANE_HALF, LANE_END = -5.6, 3.4, 50  # road away from the camera: center, half width, end

WHITE, BLACK, GRAY, STEEL = (240, 240, 236), (26, 27, 30), (112, 114, 118), (165, 170, 175)
GLASS, IRON, SKIN, LAMP = (62, 80, 98), (48, 52, 54), (214, 166, 138), (255, 248, 222)
RED, BLUE, MUSTARD = (198, 36, 38), (36, 84, 156), (226, 168, 52)
BRICK, SAND, CREAM, STONE, WOOD = (180, 106, 84), (196, 172, 140), (222, 206, 168), (206, 202, 194), (158, 104, 62)
RIGHTWARDS, LEFTWARDS, AWAY = (1, 0), (-1, 0), (0, 1)  # direction of a plane's first axis: right, away


def rect(left: float, bottom: float, right: float, top: float) -> Shape:
    """Build a rectangle."""
    return np.array([left + bottom * 1j, left + top * 1j, right + top * 1j, right + bottom * 1j])


def ring(center: complex, radius: float, corners: int = 40, turn: float = 0) -> Shape:
    """Build a regular polygon, by default approximating a circle."""
    return center + radius * np.exp(1j * (turn + np.linspace(0, 2 * np.pi, corners + 1)))


def limb(start: complex, end: complex, start_radius: float, end_radius: float) -> Shape:
    """Build a capsule: a bar with round ends."""
    half = np.exp(1j * (np.angle(end - start) + np.linspace(0.5, 1.5, 16) * np.pi))
    return np.concatenate([start + start_radius * half, end - end_radius * half])


def fractal(shape: tuple[int, int], cells: tuple[int, int], octaves: int = 7) -> NDArray:
    """Generate fractal noise: each octave has twice the frequency and half the amplitude of the previous one."""
    rng = np.random.default_rng(SEED)
    layers = [rng.standard_normal((cells[0] << octave, cells[1] << octave)) for octave in range(octaves)]
    return sum(cv2.resize(layer, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2**i for i, layer in enumerate(layers))


class Renderer:
    """Image buffer with a pinhole camera."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.limits = size, np.array(size) * OVERSIZE
        self.focal, self.center = FOCAL * self.limits[0], self.limits * (0.5, HORIZON)
        self.pixels = np.zeros((*self.limits[::-1], 3), np.float32)

    def draw(
        self,
        color: Color,
        outlines: list[Points],
        *,
        line: float = 0,
        blur: float = 0,
        shade: float = 0.1,
        alpha: float = 1,
    ) -> None:
        """Fill outlines, or stroke them if `line`, brighter by `shade` towards the sun; line and blur in meters."""
        in_view = [np.stack([right, EYE_HEIGHT - up], 1) / away[:, None] for right, up, away in (o.T for o in outlines)]
        distance, corners = outlines[0][:, 2].mean(), [self.center + self.focal * points for points in in_view]
        line, blur = (size and max(1, round(size * self.focal / distance)) for size in (line, blur))
        low, high = (side(np.concatenate(corners), axis=0) for side in (np.min, np.max))
        start = np.clip(low - line - 3 * blur - 1, 0, self.limits - 1).astype(int)
        stop = np.clip(high + line + 3 * blur + 1, start + 1, self.limits).astype(int)
        mask = np.zeros((stop - start)[::-1], np.uint8)
        for fixed in ([np.int32((outline - start) * 16)] for outline in corners):  # 4 bits of fraction
            if line:
                cv2.polylines(mask, fixed, False, 255, line, cv2.LINE_AA, 4)
            else:
                cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, 4)
        cover = (cv2.GaussianBlur(mask, (0, 0), blur) if blur else mask) * np.float32(alpha / 255)
        window = slice(start[1], stop[1]), slice(start[0], stop[0])
        rows, columns = np.ogrid[window]
        down, right = (rows - low[1]) / (high - low + 1)[1], (columns - low[0]) / (high - low + 1)[0]
        light = 1 + shade * (1 - down - right)[..., None]
        paint = HAZE + (light * color - HAZE) * np.exp(-distance / HAZE_DISTANCE)
        self.pixels[window] += (paint - self.pixels[window]) * cover[..., None]

    def picture(self, blur: float) -> NDArray:
        """Return the finished image, BGR uint8, with lens blur and sensor noise."""
        small = cv2.resize(cv2.GaussianBlur(self.pixels, (0, 0), blur), self.size, interpolation=cv2.INTER_AREA)
        small += np.random.default_rng(SEED).normal(0, 1.5, (*small.shape[:2], 1))
        return cv2.cvtColor(small.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)


@dataclass(frozen=True)
class Plane:
    """Vertical plane with its origin on the ground at x, z."""

    renderer: Renderer
    x: float
    z: float
    along: tuple[int, int] = RIGHTWARDS

    def to_points(self, shape: Shape, behind: float = 0) -> Points:
        """Convert a shape on the plane to points in the scene."""
        along, up = np.real(shape), np.imag(shape)
        return np.stack([self.x + along * self.along[0], up, self.z + behind + along * self.along[1]], 1)

    def draw(self, color: Color, *shapes: Shape, behind: float = 0, **style: float) -> None:
        """Draw shapes, see Renderer.draw."""
        for shape in shapes:
            self.renderer.draw(color, [self.to_points(shape, behind)], **style)

    def block(self, color: Color, shape: Shape, depth: float, behind: float = 0, **style: float) -> None:
        """Draw the prism of a convex shape, given clockwise."""
        near, far = self.to_points(shape, behind), self.to_points(shape, behind + depth)
        for i in range(len(near)):
            right, up, _ = (near[i] - near[i - 1]) * self.along[0] / np.linalg.norm(near[i] - near[i - 1])
            if right * (EYE_HEIGHT - near[i, 1]) + up * near[i, 0] > 0:  # this side faces the camera
                tone = 0.82 + 0.35 * max(right, 0) + 0.1 * up  # the sun stands high and to the left
                side = np.array([near[i - 1], near[i], far[i], far[i - 1]])
                self.renderer.draw(np.multiply(color, tone), [side], **style)
        self.renderer.draw(color, [near], **style)

    def shadow(self, *shapes: Shape, depth: float = 0.06) -> None:
        """Draw the shadows of prisms of convex shapes on the ground."""
        casts = []
        for shape in shapes:
            body = np.concatenate([self.to_points(shape), self.to_points(shape, depth)])
            cast = cv2.convexHull(np.float32(body[:, ::2] + body[:, 1:2] * SHADOW))[:, 0]
            casts.append(np.insert(cast, 1, 0, axis=1))
        self.renderer.draw((22, 28, 44), casts, blur=0.04, shade=0, alpha=0.55)  # skylight


def sky(renderer: Renderer) -> None:
    """Draw a blue gradient with clouds that thin out towards the horizon."""
    height, width = renderer.pixels.shape[:2]
    down = np.linspace(0, 1 / HORIZON, height)[:, None].clip(0, 1)  # 1 at the horizon
    clouds = fractal((height, width), (9, 4))
    blue = np.array([92, 146, 210]) + down[..., None] * (116, 78, 26)
    white = np.clip(252 - 14 * np.roll(clouds, height // 60, axis=0), 222, 252)[..., None]  # darker at the bottom
    renderer.pixels[:] = blue + (white - blue) * (np.clip(0.8 * clouds + 0.1, 0, 1) * (1.15 - down))[..., None]


def ground(renderer: Renderer) -> None:
    """Draw roads, kerbs and paving, per pixel below the horizon."""
    top = int(renderer.center[1]) + 1
    rows, columns = np.indices(renderer.pixels[top:].shape[:2])
    z = EYE_HEIGHT * renderer.focal / (rows + top - renderer.center[1])
    x = (columns - renderer.center[0]) * z / renderer.focal
    across, aside = abs(z - ROAD) - ROAD_HALF, np.maximum(abs(x - LANE) - LANE_HALF, z - LANE_END)  # negative: on it
    inner = np.hypot(np.maximum(CORNER - across, 0), np.maximum(CORNER - aside, 0))
    edge = np.maximum(CORNER, np.minimum(across, aside)) - inner  # distance to the asphalt
    noise = np.random.default_rng(SEED).standard_normal((1024, 1024))
    slabs, grains = (noise[np.int32(x // size) % 1024, np.int32(z // size) % 1024] for size in (0.6, 0.02))
    grains *= np.clip(renderer.focal / z / 220, 0, 1)  # fade where a pixel covers several
    joints = ((x % 0.6 < 0.02) | (z % 0.6 < 0.03)) * np.clip(9 / z, 0, 1)
    paint = (176, 168, 156) * (1 + 0.025 * slabs - 0.16 * joints)[..., None]
    paint[edge < 0.2] = (198, 195, 188)  # the kerb's stone
    paint[edge < 0.03] = (84, 83, 84)  # its face, and the gutter
    paint[edge < -0.12] = (98, 98, 101)  # asphalt
    zebra = (abs(z - 9.6) < 1.3) & (x % 1 < 0.5) & (aside < -0.2)
    dashes = (abs(z - ROAD) < 0.07) & (x % 3 < 1.7) & (aside > 1)
    dashes |= (abs(x - LANE) < 0.07) & (z % 3 < 1.7) & (across > 1.5) & (z < LANE_END)
    paint[zebra | dashes] = (214, 214, 208)
    paint *= 1 + 0.06 * grains[..., None]
    renderer.pixels[top:] = HAZE + (paint - HAZE) * np.exp(-z / HAZE_DISTANCE)[..., None]


def windows(wall: Plane, *corners: complex, width: float = 1.1, height: float = 1.5) -> None:
    """Draw windows, given by their lower left corners."""
    for left, bottom in ((corner.real, corner.imag) for corner in corners):
        right, top, middle, bar = left + width, bottom + height, left + width / 2, bottom + height * 0.65
        wall.draw(WHITE, rect(left - 0.1, bottom - 0.1, right + 0.1, top + 0.1))
        wall.draw(GLASS, rect(left, bottom, right, top), shade=0.45)
        wall.draw(BLACK, rect(left, top - 0.12, right, top), alpha=0.45)  # the lintel's shadow
        wall.draw(WHITE, rect(left, bar, right, bar + 0.07), rect(middle - 0.03, bottom, middle + 0.03, top))
        wall.draw(STONE, rect(left - 0.18, bottom - 0.2, right + 0.18, bottom - 0.08))  # the sill


def house(front: Plane, width: float, height: float, color: Color) -> None:
    """Draw a house with two floors, a door on the left and a gable roof."""
    depth, ridge, floors = 9.0, height + 2.6, np.array([[0.95j], [3.6j]])
    front.shadow(rect(0, 0, width, height), depth=depth)
    side = Plane(front.renderer, front.x if front.x > 0 else front.x + width, front.z, AWAY)  # the visible side
    gable = [0, height * 1j, depth / 2 + ridge * 1j, depth + height * 1j, depth]
    side.draw(np.multiply(color, 0.72), gable)
    windows(side, *np.ravel(floors + np.array([1.3, 3.9, 6.5])))
    front.draw(color, rect(0, 0, width, height))
    windows(front, *np.ravel(floors + width * np.array([1, 3, 5]) / 6 - 0.55))
    front.draw(WHITE, rect(width / 6 - 0.65, 0, width / 6 + 0.65, 2.6))
    front.draw((74, 52, 40), rect(width / 6 - 0.55, 0, width / 6 + 0.55, 2.45), shade=0.25)
    front.draw(BLACK, rect(0, height - 0.6, width, height - 0.18), alpha=0.25)  # the eaves' shadow
    line = np.array([-0.25, width + 0.25])
    eaves, top = front.to_points(line + height * 1j, -0.35), front.to_points(line + ridge * 1j, depth / 2)
    front.renderer.draw((136, 74, 58), [np.concatenate([eaves, top[::-1]])])
    courses = [eaves + (top - eaves) * course for course in np.linspace(0.05, 0.95, 20)]  # of tiles
    front.renderer.draw((84, 44, 36), courses, line=0.06, alpha=0.3)
    front.renderer.draw(WHITE, [np.stack([eaves[i], top[i]]) for i in (0, 1)], line=0.12)
    front.draw(WHITE, rect(-0.25, height - 0.18, width + 0.25, height + 0.02), behind=-0.35)
    front.block(BRICK, rect(width * 0.7, ridge - 1, width * 0.7 + 0.6, ridge + 0.6), 0.6, behind=depth / 2)


def clock_tower(wall: Plane) -> None:
    """Draw a tower with a pointed roof and a clock that shows ten past ten."""
    clock, radius = 11.2j, 1.9
    wall.block(SAND, rect(-2.6, 0, 2.6, 13.6), 5.2)
    wall.block(CREAM, rect(-2.8, 8.6, 2.8, 9), 5.2, behind=-0.2)
    wall.draw((84, 96, 104), [-3 + 13.6j, 17.8j, 3 + 13.6j], shade=0.2)
    windows(wall, -0.6 + 4.6j, width=1.2, height=2.4)
    wall.draw(IRON, ring(clock, radius))
    wall.draw(WHITE, ring(clock, radius * 0.92), shade=0.04)
    wall.draw(BLACK, *([clock + 0.7 * ray, clock + 0.86 * ray] for ray in ring(0, radius, 12)), line=0.16)
    for hour, length, width in ((10.15, 0.5, 0.2), (1.8, 0.74, 0.14)):
        hand = radius * length * 1j * np.exp(-1j * hour * np.pi / 6)
        wall.draw(BLACK, [clock - 0.2 * hand, clock + hand], line=width)


def stop_sign(plane: Plane) -> None:
    """Draw a stop sign on its post."""
    middle, turn = 2.35j, np.pi / 8
    plane.shadow(ring(middle, 0.42, 8, turn), limb(0, middle, 0.04, 0.04))
    plane.draw(STEEL, rect(-0.035, 0, 0.035, 2.35), shade=0.4)
    for radius, color in ((0.43, GRAY), (0.42, WHITE), (0.385, RED)):
        plane.draw(color, ring(middle, radius, 8, turn))
    upper, lower = ring(0.5j, 0.5, 24), ring(-0.5j, 0.5, 24)  # the bowls of an S in a cell of 1 x 2
    s, t = [*upper[2:19], *lower[5::-1], *lower[:12:-1]], [-0.5 + 1j, 0.5 + 1j, 1j, -1j]
    o, p = [*upper[:13], *lower[12:], upper[0]], [-0.4 - 1j, -0.4 + 1j, *upper[6::-1], *upper[:17:-1], -0.4]
    for column, letter in zip((-0.255, -0.085, 0.085, 0.255), (s, t, o, p), strict=True):
        plane.draw(WHITE, middle + column + 0.115 * np.array(letter), line=0.038, shade=0)


def traffic_light(plane: Plane) -> None:
    """Draw a traffic light that shows red."""
    plane.shadow(rect(-0.22, 2.7, 0.22, 4), limb(0, 3j, 0.06, 0.06))
    plane.draw(GRAY, rect(-0.06, 0, 0.06, 3), shade=0.4)
    plane.block(IRON, rect(-0.24, 2.7, 0.24, 4), 0.3, shade=0.2)
    for lamp, color in ((3.76j, (255, 40, 36)), (3.35j, (104, 78, 26)), (2.94j, (22, 78, 48))):
        plane.draw(BLACK, ring(lamp, 0.18), limb(lamp - 0.15 + 0.15j, lamp + 0.15 + 0.15j, 0.05, 0.05))  # with a visor
        plane.draw(color, ring(lamp - 0.02j, 0.15), shade=0.25)


def bench(plane: Plane) -> None:
    """Draw a wooden bench on iron legs, seen from the front."""
    legs = (-0.7, 0.7)
    plane.shadow(rect(-0.85, 0.4, 0.85, 0.45), *(rect(leg, 0, leg + 0.06, 0.4) for leg in legs), depth=0.5)
    for leg in legs:
        plane.block(IRON, rect(leg - 0.03, 0, leg + 0.03, 0.9), 0.05, behind=0.5)
    for up in (0.56, 0.7, 0.84):
        plane.block(WOOD, rect(-0.85, up, 0.85, up + 0.1), 0.03, behind=0.47)
    for behind in (0.36, 0.24, 0.12, 0):
        plane.block(WOOD, rect(-0.85, 0.41, 0.85, 0.45), 0.1, behind)
    for left, right in ((leg - 0.03, leg + 0.03) for leg in legs):
        plane.block(IRON, rect(left, 0.62, right, 0.66), 0.45)  # the arm rest
        plane.draw(IRON, rect(left, 0.45, right, 0.62), rect(left, 0, right, 0.41))


def ball(plane: Plane) -> None:
    """Draw a football, rolled according to its position."""
    radius, center = 0.13, 0.13j
    plane.shadow(ring(center, radius))
    plane.draw(WHITE, ring(center, radius), shade=0.25)
    plane.draw(BLACK, ring(center, radius * 0.32, 5, -plane.x / radius), shade=0.2)
    for patch in ring(0, radius, 5, -plane.x / radius):
        rim = patch * np.exp(1j * np.array([-0.3, -0.15, 0, 0.15, 0.3]))  # patches at the rim, seen from the side
        plane.draw(BLACK, center + np.append(0.99 * rim, 0.72 * patch), shade=0.2)
        plane.draw(STEEL, [center + 0.3 * patch, center + 0.75 * patch], line=0.006)


def wheels(plane: Plane, radius: float, *hubs: float) -> None:
    """Draw the wheels of a car or bus, rolled according to their position."""
    for hub in np.array(hubs) + radius * 1j:
        for size, color in ((radius + 0.07, BLACK), (radius, (40, 40, 43)), (radius * 0.64, STEEL)):  # first the arch
            plane.draw(color, ring(hub, size), shade=0.2)
        holes = ring(hub, radius * 0.4, 5, -plane.x * plane.along[0] / radius)
        plane.draw(IRON, *(ring(hole, radius * 0.15) for hole in holes))


def car(plane: Plane, color: Color) -> None:
    """Draw a car heading right."""
    depth, inset, dark = 1.7, 0.15, np.multiply(color, 0.45)  # the cabin is narrower than the body
    rear, nose = [-2.02 + 0.24j, -2.14 + 0.5j, -2.12 + 0.8j, -1.95 + 0.96j], [2.1 + 0.62j, 2.14 + 0.4j, 2.05 + 0.24j]
    body = np.array([*rear, 1 + 0.98j, 1.85 + 0.82j, *nose])
    cabin = np.array([-1.92 + 0.95j, -1.5 + 1.36j, -1.15 + 1.46j, -0.1 + 1.48j, 0.25 + 1.42j, 1.1 + 0.95j])
    plane.shadow(body - 0.24j, cabin, depth=depth)
    plane.draw(BLACK, rect(-1.9, 0.12, 1.95, 0.4), behind=0.1)
    plane.block(color, body, depth, shade=0.22)
    plane.block(GLASS, cabin, depth - 2 * inset, inset, shade=0.3)
    plane.block(color, cabin[1:5], depth - 2 * inset, inset)  # the roof
    plane.draw(color, cabin, behind=inset)
    plane.draw(GLASS, cabin * 0.82 - 0.06 + 0.22j, behind=inset, shade=0.4)
    plane.draw(color, rect(-0.42, 0.97, -0.32, 1.45), behind=inset)
    plane.draw(WHITE, body[1:7] * 0.98, line=0.02, alpha=0.35)  # the light along the edge
    for seam in (-1.12, -0.38, 0.85):  # with a handle on its left
        plane.draw(dark, rect(seam, 0.34, seam + 0.02, 0.96), rect(seam - 0.25, 0.82, seam - 0.08, 0.85))
    plane.draw(dark, rect(-1.95, 0.24, 2.0, 0.34), [0.62 + 0.98j, 0.66 + 1.1j, 0.8 + 1.1j, 0.84 + 0.98j])  # the mirror
    plane.draw(LAMP, [1.72 + 0.7j, 1.74 + 0.8j, 1.9 + 0.78j, 2.08 + 0.62j])
    plane.draw(RED, [-2.12 + 0.7j, -2.1 + 0.82j, -1.96 + 0.9j, -1.9 + 0.76j])
    wheels(plane, 0.32, -1.28, 1.3)


def bus(plane: Plane) -> None:
    """Draw a city bus heading left."""
    side = np.array([-4.8 + 0.4j, -4.8 + 2.75j, -4.6 + 3j, 4.5 + 3j, 4.8 + 2.6j, 4.85 + 0.9j, 4.8 + 0.4j])
    plane.shadow(side - 0.4j, depth=2.5)
    plane.draw(BLACK, rect(-4.6, 0.15, 4.6, 0.5), behind=0.1)
    plane.block(RED, side, 2.5, shade=0.14)
    plane.block(GLASS, rect(-4.7, 1.3, 4.84, 2.5), 2.5, shade=0.3)  # behind the side windows it is the windscreen
    plane.draw(BLACK, rect(-4.65, 1.3, 4.75, 2.5))
    for left in np.linspace(-4.55, 3.43, 7):
        plane.draw(GLASS, rect(left, 1.38, left + 1.2, 2.42), shade=0.45)
        if left < 3:  # a passenger, but none beside the driver
            plane.draw(IRON, limb(left + 0.5 + 1.56j, left + 0.5 + 1.6j, 0.18, 0.15), shade=0.2)
            plane.draw((96, 76, 66), ring(left + 0.5 + 1.84j, 0.12), shade=0.2)
        plane.draw(WHITE, left + np.array([0.2 + 1.38j, 0.55 + 2.42j, 0.8 + 2.42j, 0.45 + 1.38j]), alpha=0.12)
    plane.block(WHITE, rect(-4.8, 0.95, 4.86, 1.1), 2.5)
    plane.draw(np.multiply(RED, 0.5), rect(-4.8, 0.4, 4.8, 0.52))
    plane.draw(LAMP, rect(4.68, 0.68, 4.8, 0.85))
    wheels(plane, 0.48, -2.6, 2.9)


def bicycle(plane: Plane) -> None:
    """Draw a bicycle on its stand."""
    rear, front, crank, seat, head = -0.52 + 0.34j, 0.55 + 0.34j, -0.08 + 0.3j, -0.24 + 0.82j, 0.36 + 0.86j
    plane.shadow(limb(seat, head, 0.04, 0.04), ring(rear, 0.34), ring(front, 0.34), depth=0.03)
    for hub in (rear, front):
        plane.draw(STEEL, *([hub, spoke] for spoke in ring(hub, 0.3, 14)), line=0.004, alpha=0.7)
        plane.draw(BLACK, ring(hub, 0.32), line=0.045)
        plane.draw(STEEL, ring(hub, 0.29), line=0.015)
    plane.draw(STEEL, [seat, seat + 0.11j], ring(crank, 0.09), line=0.025)
    frame = [seat, rear, crank, seat - 0.06j, head - 0.06j, crank]
    plane.draw((24, 104, 96), frame, [head, front], line=0.036, shade=0.3)
    handlebar, stand = [head, 0.33 + 0.98j, 0.42 + 1.04j, 0.24 + 1.04j], [-0.2 + 0.32j, -0.3]
    pedals = [-0.2 + 0.16j, -0.12 + 0.16j, -0.04 + 0.44j, 0.04 + 0.44j]
    plane.draw(BLACK, handlebar, stand, pedals, line=0.03)
    plane.draw(BLACK, limb(-0.4 + 0.95j, -0.14 + 0.95j, 0.045, 0.02))  # the saddle


def person(plane: Plane, coat: Color, trousers: Color) -> None:
    """Draw a person walking along the plane; the position determines the phase of the stride."""
    phase, shoulder, head = 2 * np.pi * plane.x * plane.along[0] / 1.5, 0.01 + 0.5j, 0.06 + 0.74j  # two steps are 1.5 m
    arms, legs, ankles = [], [], []
    for swing in (phase + np.pi, phase):  # the far side and the near one; angles are measured from straight down
        thigh = 0.08 + 0.43 * np.sin(swing)
        shin = thigh - 0.1 - 0.75 * max(0, np.cos(swing)) ** 1.5  # a leg bends while it swings forward
        knee, elbow = -0.45j * np.exp(1j * thigh), shoulder - 0.29j * np.exp(-0.5j * np.sin(swing))
        ankle, hand = knee - 0.43j * np.exp(1j * shin), elbow - 0.26j * np.exp(1j * (0.35 - 0.5 * np.sin(swing)))
        foot = limb(ankle - 0.02 - 0.04j, ankle + 0.17 * np.exp(0.5j * shin) - 0.05j, 0.045, 0.032)
        legs += [(BLACK, foot), (trousers, limb(knee, ankle, 0.075, 0.05)), (trousers, limb(0, knee, 0.115, 0.075))]
        arms += [(SKIN, limb(hand, hand + (hand - elbow) / 4, 0.042, 0.035)), (coat, limb(elbow, hand, 0.055, 0.045))]
        arms += [(coat, limb(shoulder, elbow, 0.075, 0.055))]
        ankles.append(ankle)
    hip = 0.085j - 1j * min(ankle.imag for ankle in ankles)  # one foot is always on the ground
    plane.shadow(limb(hip, hip + head, 0.15, 0.1), *(limb(hip, hip + ankle, 0.08, 0.05) for ankle in ankles))
    backpack, torso = limb(-0.17 + 0.46j, -0.17 + 0.22j, 0.1, 0.13), limb(0.03 + 0.46j, 0.02j, 0.135, 0.14)
    neck, face = limb(shoulder, head, 0.055, 0.055), limb(head - 0.03j, head + 0.04j, 0.085, 0.095)
    nose, hair = ring(head + 0.09, 0.018), limb(head - 0.06 + 0.01j, head + 0.07j, 0.08, 0.08)
    body = [(IRON, backpack), (coat, torso), (SKIN, neck), (SKIN, face), (SKIN, nose), ((58, 40, 30), hair)]
    for tone, parts in ((0.65, arms[:3] + legs[:3]), (1, legs[3:] + body + arms[3:])):
        for color, shape in parts:
            plane.draw(np.multiply(color, tone), hip + shape, shade=0.18)


def backdrop(renderer: Renderer) -> None:
    """Draw the static background, farthest objects first."""
    sky(renderer)
    ground(renderer)
    house(Plane(renderer, -17, 85), 9, 6, SAND)
    clock_tower(Plane(renderer, -6.4, 58))
    house(Plane(renderer, -17.4, 46), 7, 6.2, CREAM)
    house(Plane(renderer, -17.4, 34.5), 7, 6, BRICK)
    house(Plane(renderer, -17.4, 24), 7, 6.4, (214, 204, 182))
    house(Plane(renderer, 11.4, 24), 7, 6.5, (150, 168, 178))
    house(Plane(renderer, 5.4, 24), 6, 5.9, CREAM)
    house(Plane(renderer, -1.2, 24), 6.6, 6.3, BRICK)
    traffic_light(Plane(renderer, -9.8, 20.8))
    renderer.pixels *= 1 + 0.02 * fractal(renderer.pixels.shape[:2], (24, 36))[..., None]  # dirt


def street(renderer: Renderer, seconds: float) -> None:
    """Draw the moving objects and those that may occlude them, farthest first."""
    person(Plane(renderer, 2.2 - 1.3 * seconds, 21.4, LEFTWARDS), (92, 60, 96), IRON)
    bus(Plane(renderer, 12.4 - 5 * seconds, 17.4, LEFTWARDS))
    car(Plane(renderer, -13.2 + 5.5 * seconds, 13.9), BLUE)
    car(Plane(renderer, -23 + 5.5 * seconds, 13.9), WHITE)
    traffic_light(Plane(renderer, 6.3, 12.0))
    bicycle(Plane(renderer, 4.5, 10.6))
    bench(Plane(renderer, 2.3, 9.6))
    person(Plane(renderer, -1.5 + 1.4 * seconds, 8.9), MUSTARD, (52, 66, 100))
    stop_sign(Plane(renderer, -1.75, 8.2))
    ball(Plane(renderer, 4.4 - 2.4 * seconds, 7.9))


def main() -> None:
    """Write both files next to this script."""
    image, video = FOLDER / "image_1.jpg", FOLDER / "video_1.mp4"
    still, video_frame = Renderer(IMAGE_SIZE), Renderer(VIDEO_SIZE)
    backdrop(still)
    street(still, IMAGE_MOMENT)
    cv2.imwrite(str(image), still.picture(IMAGE_BLUR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    backdrop(video_frame)
    empty = video_frame.pixels.copy()
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), FRAMES_PER_SECOND, VIDEO_SIZE)
    for frame in range(FRAMES):
        video_frame.pixels[:] = empty
        street(video_frame, frame / FRAMES_PER_SECOND)
        writer.write(video_frame.picture(VIDEO_BLUR))
    writer.release()
    print(*(f"{path}: {path.stat().st_size / 1000:.0f} kB" for path in (image, video)), sep="\n")


if __name__ == "__main__":
    main()
