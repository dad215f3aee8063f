"""What every test finds: one thread a process, and packs of small images as a source of data."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: bits depend on it, and threads of many processes collide

import pytest
from little_runs import write_packs

from onca.data import Splits
from onca.train import Run, load_data


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_packs(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="session")
def data(source: str) -> Splits:
    return load_data(Run(data=source))
