"""Building the native engine: what an installation compiles, says, and puts into a wheel."""

import ctypes
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from onca.engine import build, native

ROOT = Path(__file__).parent.parent
try:
    build.compiler()
    no_compiler = ""
except build.NotBuilt as error:
    no_compiler = str(error)
compiled = pytest.mark.skipif(bool(no_compiler), reason=no_compiler or "there is a compiler")


@pytest.fixture(autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles without optimising: the time goes there, and it is nothing to these tests."""
    if not no_compiler:
        script = tmp_path_factory.mktemp("bin") / "quick"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(build.compiler())} "$@" -O0\n', encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setenv("CC", str(script))


@pytest.fixture
def fresh(tmp_path: Path) -> SimpleNamespace:
    """The build of a copy of the engine's folder, which holds no object yet."""
    folder = tmp_path / "engine"
    shutil.copytree(build.FOLDER, folder, ignore=shutil.ignore_patterns("_native.*", "__pycache__"))
    return SimpleNamespace(**runpy.run_path(str(folder / "build.py")))


def load_alone(path: Path) -> str:
    """What the object says in a Python that has neither torch nor onca."""
    program = (
        "import sys; from ctypes import *; made = CDLL(sys.argv[1]); made.onca_level.restype = c_char_p; "
        "print(made.onca_level().decode(), string_at(addressof(c_char.in_dll(made, 'onca_built'))))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, path], capture_output=True, text=True, check=True)
    return done.stdout


@compiled
def test_the_object_loads_without_torch_and_knows_its_sources(fresh: SimpleNamespace) -> None:
    assert fresh.build() == ""
    assert not fresh.REASON.exists()
    level, built = load_alone(fresh.OBJECT).split()
    assert level in ("portable", "avx2", "avx512", "amx")
    assert built == repr(fresh.fingerprint().encode())


@compiled
def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    build.compile_sources(tmp_path / "strict.so", "-Wall", "-Wextra", "-Werror")


@compiled
def test_a_warning_would_be_seen(fresh: SimpleNamespace, tmp_path: Path) -> None:
    (fresh.SOURCES / "native.c").write_text("static int unused;\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)failed; mend it and run `python -m onca.engine.build`.*unused"):
        fresh.compile_sources(tmp_path / "strict.so", "-Wall", "-Werror")
    assert not (tmp_path / "strict.so").exists()


@compiled
def test_an_object_made_from_other_sources_is_refused(fresh: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fresh.build() == ""
    monkeypatch.setattr(build, "OBJECT", fresh.OBJECT)
    monkeypatch.setattr(build, "SOURCES", fresh.SOURCES)
    for name in ("native.c", "onca.h"):
        assert isinstance(native.library.__wrapped__(), ctypes.CDLL)
        text = (fresh.SOURCES / name).read_text(encoding="utf-8")
        (fresh.SOURCES / name).write_text(text + "/* changed */\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"from other sources than .*: run `python -m onca.engine.build`"):
            native.library.__wrapped__()
        (fresh.SOURCES / name).write_text(text, encoding="utf-8")


def test_without_a_compiler_the_note_names_the_remedy(fresh: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    fresh.OBJECT.write_bytes(b"an older object")
    reason = fresh.build()
    assert "no C compiler (cc, gcc or clang)" in reason
    assert "`apt install gcc`, then run `python -m onca.engine.build`" in reason
    assert not fresh.OBJECT.exists()  # it would be another's
    monkeypatch.setattr(build, "OBJECT", fresh.OBJECT)
    monkeypatch.setattr(build, "REASON", fresh.REASON)
    with pytest.raises(ValueError, match=re.escape(f"the native engine was not compiled: {reason}")):
        native.library.__wrapped__()


def test_a_compiler_that_is_named_and_not_there(fresh: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -pipe")
    assert "CC names 'no-such-compiler -pipe', which is not there" in fresh.build()


def test_what_is_no_object_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "OBJECT", tmp_path / "_native.so")
    monkeypatch.setattr(build, "REASON", tmp_path / "_native.txt")
    with pytest.raises(ValueError, match=r"not compiled: run `python -m onca.engine.build`"):
        native.library.__wrapped__()
    build.OBJECT.write_bytes(b"no object")
    with pytest.raises(ValueError, match=r"does not load \(.*: run `python -m onca.engine.build`"):
        native.library.__wrapped__()


def test_importing_onca_loads_no_object() -> None:
    program = (
        "import sys, onca; assert 'onca.engine.native' not in sys.modules; "
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''; assert '_native.so' not in maps"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Packages, built by the build backend itself, without an index.

hatchling = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True).returncode != 0,
    reason="the build backend is not in this environment: pip install hatchling",
)


def package(target: str, folder: Path, environment: Mapping[str, str]) -> Path:
    """Builds a wheel or sdist of the files that git would take, in a folder of their own."""
    copy = folder / "copy"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file() and not name.startswith(("docs/", "tests/golden/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    made = folder / "made"
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(made)]
    subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=True)
    (found,) = made.iterdir()
    return found


@compiled
@hatchling
def test_a_wheel_holds_the_object_and_its_sources_and_names_its_platform(tmp_path: Path) -> None:
    wheel = package("wheel", tmp_path, os.environ)
    here = zipfile.ZipFile(wheel).namelist()
    assert "onca/engine/_native.so" in here and "onca/engine/_native.txt" not in here
    assert {f"onca/engine/c/{path.name}" for path in build.SOURCES.glob("*.[ch]")} <= set(here)
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
    made = tmp_path / "site" / "onca" / "engine" / "_native.so"
    assert repr(build.fingerprint().encode()) in load_alone(made)
    tag = wheel.stem.split("-", 2)[2]
    about = next((tmp_path / "site").glob("onca-*.dist-info/WHEEL")).read_text(encoding="utf-8")
    assert "Root-Is-Purelib: false" in about and f"Tag: {tag}\n" in about
    newest = re.fullmatch(r"py3-none-manylinux_2_(\d+)_x86_64", tag)
    if newest:
        needs = {int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", made.read_bytes())}
        assert int(newest[1]) == max(needs)


@hatchling
def test_without_a_compiler_the_wheel_is_for_everyone_and_says_why(tmp_path: Path) -> None:
    wheel = package("wheel", tmp_path, {"PATH": "/nowhere"})
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert "onca/engine/_native.so" not in opened.namelist()
        assert b"no C compiler" in opened.read("onca/engine/_native.txt")


@hatchling
def test_an_sdist_holds_the_sources_and_no_object(tmp_path: Path) -> None:
    with tarfile.open(package("sdist", tmp_path, os.environ)) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames()}
    assert "hatch_build.py" in names
    assert {f"src/onca/engine/c/{path.name}" for path in build.SOURCES.glob("*.[ch]")} <= names
    assert not [name for name in names if "/_native." in name]
