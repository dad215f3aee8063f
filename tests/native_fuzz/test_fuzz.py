"""The native engine against plain C loops, on drawn cases, under the address and undefined-behaviour sanitizers.

By hand, for longer: `python tests/native_fuzz/test_fuzz.py FIRST COUNT`.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from onca.engine import build

HERE = Path(__file__).parent
WRAPPED = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "pthread_create")
WRAPPED += ("onca_select", "onca_sums", "onca_above", "onca_nearest")
OPTIONS = ("-g", "-Og", "-fno-sanitize-recover=all", "-Wno-psabi", *(f"-Wl,--wrap={name}" for name in WRAPPED))
MEMORY = "-fsanitize=address,undefined"


def sanitizers(sanitizer: str = MEMORY) -> str:
    """Why this sanitizer cannot be used here, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "empty.c"), Path(folder, "empty")
        source.write_text("int main(void) { return 0; }\n", encoding="utf-8")
        try:
            command = [*build.compiler(), sanitizer, str(source), "-o", str(program)]
        except build.NotBuilt as missing:
            return str(missing)
        for step in (command, [str(program)]):
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                return f"{shlex.join(step)} fails: {done.stderr}"
    return ""


pytestmark = pytest.mark.skipif(bool(sanitizers()), reason=sanitizers() or "they are here")


def compiled(folder: Path, sanitizer: str) -> Path:
    build.compile_sources(folder / "fuzz", *OPTIONS, sanitizer, program=HERE / "fuzz.c")
    return folder / "fuzz"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("fuzz"), MEMORY)


def run(program: Path, first: int, number: int, fault: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, str(first), str(number), str(fault)], capture_output=True, text=True)


def test_drawn_cases_hold(fuzz: Path) -> None:
    done = run(fuzz, 0, 150)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "150 cases hold\n"


FAULTS = ("select: row 0", "sums: ", "heap-buffer-overflow", "nearest: status 0", "detected memory leaks", "keeps")


@pytest.mark.parametrize("fault", range(1, 7), ids=lambda fault: FAULTS[fault - 1])
def test_planted_faults_are_found(fuzz: Path, fault: int) -> None:
    done = run(fuzz, 0, 40, fault)
    assert done.returncode != 0
    assert FAULTS[fault - 1] in done.stderr
    assert "seed " in done.stderr or "leaks" in FAULTS[fault - 1]


@pytest.mark.skipif(bool(sanitizers("-fsanitize=thread")), reason="the compiler cannot check threads")
def test_threads_do_not_race(tmp_path: Path) -> None:
    done = run(compiled(tmp_path, "-fsanitize=thread"), 0, 12)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(subprocess.run([compiled(Path(folder), MEMORY), *sys.argv[1:3]]).returncode)
