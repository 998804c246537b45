# SPDX-License-Identifier: Apache-2.0
"""Compile every Python file below the given folders whose bytecode is missing or of another source.

The bytecode is of the kind `unchecked-hash`: Python neither compiles nor compares times when it starts,
which also holds where the image's build rewrote all times. A file that is already so stays untouched, so
that a project's layer holds only what the project adds.

    python compile_bytecode.py FOLDER...
"""

from __future__ import annotations

import importlib.util
import py_compile
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_UNCHECKED_HASH = 1
_HEADER_BYTES = 16


def is_current(source: Path, compiled: Path) -> bool:
    """Tell whether the bytecode is unchecked-hash and made of this very source."""
    try:
        with compiled.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return False
    return (
        header[:4] == importlib.util.MAGIC_NUMBER
        and int.from_bytes(header[4:8], "little") == _UNCHECKED_HASH
        and header[8:] == importlib.util.source_hash(source.read_bytes())
    )


def compile_file(source: Path) -> bool:
    """Compile one file where it is needed; False for a file that is not Python of this version."""
    compiled = Path(importlib.util.cache_from_source(str(source)))
    if is_current(source, compiled):
        return True
    try:
        py_compile.compile(
            str(source),
            cfile=str(compiled),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except (py_compile.PyCompileError, UnicodeDecodeError):
        return False  # templates and test data of packages; nothing imports them
    return True


def main(folders: list[str]) -> int:
    """Compile everything below the folders."""
    sources = sorted(path for folder in folders for path in Path(folder).rglob("*.py") if path.is_file())
    with ProcessPoolExecutor() as pool:
        compiled = list(pool.map(compile_file, sources, chunksize=64))
    skipped = [str(path) for path, done in zip(sources, compiled, strict=True) if not done]
    sys.stdout.write(f"bytecode: {len(sources)} files, {len(skipped)} not compilable {skipped[:5]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
