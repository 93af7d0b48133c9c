#!/usr/bin/env python3
"""Enlarges the images of archives, for experiments with random resized crops:

    python3 -m pip install pillow
    python3 experiments/enlarge.py DIR/cifar10-train.tar.gz DIR/cifar10-test.tar.gz -o LARGE --side 96
    sdpoint train --data tar:LARGE --input 32
"""

import argparse
import io
import pathlib
import tarfile

from PIL import Image


def enlarge(source, target, side):
    """Copies an archive of images, each with `side` pixels in both directions."""
    with tarfile.open(source) as images, tarfile.open(target, "w") as large:
        for member in images:
            if not member.isfile():
                continue
            image = Image.open(images.extractfile(member)).convert("RGB")
            content = io.BytesIO()
            image.resize((side, side), Image.Resampling.BICUBIC).save(content, "JPEG", quality=95)
            entry = tarfile.TarInfo(member.name)
            entry.size = content.tell()
            content.seek(0)
            large.addfile(entry, content)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", nargs="+", type=pathlib.Path, metavar="ARCHIVE")
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=96, metavar="N")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for archive in arguments.archives:
        name = archive.name.split(".")[0] + ".tar"
        enlarge(archive, arguments.output / name, arguments.side)


if __name__ == "__main__":
    main()
