"""Compares decoding and preprocessing with Pillow and torchvision, on generated files:
JPEGs of all samplings, scans and restart intervals, all kinds of PNG and WebP,
EXIF orientations, files that were cut, oblong pictures.

    tests/peers/run images
"""

import io
import itertools
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from torchvision import transforms

import jpegs
from jpegs import JFIF, Scan, adobe, encode, one_each, progression, scene

PROGRAM = Path(sys.argv[1]).resolve() / "examples/decode"
WORK = Path(tempfile.mkdtemp(prefix="sdpoint-images-"))


class Batch:
    """Files to decode in one call, each with its expected result."""

    def __init__(self, what, options=()):
        self.what, self.options, self.files = what, options, []

    def add(self, name, data, expected, mean=1.0, most=8):
        """`expected` is an array, or a function of our result (array or error) that returns what is wrong."""
        path = WORK / f"{len(self.files)}"
        path.write_bytes(data)
        self.files.append((name, path, expected, mean, most))

    def like_pillow(self, name, data, **tolerance):
        self.add(name, data, pillow(data), **tolerance)

    def check(self, may_refuse=None):
        """Compares; errors that contain `may_refuse` are accepted."""
        for start in range(0, len(self.files), 200):
            paths = [path for _, path, *_ in self.files[start : start + 200]]
            subprocess.run([PROGRAM, *self.options, *paths], check=True)
        read, refused, faults = 0, 0, []
        for name, path, expected, mean, most in self.files:
            found = ours(path)
            if isinstance(found, str):
                allowed = expected is None or (may_refuse and may_refuse in found)
                refused += 1
                if not allowed:
                    faults.append(f"{name}: refused: {found}")
            elif callable(expected):
                read += 1
                if problem := expected(found):
                    faults.append(f"{name}: {problem}")
            elif expected is None:
                faults.append(f"{name}: read, where Pillow refuses")
            else:
                read += 1
                if problem := difference(found, expected, mean, most):
                    faults.append(f"{name}: {problem}")
            for left in [path, Path(f"{path}.rgb"), Path(f"{path}.error")]:
                left.unlink(missing_ok=True)
        verdict = "FAIL" if faults else "ok  "
        print(f"{verdict} {self.what}: {read} read, {refused} refused", flush=True)
        for fault in faults[:20]:
            print(f"     {fault}")
        Batch.failed += len(faults)


Batch.failed = 0


