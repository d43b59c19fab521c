#!/usr/bin/env python3
"""Check what the files built for one instruction set show to the linker (ARCHITECTURE.md).

    check_isa_symbols.py BUILD

Each may define one global symbol, its table, and no weak one: the linker could take a weak symbol from it for the
whole program, with instructions that the machine lacks. And no other file may contain such instructions.
"""

import pathlib
import re
import subprocess
import sys

BASELINE_ISAS = {"scalar", "neon"}
ALLOWED_UNDEFINED = {"memset", "memcpy", "memmove", "fmaf"}
# Wide registers, and AVX's forms of narrow instructions (vmovss, vfmadd231ss); AArch64's dot product.
BEYOND_BASELINE = re.compile(r"%[yz]mm\d|\tv[a-z0-9]+ .*%xmm|\t[su]dot\t")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tool(build, name):
    """The program that CMake found for what it built: a cross compiler has its own."""
    cache = (build / "CMakeCache.txt").read_text()
    return re.search(rf"^CMAKE_{name.upper()}:FILEPATH=(.+)$", cache, re.MULTILINE)[1]


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    build = pathlib.Path(sys.argv[1])
    isas = re.findall(r"FOURFOLD_ISA\((\w+)\)", (build / "generated/kernels/isas.inc").read_text())
    objects = sorted((build / "CMakeFiles/fourfold.dir/src").rglob("*.o"))
    nm, objdump = tool(build, "nm"), tool(build, "objdump")
    found, checked = [], 0
    for path in objects:
        name = path.name.removesuffix(".cpp.o")
        is_isa = path.parent.name == "kernels" and name in isas
        is_baseline = not is_isa or name in BASELINE_ISAS
        if is_baseline and BEYOND_BASELINE.search(run(objdump, "-d", "--no-show-raw-insn", str(path))):
            found.append(f"{path}: uses instructions that the baseline of the architecture lacks")
        if not is_isa:
            continue
        checked += 1
        for line in run(nm, "-C", str(path)).splitlines():
            kind, symbol = line[17:18], line[19:]
            if kind in "WVuvwC":
                found.append(f"{path}: weak or shared symbol {symbol}")
            elif kind == "U" and symbol not in ALLOWED_UNDEFINED:
                found.append(f"{path}: needs {symbol} from elsewhere")
            elif kind.isupper() and kind != "U" and symbol != f"fourfold::kernels::{name}_table":
                found.append(f"{path}: defines {symbol}, which is not its table")
    if checked != len(isas):
        found.append(f"{build}: {checked} object files for {len(isas)} instruction sets")
    print("\n".join(found + [f"symbols: {checked} instruction sets, {len(objects)} files, {len(found)} findings"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
