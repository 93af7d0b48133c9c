"""A JPEG encoder with features that ordinary encoders lack: any sampling of any component,
any order and partition of scans, restart intervals, progressive scans with refinement.

It is for tests: short rather than fast.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))

# A smooth quantisation table, fine enough that decoders are compared and not the encoder.
QUANTISER = np.array([2 + (i // 8 + i % 8) // 2 for i in range(64)])

DCT = np.array(
    [
        [(1 if k else 0.5**0.5) / 2 * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(8)]
        for k in range(8)
    ]
)


def flat_table():
    """Codes of eight and nine bits for all 256 symbols: legal, and no optimisation needed."""
    counts = [0] * 16
    counts[7:9] = 200, 56
    return counts, list(range(256))


# Table K.3 of ITU-T T.81: the standard table for DC of luma, which Motion JPEG leaves out.
STANDARD_DC = ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], list(range(12)))


def codes_of(table):
    counts, symbols = table
    codes, code, at = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[symbols[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return codes


DC_TABLE, AC_TABLE = STANDARD_DC, flat_table()
DC_CODES, AC_CODES = codes_of(DC_TABLE), codes_of(AC_TABLE)


@dataclass
class Scan:
    components: list
    first: int = 0
    last: int = 63
    high: int = 0
    low: int = 0


@dataclass
class Picture:
    """Components of any size, each the whole picture with sampling factors `h` and `v`."""

    width: int
    height: int
    sampling: list
    planes: list
    ids: list = field(default_factory=lambda: [1, 2, 3, 4])

    def __post_init__(self):
        self.h_most = max(h for h, _ in self.sampling)
        self.v_most = max(v for _, v in self.sampling)
        self.blocks = [self.quantised(i) for i in range(len(self.sampling))]

    def mcus(self):
        return -(-self.width // (8 * self.h_most)), -(-self.height // (8 * self.v_most))

    def side(self, component):
        """The component's own width and height."""
        h, v = self.sampling[component]
        return -(-self.width * h // self.h_most), -(-self.height * v // self.v_most)

    def quantised(self, component):
        """Coefficients [rows of blocks, blocks, 64] in zigzag order, padded to whole MCUs."""
        h, v = self.sampling[component]
        across, down = self.mcus()
        plane = self.planes[component]
        width, height = self.side(component)
        assert plane.shape == (height, width), (plane.shape, height, width)
        pad = ((0, down * v * 8 - height), (0, across * h * 8 - width))
        plane = np.pad(plane.astype(float), pad, "edge") - 128
        tiles = plane.reshape(down * v, 8, across * h, 8).transpose(0, 2, 1, 3)
        coefficients = (DCT @ tiles @ DCT.T).reshape(down * v, across * h, 64)
        return np.rint(coefficients / QUANTISER).astype(int)[:, :, ZIGZAG]


class Bits:
    def __init__(self):
        self.out, self.value, self.count = bytearray(), 0, 0

    def put(self, value, count):
        self.value = (self.value << count) | value
        self.count += count
        while self.count >= 8:
            byte = (self.value >> (self.count - 8)) & 0xFF
            self.out += bytes([byte, 0] if byte == 0xFF else [byte])
            self.count -= 8
        self.value &= (1 << self.count) - 1

    def code(self, codes, symbol):
        self.put(*codes[symbol])

    def magnitude(self, value):
        size = abs(value).bit_length()
        self.put(value if value >= 0 else value + (1 << size) - 1, size)

    def pad(self):
        if self.count:
            self.put((1 << (8 - self.count)) - 1, 8 - self.count)


class Coder:
    """The entropy-coded data of one scan."""

    def __init__(self, picture, scan, restart, progressive):
        self.picture, self.scan, self.restart = picture, scan, restart
        self.bits = Bits()
        self.reset()
        code = self.sequential
        if progressive and scan.first == 0:
            code = self.dc_refine if scan.high else self.dc_first
        elif progressive:
            code = self.ac_refine if scan.high else self.ac_first
        for number, unit in enumerate(self.units()):
            if restart and number and number % restart == 0:
                self.flush()
                self.bits.pad()
                self.bits.out += bytes([0xFF, 0xD0 + (number // restart - 1) % 8])
                self.reset()
            for component, block in unit:
                code(component, block)
        self.flush()
        self.bits.pad()

    def reset(self):
        self.before = {c: 0 for c in self.scan.components}
        self.run, self.pending = 0, []

    def units(self):
        picture, components = self.picture, self.scan.components
        if len(components) == 1:
            (c,) = components
            width, height = picture.side(c)
            for y in range(-(-height // 8)):
                for x in range(-(-width // 8)):
                    yield [(c, picture.blocks[c][y, x])]
            return
        across, down = picture.mcus()
        for y in range(down):
            for x in range(across):
                yield [
                    (c, picture.blocks[c][y * v + j, x * h + i])
                    for c in components
                    for h, v in [picture.sampling[c]]
                    for j in range(v)
                    for i in range(h)
                ]

    def sequential(self, component, block):
        self.dc(component, int(block[0]))
        run = 0
        for value in map(int, block[1:]):
            if value == 0:
                run += 1
                continue
            while run > 15:
                self.bits.code(AC_CODES, 0xF0)
                run -= 16
            self.bits.code(AC_CODES, run << 4 | abs(value).bit_length())
            self.bits.magnitude(value)
            run = 0
        if run:
            self.bits.code(AC_CODES, 0)

    def dc(self, component, value):
        difference = value - self.before[component]
        self.before[component] = value
        self.bits.code(DC_CODES, abs(difference).bit_length())
        self.bits.magnitude(difference)

    def dc_first(self, component, block):
        self.dc(component, int(block[0]) >> self.scan.low)

    def dc_refine(self, component, block):
        self.bits.put((int(block[0]) >> self.scan.low) & 1, 1)

    def band(self, block):
        values = [int(v) for v in block[self.scan.first : self.scan.last + 1]]
        return [(abs(v) >> self.scan.low) * (1 if v >= 0 else -1) for v in values]

    def ac_first(self, component, block):
        run = 0
        for value in self.band(block):
            if value == 0:
                run += 1
                continue
            self.flush()
            while run > 15:
                self.bits.code(AC_CODES, 0xF0)
                run -= 16
            self.bits.code(AC_CODES, run << 4 | abs(value).bit_length())
            self.bits.magnitude(value)
            run = 0
        if run:
            self.end_of_block([])

    def ac_refine(self, component, block):
        values = self.band(block)
        newest = max((k for k, v in enumerate(values) if abs(v) == 1), default=-1)
        run, corrections = 0, []
        for k, value in enumerate(values):
            if value == 0:
                run += 1
                continue
            while run > 15 and k <= newest:
                self.flush()
                self.bits.code(AC_CODES, 0xF0)
                run -= 16
                self.correct(corrections)
                corrections = []
            if abs(value) > 1:
                corrections.append(abs(value) & 1)
                continue
            self.flush()
            self.bits.code(AC_CODES, run << 4 | 1)
            self.bits.put(int(value > 0), 1)
            self.correct(corrections)
            run, corrections = 0, []
        if run or corrections:
            self.end_of_block(corrections)

    def correct(self, corrections):
        for bit in corrections:
            self.bits.put(bit, 1)

    def end_of_block(self, corrections):
        self.run += 1
        self.pending += corrections
        if self.run == 0x7FFF:
            self.flush()

    def flush(self):
        if self.run:
            size = self.run.bit_length() - 1
            self.bits.code(AC_CODES, size << 4)
            self.bits.put(self.run - (1 << size), size)
            self.correct(self.pending)
            self.run, self.pending = 0, []


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def tables():
    return segment(0xC4, bytes([0x00, *DC_TABLE[0], *DC_TABLE[1]])) + segment(
        0xC4, bytes([0x10, *AC_TABLE[0], *AC_TABLE[1]])
    )


def frame(picture, marker, precision=8):
    parts = zip(picture.ids, picture.sampling)
    body = struct.pack(">BHHB", precision, picture.height, picture.width, len(picture.sampling))
    return segment(marker, body + b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in parts))


def scan_data(picture, scan, restart, progressive):
    listed = b"".join(bytes([picture.ids[c], 0x00]) for c in scan.components)
    last = bytes([scan.first, scan.last, scan.high << 4 | scan.low])
    head = segment(0xDA, bytes([len(scan.components)]) + listed + last)
    return head + bytes(Coder(picture, scan, restart, progressive).bits.out)


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform):
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def encode(picture, scans=None, restart=0, progressive=False, header=JFIF, sof=None):
    """A whole file. Without scans, one with all components."""
    scans = scans or [Scan(list(range(len(picture.sampling))))]
    marker = sof or (0xC2 if progressive else 0xC1)
    out = b"\xff\xd8" + header
    out += segment(0xDB, bytes([0, *QUANTISER[ZIGZAG]])) + frame(picture, marker) + tables()
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    for scan in scans:
        out += scan_data(picture, scan, restart, progressive)
    return out + b"\xff\xd9"


def one_each(count):
    return [Scan([c]) for c in range(count)]


def progression(count, interleaved=True):
    """Scans as in common encoders: DC first, AC in spectral bands, one bit of refinement each."""
    components = list(range(count))
    dc = [components] if interleaved else [[c] for c in components]
    scans = [Scan(c, 0, 0, 0, 1) for c in dc]
    scans += [Scan([c], 1, 5, 0, 1) for c in components]
    scans += [Scan([c], 6, 63, 0, 1) for c in components]
    scans += [Scan(c, 0, 0, 1, 0) for c in dc]
    return scans + [Scan([c], 1, 63, 1, 0) for c in components]


def scene(width, height, sampling, kind="smooth"):
    """A picture of smooth colours, sampled as `sampling` says."""
    h_most = max(h for h, _ in sampling)
    v_most = max(v for _, v in sampling)
    planes = []
    for number, (h, v) in enumerate(sampling):
        w, t = -(-width * h // h_most), -(-height * v // v_most)
        x = (np.arange(w) + 0.5) * h_most / h
        y = (np.arange(t) + 0.5) * v_most / v
        x, y = np.meshgrid(x / max(width, 8), y / max(height, 8))
        wave = np.sin(3.1 * x * (1 + number % 2) + number) * np.cos(2.7 * y + number)
        planes.append(np.clip(128 + 75 * wave + (20 * x if kind == "smooth" else 0), 0, 255).round().astype(np.uint8))
    return Picture(width, height, sampling, planes)