def ours(path):
    if (error := Path(f"{path}.error")).exists():
        return error.read_text()
    head, _, pixels = Path(f"{path}.rgb").read_bytes().partition(b"\n")
    width, height = map(int, head.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def pillow(data):
    """The result of torchvision's loader for a file; None if it fails."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def difference(found, expected, mean, most):
    if found.shape != expected.shape:
        return f"{found.shape} instead of {expected.shape}"
    apart = np.abs(found.astype(int) - expected)
    if apart.mean() > mean or apart.max() > most:
        return f"{apart.mean():.2f} apart on average, {apart.max()} at most"
    return None


SIDES = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4), (3, 1), (1, 3)]


def check_samplings():
    batch = Batch("JPEG, every sampling and order of scans")
    orders = {
        "one scan": (None, False),
        "a scan each": (one_each(3), False),
        "luma apart": ([Scan([0]), Scan([1, 2])], False),
        "luma last": ([Scan([2]), Scan([1]), Scan([0])], False),
        "progressive": (progression(3), True),
        "progressive, nothing interleaved": (progression(3, False), True),
    }
    for luma, cb in itertools.product(SIDES, SIDES):
        for cr in dict.fromkeys([cb, (1, 1)]):
            sampling = [luma, cb, cr]
            if sum(h * v for h, v in sampling) > 10:
                continue
            for (width, height), restart in [((67, 45), 0), ((67, 45), 3), ((17, 9), 0), ((32, 32), 1)]:
                picture = scene(width, height, sampling)
                for order, (scans, progressive) in orders.items():
                    name = f"{sampling} {width}x{height} {order} restart {restart}"
                    data = encode(picture, scans, restart, progressive)
                    batch.like_pillow(name, data)
    batch.check(may_refuse="unusual sampling")


def check_usual():
    """Files as written by common encoders, all of which must be read."""
    batch = Batch("JPEG, samplings that are in use")
    for luma in [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2)]:
        for width, height in [(67, 45), (64, 64), (1, 1), (9, 130), (255, 3)]:
            picture = scene(width, height, [luma, (1, 1), (1, 1)])
            for scans, progressive in [(None, False), (one_each(3), False), (progression(3), True)]:
                for restart in [0, 1, 7]:
                    data = encode(picture, scans, restart, progressive)
                    name = f"{luma} {width}x{height} {len(scans or [0])} scans restart {restart}"
                    batch.like_pillow(name, data)
                    batch.add(f"{name}, without end", data[:-2], pillow(data))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    for quality, subsampling, progressive, restart in itertools.product(
        [30, 75, 95], [0, 1, 2], [False, True], [0, 2]
    ):
        for mode in ["RGB", "L", "CMYK"]:
            options = {"quality": quality, "progressive": progressive}
            if mode != "L":
                options["subsampling"] = subsampling
            data = saved(noise.convert(mode), "JPEG", restart_marker_blocks=restart, **options)
            # Noise shows how differently decoders smooth chroma.
            batch.like_pillow(f"Pillow's {mode} {options}", data, mean=2.5, most=60)
    batch.check()


def check_colours():
    batch = Batch("JPEG, colours by their markers")
    for sampling in [[(1, 1)] * 3, [(2, 2), (1, 1), (1, 1)]]:
        for header in [b"", JFIF, adobe(0), adobe(1), JFIF + adobe(0)]:
            for ids in [[1, 2, 3], [0, 1, 2], [82, 71, 66], [7, 9, 200]]:
                for scans in [None, one_each(3)]:
                    picture = scene(67, 45, sampling)
                    picture.ids = ids
                    name = f"{sampling} {header[4:9]} {ids} {scans and len(scans)}"
                    batch.like_pillow(name, encode(picture, scans, header=header))
    for sampling in [[(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)], [(1, 1), (1, 1), (1, 1), (2, 2)]]:
        for header in [b"", adobe(0), adobe(2)]:
            for scans, progressive in [(None, False), (one_each(4), False), (progression(4), True)]:
                data = encode(scene(67, 45, sampling), scans, 0, progressive, header)
                batch.like_pillow(f"four channels {sampling} {header[4:9]} {progressive}", data)
    for sampling in [*SIDES, (3, 3), (4, 4)]:
        for scans, progressive in [(None, False), (progression(1), True)]:
            data = encode(scene(67, 45, [sampling]), scans, 3, progressive)
            batch.like_pillow(f"grey {sampling} {progressive}", data)
    batch.check()


def check_refused():
    picture = scene(67, 45, [(2, 2), (1, 1), (1, 1)])
    whole = encode(picture)
    batch = Batch("JPEG, kinds that are refused by name")
    for part, data in [
        ("lossless", encode(picture, sof=0xC3)),
        ("arithmetic", encode(picture, sof=0xC9)),
        ("arithmetic", encode(picture, sof=0xCA)),
        ("hierarchical", encode(picture, sof=0xC5)),
        ("more than 8 bits", whole.replace(jpegs.frame(picture, 0xC1), jpegs.frame(picture, 0xC1, 12))),
    ]:
        # None of these is supported, whatever Pillow returns.
        batch.add(part, data, lambda _: "read")
        batch.check(may_refuse=part)
        batch.files.clear()


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width, height, depth, colour, rows, interlaced=False, chunks=b""):
    """A PNG file of samples [height, width, channels], as numbers of `depth` bits."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, across, down in passes:
        part = rows[y::down, x::across]
        if part.size:
            for row in part.reshape(len(part), -1):
                bits = "".join(f"{value:0{depth}b}" for value in row)
                bits += "0" * (-len(bits) % 8)
                data += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    assert rows.shape == (height, width, channels)
    body = chunk(b"IHDR", header)
    if colour == 3:
        palette = np.random.default_rng(1).integers(0, 256, 3 << depth, dtype=np.uint8)
        body += chunk(b"PLTE", palette.tobytes())
    for kind, content in chunks or []:
        body += chunk(kind, content)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def check_png():
    batch = Batch("PNG, every kind")
    generator = np.random.default_rng(2)
    kinds = [(0, d) for d in (1, 2, 4, 8, 16)] + [(3, d) for d in (1, 2, 4, 8)]
    kinds += [(c, d) for c in (2, 4, 6) for d in (8, 16)]
    for colour, depth in kinds:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        transparent = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}.get(colour)
        for width, height in [(1, 1), (7, 5), (33, 20)]:
            rows = generator.integers(0, 1 << depth, (height, width, channels))
            for interlaced in [False, True]:
                for more in [None, [(b"gAMA", struct.pack(">I", 45455))], transparent and [(b"tRNS", transparent)]]:
                    data = png(width, height, depth, colour, rows, interlaced, more)
                    expected = pillow(data)
                    if colour == 0 and depth == 16:
                        # Pillow clips 16-bit grey at 255 instead of scaling it.
                        expected = np.repeat(rows >> 8, 3, 2)
                    batch.add(f"{colour} {depth} bits {width}x{height} {interlaced} {more}", data, expected, 0.1, 1)
    frames = [Image.new("RGB", (20, 30), colour) for colour in ["red", "blue"]]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    batch.like_pillow("animated", data, mean=0, most=0)
    batch.check()


