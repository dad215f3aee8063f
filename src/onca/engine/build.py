"""Compiles the native engine's C sources into one shared object beside this file.

It runs when the package is installed (hatch_build.py) and by hand, `python -m onca.engine.build`, where a compiler came
later or the sources have changed. It needs the standard library alone, because at installation nothing else is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "c"
OBJECT = FOLDER / "_native.so"
REASON = FOLDER / "_native.txt"  # why there is no object, in words
REMEDY = "python -m onca.engine.build"


class NotBuilt(ValueError):
    """There is no compiler, or it failed; the message says which, and the remedy."""


def fingerprint() -> str:
    """A hash of the names and the text of all C sources: an object made from other sources is stale."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def compiler() -> list[str]:
    """The command of the C compiler: $CC, else the first of cc, gcc and clang."""
    named = os.environ.get("CC")
    command = shlex.split(named) if named else [found for found in ("cc", "gcc", "clang") if shutil.which(found)][:1]
    if os.name == "nt":
        raise NotBuilt("the native engine is not built on Windows, where it lacks POSIX threads")
    if not command or not shutil.which(command[0]):
        what = f"CC names {named!r}, which is not there" if named else "there is no C compiler (cc, gcc or clang)"
        raise NotBuilt(f"{what}: install one, on Debian and Ubuntu by `apt install gcc`, then run `{REMEDY}`")
    return command


def compile_sources(output: Path, *more: str, program: Path | None = None) -> None:
    """Writes a shared object to `output`; with `program`, a C file that calls the sources, an executable instead.

    `more` are further options. The file appears whole or not at all: an older one may be in use by running programs."""
    shared = [str(program)] if program else ["-shared", "-fPIC"]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".native-") as folder:
        fresh = Path(folder) / output.name
        command = [*compiler(), "-O3", *more, f'-DONCA_BUILT="{fingerprint()}"', f"-I{SOURCES}", *shared, *sources]
        command += ["-o", str(fresh), "-lm", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NotBuilt(f"`{shlex.join(command)}` failed; mend it and run `{REMEDY}`:\n{done.stderr}")
        fresh.replace(output)


def build() -> str:
    """Compiles beside this file. Returns "" or why that was not possible, which is also written down for the engine."""
    try:
        compile_sources(OBJECT)
    except NotBuilt as error:
        OBJECT.unlink(missing_ok=True)
        REASON.write_text(f"{error}\n", encoding="utf-8")
        return str(error)
    REASON.unlink(missing_ok=True)
    return ""


def platform_tag() -> str:
    """The platform that a wheel with the object is for, as in its file name.

    On Linux that is the C library: the newest version of a glibc symbol that the object asks for (PEP 600), since
    instructions are chosen at run time. Without such symbols (another C library) it is for systems like this one.
    """
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    versions = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", OBJECT.read_bytes())]
    if platform.startswith("linux_") and versions:
        return platform.replace("linux_", f"manylinux_2_{max(*versions, 5)}_", 1)
    return platform


if __name__ == "__main__":
    sys.exit(build() or None)
