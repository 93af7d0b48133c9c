"""Records what Pillow makes of a small image by each operation that augments images.

    tests/peers/.venv/bin/python tests/peers/record_augmentation.py > fixtures/augmentation.txt
"""

import math

import PIL
from PIL import Image, ImageEnhance, ImageOps

WIDTH, HEIGHT = 20, 18


def image():
    values = [40 + (i * 7919 + i // 33 * 5) % 173 for i in range(WIDTH * HEIGHT * 3)]
    return Image.frombytes("RGB", (WIDTH, HEIGHT), bytes(values))


def affine(*numbers):
    return image().transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST
    )


def rotate(degrees):
    # Image.rotate rounds its matrix; this is the exact one, around the centre.
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x, y = WIDTH / 2, HEIGHT / 2
    return affine(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


OPERATIONS = {
    "shear_x": (lambda s: affine(1, s, 0, 0, 1, 0), (0.33, -0.99)),
    "shear_y": (lambda s: affine(1, 0, 0, s, 1, 0), (0.5, -0.2)),
    "translate_x": (lambda s: affine(1, 0, s, 0, 1, 0), (3, -2, 32)),
    "translate_y": (lambda s: affine(1, 0, 0, 0, 1, s), (4, -1)),
    "rotate": (rotate, (27, -121.5)),
    "brightness": (lambda s: ImageEnhance.Brightness(image()).enhance(s), (0.3, 1.99)),
    "saturation": (lambda s: ImageEnhance.Color(image()).enhance(s), (0.01, 1.6)),
    "contrast": (lambda s: ImageEnhance.Contrast(image()).enhance(s), (0.2, 1.7)),
    "sharpness": (lambda s: ImageEnhance.Sharpness(image()).enhance(s), (0.1, 1.9)),
    "posterize": (lambda s: ImageOps.posterize(image(), int(s)), (8, 4, 2)),
    "solarize": (lambda s: ImageOps.solarize(image(), s), (255, 127.5, 0)),
    "auto_contrast": (lambda s: ImageOps.autocontrast(image()), (0,)),
    "equalize": (lambda s: ImageOps.equalize(image()), (0,)),
}

print(f"# Pillow {PIL.__version__}; recorded by tests/peers/record_augmentation.py")
for name, (operation, arguments) in OPERATIONS.items():
    for argument in arguments:
        print(name, argument, operation(argument).tobytes().hex())
