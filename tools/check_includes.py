#!/usr/bin/env python3
"""Check that includes point one way (ARCHITECTURE.md).

    check_includes.py [ROOT]
"""

import pathlib
import re
import sys

# What a folder may include, besides itself and the public headers.
ALLOWED = {
    "src/base": set(),
    "src/kernels": {"base"},
    "src/quant": {"kernels", "base"},
    "src/layers": {"kernels", "base"},
    "src/formats": {"base"},
    "src/modules": {"layers", "formats", "quant", "kernels", "base"},
    "cli": {"modules", "formats", "base"},
    "python/src": {"modules", "layers", "formats", "quant", "base"},
    "include": set(),
}
FOLDERS = {name.split("/")[1] for name in ALLOWED if name.startswith("src/")}


def offences(folder, text):
    """Yields (line number, included path) for each include in `text` that a file of `folder` may not have."""
    own = folder.split("/")[-1]
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quoted, path = match[1] == '"', match[2]
        target = path.split("/")[0]
        if not quoted and target not in FOLDERS and folder != "include":
            continue  # a header of the system or of a dependency
        if folder == "include":
            allowed = target == "fourfold" or (not quoted and re.fullmatch(r"[a-z0-9_]+", path) is not None)
        elif target in FOLDERS:
            allowed = target == own or target in ALLOWED[folder]
        else:
            allowed = "/" not in path or target == "fourfold"
        if not allowed:
            yield number, path


def self_test():
    """The check finds what it is for."""
    assert list(offences("src/layers", '#include "formats/formats.h"\n')) == [(1, "formats/formats.h")]
    assert list(offences("src/base", '\n#include "kernels/pack.h"')) == [(2, "kernels/pack.h")]
    assert list(offences("include", '#include "kernels/pack.h"')) == [(1, "kernels/pack.h")]
    assert list(offences("src/layers", "#include <formats/formats.h>")) == [(1, "formats/formats.h")]
    assert list(offences("src/layers", '#include "../formats/formats.h"')) == [(1, "../formats/formats.h")]
    assert list(offences("include", "#include <nlohmann/json.hpp>")) == [(1, "nlohmann/json.hpp")]
    assert not list(offences("src/modules", '#include "layers/lstm.h"\n#include <vector>'))
    assert not list(offences("src/modules", "#include <nlohmann/json.hpp>"))


def main():
    self_test()
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    found = files = 0
    for path in sorted((root / "src").iterdir()):
        if f"src/{path.name}" not in ALLOWED:
            print(f"{path}: not a folder that the rules know")
            found += 1
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".h", ".cpp"}:
                continue
            files += 1
            for number, target in offences(folder, path.read_text()):
                uses = ", ".join(sorted(allowed)) or "nothing but itself"
                print(f"{path}:{number}: {folder} may not include {target}; it may use {uses} and public headers")
                found += 1
    if files == 0:
        print(f"{root}: no sources found", file=sys.stderr)
        return 2
    print(f"includes: {files} files, {found} against the direction")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
