"""The demo's default picture: a tabletop with a towel, a spoon, a sponge and a gripper, drawn and not photographed."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CANVAS = 1024  # everything is drawn at this size, then reduced: smooth edges without anti-aliased primitives
WOOD = (176, 132, 92)


def draw_tabletop_scene(seed: int = 0, size: int = 256) -> Image.Image:
    """A tabletop seen from above, `(size, size)` RGB; `seed` moves, turns and tints the objects."""
    rng = np.random.default_rng(seed)
    scene = _table(rng)
    objects = (
        (_towel(rng), (320, 660), 9, 40, rng.uniform(-14, 14)),
        (_spoon(), (760, 680), 12, 40, rng.uniform(15, 45)),
        (_sponge(rng), (270, 240), 20, 40, rng.uniform(-30, 30)),
        (_gripper(), (610, 105), 44, 45, rng.uniform(-12, 12)),
    )
    for layer, center, height, spread, angle in objects:
        _put(scene, layer, np.add(center, rng.uniform(-spread, spread, 2)), angle, height)
    return scene.resize((size, size), Image.Resampling.LANCZOS)


def _put(scene: Image.Image, layer: Image.Image, center: np.ndarray, angle: float, height: int) -> None:
    """Pastes a turned layer and its shadow, which falls further away the higher the object is."""
    turned = layer.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    x, y = (round(c - extent / 2) for c, extent in zip(center, turned.size, strict=True))
    shade = Image.new("L", scene.size)
    shade.paste(turned.getchannel("A").point(lambda alpha: alpha * 0.45), (x + height // 2, y + height))
    scene.paste((35, 22, 15), mask=shade.filter(ImageFilter.GaussianBlur(6 + height / 3)))
    scene.paste(turned, (x, y), turned)


def _table(rng: np.random.Generator) -> Image.Image:
    """Four wooden planks with grain along x, brighter where the lamp shines."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    plank = np.minimum((y * 4).astype(int), 3)
    tint = rng.uniform(-9, 9, 4)[plank]
    phase = rng.uniform(0, 2 * np.pi, (4, 3))[plank]
    wave = 0.02 * np.sin(5 * x + phase[..., 2])
    grain = 5 * np.sin(190 * (y + wave) + phase[..., 0]) + 4 * np.sin(430 * (y + 1.4 * wave) + phase[..., 1])
    rough = np.asarray(Image.fromarray(rng.uniform(0, 255, (256, 24)).astype(np.uint8)).resize((CANVAS, CANVAS)))
    lamp = 26 * np.exp(-((x - 0.35) ** 2 + (y - 0.3) ** 2) / 0.3) - 14
    seam = -60.0 * ((y * 4) % 1 < 0.014) * (y > 0.1)
    light = tint + grain + (rough / 255 - 0.5) * 16 + lamp + seam
    return Image.fromarray(np.clip(np.array(WOOD) + light[..., None], 0, 255).astype(np.uint8))


def _blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    layer = Image.new("RGBA", (width, height))
    return layer, ImageDraw.Draw(layer)


def _shaded(layer: Image.Image, light: np.ndarray) -> Image.Image:
    """Adds grey levels, broadcast over `(height, width)`, to the colours of a layer."""
    pixels = np.asarray(layer).astype(float)
    pixels[..., :3] += np.broadcast_to(light, pixels.shape[:2])[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


def _towel(rng: np.random.Generator) -> Image.Image:
    colour = [(66, 118, 176), (186, 70, 66), (88, 140, 98)][rng.integers(3)]
    layer, draw = _blank(420, 360)
    for offset in range(14, 406, 10):  # fringe
        draw.line([(offset, 2), (offset, 358)], (*colour, 255), 5)
    draw.rounded_rectangle([8, 14, 412, 346], 10, (*colour, 255))
    for left in (40, 70, 340, 370):
        draw.rectangle([left, 14, left + 14, 346], (238, 234, 224, 255))
    x, y = np.linspace(0, 1, 420)[None], np.linspace(0, 1, 360)[:, None]
    folds = 12 * np.sin(9 * x + 3 * y) + 7 * np.sin(17 * y - 4 * x)
    weave = 5 * (np.arange(420)[None] // 3 % 2 - np.arange(360)[:, None] // 3 % 2)
    return _shaded(layer, folds + weave)


def _spoon() -> Image.Image:
    layer, draw = _blank(130, 430)
    draw.polygon([(54, 160), (76, 160), (80, 395), (50, 395)], (176, 180, 186, 255))
    draw.ellipse([47, 375, 83, 422], (176, 180, 186, 255))
    draw.ellipse([12, 8, 118, 180], (184, 188, 194, 255))
    draw.ellipse([24, 20, 106, 166], (140, 145, 153, 255))
    draw.ellipse([38, 74, 98, 160], (168, 173, 180, 255))
    draw.ellipse([44, 36, 66, 82], (240, 243, 246, 255))
    draw.line([(61, 190), (59, 390)], (226, 230, 235, 255), 6)
    return _shaded(layer.filter(ImageFilter.GaussianBlur(2)), np.linspace(16, -20, 130)[None])


def _sponge(rng: np.random.Generator) -> Image.Image:
    layer, draw = _blank(250, 170)
    draw.rounded_rectangle([4, 4, 246, 166], 18, (70, 130, 72, 255))
    draw.rounded_rectangle([4, 4, 246, 134], 18, (236, 200, 74, 255))
    for x, y, radius in rng.uniform((14, 14, 2), (236, 124, 6), (70, 3)):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], (204, 163, 46, 255))
    return _shaded(layer, np.linspace(14, -14, 170)[:, None])


def _gripper() -> Image.Image:
    """The last link comes in from the top edge, then wrist, palm and two open fingers."""
    layer, draw = _blank(300, 1000)
    draw.rounded_rectangle([98, 0, 202, 620], 30, (206, 209, 214, 255))
    draw.rectangle([98, 420, 202, 436], (52, 96, 168, 255))
    draw.ellipse([78, 548, 222, 692], (84, 88, 95, 255))
    draw.ellipse([112, 582, 188, 658], (120, 125, 133, 255))
    draw.rounded_rectangle([40, 660, 260, 742], 20, (58, 61, 67, 255))
    for left, pad in ((46, 74), (216, 216)):
        draw.rounded_rectangle([left, 730, left + 38, 900], 12, (40, 42, 46, 255))
        draw.rectangle([pad, 800, pad + 10, 892], (150, 74, 60, 255))
    return _shaded(layer, 34 * np.cos(np.linspace(-1.9, 1.5, 300))[None] - 14)