def check_webp():
    batch = Batch("WebP, every kind")
    for width, height in [(1, 1), (7, 5), (64, 48), (133, 71)]:
        picture = Image.open(io.BytesIO(encode(scene(width, height, [(1, 1)] * 3)))).convert("RGB")
        transparent = picture.convert("RGBA")
        transparent.putalpha(picture.convert("L"))
        for image, lossless, method in itertools.product([picture, transparent], [False, True], [0, 4, 6]):
            for quality in [20, 80, 100]:
                options = {"lossless": lossless, "quality": quality, "method": method, "exact": True}
                data = saved(image, "WEBP", **options)
                # Decoders smooth the chroma of lossy files differently.
                apart = {"mean": 0, "most": 0} if lossless else {"mean": 1.5, "most": 30}
                batch.like_pillow(f"{image.mode} {width}x{height} {options}", data, **apart)
        frames = [picture, ImageOps.invert(picture)]
        data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
        batch.like_pillow(f"animated {width}x{height}", data, mean=0, most=0)
    batch.check()


def check_orientation():
    batch = Batch("EXIF orientation", ["--upright"])
    picture = Image.open(io.BytesIO(encode(scene(67, 45, [(1, 1)] * 3))))
    for number, order in itertools.product(range(10), "<>"):
        exif = Image.Exif()
        exif.endian = order
        exif[0x0112] = number
        for kind in ["JPEG", "PNG", "WEBP"]:
            options = {} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
            data = saved(picture.convert("RGB"), kind, exif=exif.tobytes(), **options)
            with Image.open(io.BytesIO(data)) as image:
                expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            batch.add(f"{kind} {number} {order}", data, expected)
    batch.check()


def check_cut():
    """Truncated at any length: an error, or Pillow's result for the whole file."""
    batch = Batch("files that were cut")
    picture = Image.open(io.BytesIO(encode(scene(67, 45, [(1, 1)] * 3)))).convert("RGB")
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (45, 67, 3), dtype=np.uint8))
    thumbnail = saved(picture.resize((16, 16)), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    files = {
        "JPEG": saved(noise, "JPEG"),
        "JPEG with a thumbnail": saved(noise, "JPEG", exif=exif),
        "progressive JPEG": saved(noise, "JPEG", progressive=True),
        "JPEG with restarts": saved(noise, "JPEG", restart_marker_blocks=2),
        "JPEG of several scans": encode(scene(67, 45, [(2, 2), (1, 1), (1, 1)]), one_each(3)),
        "PNG": saved(noise, "PNG"),
        "WebP": saved(noise, "WEBP"),
        "lossless WebP": saved(picture, "WEBP", lossless=True),
    }
    generator = random.Random(4)
    for name, data in files.items():
        whole = pillow(data)

        def verdict(found, whole=whole):
            return difference(found, whole, 2.5, 60)

        lengths = [*range(len(data) - 30, len(data)), *generator.sample(range(20, len(data)), 60)]
        for length in lengths:
            cut = data[:length]
            batch.add(f"{name} cut to {length} of {len(data)}", cut, verdict)
            if "WebP" not in name:
                # A download padded with zeros; WebP's data may end in zeros.
                batch.add(f"{name} cut to {length}, then zeros", cut + bytes(2000), verdict)
    batch.check(may_refuse="is a ")


def check_crop():
    batch = Batch("the middle, as torchvision takes it", ["--crop", "224", "256"])
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    generator = np.random.default_rng(5)
    for width, height in [(500, 375), (375, 500), (100, 90), (256, 256), (300, 2), (2, 300), (900, 30), (1, 1), (3000, 5)]:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = np.asarray(prepare(image))
        batch.add(f"{width}x{height}", saved(image, "PNG"), expected, 0.5, 2)
    batch.check()


def check_filters():
    """Resizing where filters overshoot: noise in black and white, and text."""
    generator = np.random.default_rng(6)
    noise = generator.integers(0, 2, (64, 61, 1), dtype=np.uint8) * 255
    text = Image.new("RGB", (300, 200), "white")
    for line in range(12):
        words = "The quick brown fox jumps over 1234567890 lazy dogs"
        ImageDraw.Draw(text).text((5, 5 + 16 * line), words, fill="black")
    pictures = {
        "black and white": Image.fromarray(noise.repeat(3, 2)),
        "noise": Image.fromarray(generator.integers(0, 256, (48, 37, 3), dtype=np.uint8)),
        "text": text,
    }
    filters = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    for filter, (height, width) in itertools.product(filters, [(20, 20), (56, 56), (100, 150), (96, 61), (64, 97)]):
        batch = Batch(f"{filter} to {width}x{height}", ["--resize", filter, str(height), str(width)])
        for name, image in pictures.items():
            expected = np.asarray(image.resize((width, height), Image.Resampling[filter.upper()]))
            exact = filter in ["nearest", "box"]
            batch.add(name, saved(image, "PNG"), expected, 0.4, 0 if exact else 2)
        batch.check()


check_usual()
check_samplings()
check_colours()
check_refused()
check_png()
check_webp()
check_orientation()
check_cut()
check_crop()
check_filters()
if Batch.failed:
    sys.exit(f"{Batch.failed} files are not as they should be")
print("all images are as they should be")
