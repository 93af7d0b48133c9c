"""The image that the clients send, in each form that the server takes."""

import io

import numpy
from PIL import Image

MEAN, STD = [0.2922, 0.2932, 0.2937], [0.1819, 0.1803, 0.1799]


def pixels():
    """Pixels of one image, as the recorded requests have them."""
    return (numpy.arange(32 * 32 * 3) * 7 % 256).astype(numpy.uint8).reshape(1, 32, 32, 3)


def planes():
    """The same, normalised."""
    values = (pixels() / numpy.float32(255) - numpy.float32(MEAN)) / numpy.float32(STD)
    return numpy.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=numpy.float32)


def png():
    """The same, as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels()[0]).save(file, "PNG")
    return file.getvalue()


def forms():
    """Name, datatype and value of each input."""
    return [
        ("images", "FP32", planes()),
        ("pixels", "UINT8", pixels()),
        ("encoded", "BYTES", numpy.array([png()], dtype=object)),
    ]
