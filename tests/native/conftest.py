"""The C sources compiled for a file of tests, once with AMX as plain C, and the levels that run here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sums_driver
from driver import COMPILER, Library, compiled

from onca.engine import build

LEVELS = ("portable", "avx2", "avx512", "amx")


@pytest.fixture(scope="module")
def object_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    return compiled(tmp_path_factory.mktemp("native"))


@pytest.fixture(params=LEVELS)
def library(request: pytest.FixtureRequest, object_file: Path) -> Library:
    library = Library(object_file)
    if not library.use(request.param):
        pytest.skip(f"this processor has no {request.param}")
    return library


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> sums_driver.Native:
    try:
        return sums_driver.Native(tmp_path_factory.mktemp("native"))
    except build.NotBuilt as error:
        pytest.skip(str(error))


@pytest.fixture(params=LEVELS)
def levelled(request: pytest.FixtureRequest, native: sums_driver.Native) -> Iterator[sums_driver.Native]:
    before = native.level
    if not native.use(request.param):
        pytest.skip(f"no {request.param} on this machine")
    yield native
    native.use(before)
