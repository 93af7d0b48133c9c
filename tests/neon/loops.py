"""Lists the innermost loops of compiled kernels for arm64 and what their instructions are.

    python3 tests/neon/loops.py target/neon/*/debug/deps/libsdpoint_kernels-*.rlib

Needs `aarch64-linux-gnu-objdump` (Debian's binutils-aarch64-linux-gnu). A row is a loop, or
several with equal counts. Of the instructions, it counts the multiply-adds (`fmla`), those by
element, the loads, the arithmetic on addresses and counters, the moves between vector
registers, and those that access the stack. A tile of P pixels and V vectors has P x V
multiply-adds, so that `grep '^ *28 '` finds the largest.
"""

import re
import subprocess
import sys
from collections import Counter

KINDS = {
    "multiply-adds": r"fmla\b",
    "by element": r"fmla\b.*\.s\[\d\]",
    "loads": r"ld",
    "integer": r"(add|sub|subs|mov|cmp|lsl|madd)\s+[xw]",
    "moves": r"(mov|dup|ext|ins|zip|uzp|trn|rev|tbl)\S*\s+v",
    "stack": r".*\[(sp|x29)\b",
}
BRANCH = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?([0-9a-f]+) <")


def functions(path: str):
    """The functions of an object file or archive, as lists of (address, instruction)."""
    command = ["aarch64-linux-gnu-objdump", "--disassemble", "--no-show-raw-insn", path]
    listing = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    for part in re.split(r"^[0-9a-f]+ <.*>:\n", listing, flags=re.MULTILINE)[1:]:
        lines = re.findall(r"^ *([0-9a-f]+):\t(.*)$", part, flags=re.MULTILINE)
        yield [(int(address, 16), text.split("//")[0]) for address, text in lines]


def innermost_loops(function: list[tuple[int, str]]):
    """The instructions of each loop that contains no other."""
    index = {address: i for i, (address, _) in enumerate(function)}
    loops = set()
    for end, (_, text) in enumerate(function):
        branch = BRANCH.match(text)
        start = index.get(int(branch[1], 16)) if branch else None
        if start is not None and start <= end:
            loops.add((start, end))
    for start, end in loops:
        if not any(start <= s and e <= end for s, e in loops - {(start, end)}):
            yield [text for _, text in function[start : end + 1]]


def main() -> None:
    rows = Counter()
    for path in sys.argv[1:]:
        for function in functions(path):
            for loop in innermost_loops(function):
                counts = [sum(bool(re.match(kind, line)) for line in loop) for kind in KINDS.values()]
                if counts[0] >= 4:
                    rows[(*counts, len(loop))] += 1
    columns = [*KINDS, "instructions", "loops"]
    print("  ".join(columns))
    for row, loops in sorted(rows.items(), reverse=True):
        print("  ".join(f"{n:{len(c)}}" for n, c in zip((*row, loops), columns)))


if __name__ == "__main__":
    main()
