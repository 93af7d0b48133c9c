"""Checks the Markdown files of the repository: that every relative link leads to a file in
git and to a heading that exists, and that paths in backticks exist or are ignored by git.

    python3 .ci/check_links.py
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
# Only paths in folders of the repository or of its packages; others may be a user's.
PATH = re.compile(r"`((?:crates|docs|tests|bench|experiments|python|fuzz|\.ci)/[\w./*-]+)`")


def main() -> int:
    """Prints all faults; returns 1 if there are any."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = {file for file in listed.stdout.split("\0") if file}
    folders = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    known = files | folders | {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    pages = {file: (ROOT / file).read_text() for file in files if file.endswith(".md")}
    anchors = {file: set(headings(text)) for file, text in pages.items()}
    faults = []
    for file, text in sorted(pages.items()):
        for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text))):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            folder = str(PurePosixPath(file).parent)
            target = normpath(f"{folder}/{path}") if path else file
            if target not in files | folders:
                faults.append(f"{file}: {link} is not a file in git")
            elif anchor and anchor not in anchors.get(target, {anchor}):
                faults.append(f"{file}: {target} has no heading #{anchor}")
        for path in PATH.findall(text):
            pattern = path.rstrip("/").replace("NAME", "*")
            if not any(fnmatch.filter(known, start + pattern) for start in ("", "*/")):
                faults.append(f"{file}: there is no {path}")
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(pages)} Markdown files, {len(faults)} faults")
    return 1 if faults else 0


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", text)


def headings(text: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in HEADING.findall(prose(text)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        same = sum(1 for other in found if re.fullmatch(re.escape(anchor) + r"(-\d+)?", other))
        found.append(f"{anchor}-{same}" if same else anchor)
    return found


if __name__ == "__main__":
    sys.exit(main())
