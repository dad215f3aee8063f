"""Golden vectors of the official codes: which files a test runs on, and how close is close enough.

A module `tests/golden/test_<folder>.py` marks each test with the folder and the start of the file names it reads:

    @pytest.mark.golden("moco_infonce", "case")         # every moco_infonce/case*.npz
    def test_case(golden):
        query = golden.tensor("q")                      # float64; golden.tensor("q", torch.float32) for another
        if golden.text("estimator") == "easy": ...      # 0-d arrays: .text .number .integer .flag
        golden.close(loss, "loss")                      # against the stored array of that name
        golden.close(2 * loss.mean(), golden["loss"])   # or against any array
        golden.close(grad, "grad_q", gradient=True)     # the dtype of the first argument decides the tolerance

Files come from the folder named by ONCA_GOLDEN (default: the folder this file lies in) and are read only when their
test runs. A missing folder, or one without any file of the suffix, fails; a pattern that no file matches does not.
Other files than npz: `@pytest.mark.golden("wordnet", "lca", suffix=".json")`, then `golden.path`.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def close(actual: Any, expected: Any, *, gradient: bool = False) -> None:
    """Assert that two arrays of one shape agree; the dtype of `actual` decides how closely.

    float64: rtol 1e-9, atol 1e-11. Narrower floats: values rtol 2e-5, atol 1e-6; gradients 5e-5 of the largest entry of
    `expected`. Whole numbers, booleans and text: equal. A value that is not finite never agrees.
    """
    found = actual.detach().cpu().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    wanted = np.asarray(expected)
    assert found.shape == wanted.shape, f"shape {found.shape}, golden shape {wanted.shape}"
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    if found.dtype == np.float64:
        rtol, atol = 1e-9, 1e-11
    elif gradient:
        rtol, atol = 0.0, 5e-5 * float(np.abs(wanted).max(initial=0.0))
    else:
        rtol, atol = 2e-5, 1e-6
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=rtol, atol=atol, equal_nan=False)


@dataclass(frozen=True)
class Golden:
    """One golden file: its arrays by name, and comparison with them."""

    path: Path

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The array as a fresh tensor; `dtype` converts floats, and leaves whole numbers and booleans alone."""
        tensor = torch.from_numpy(np.array(self[name]))
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

    def number(self, name: str) -> float:
        return float(self[name])

    def integer(self, name: str) -> int:
        assert float(self[name]).is_integer(), f"{name} is {self[name]}, not a whole number"
        return int(self[name])

    def flag(self, name: str) -> bool:
        return bool(self[name])

    def text(self, name: str) -> str:
        return str(self[name])

    def close(self, actual: Any, expected: Any, *, gradient: bool = False) -> None:
        """`close`, with `expected` the name of a stored array or an array."""
        close(actual, self[expected] if isinstance(expected, str) else expected, gradient=gradient)


def files(folder: str, pattern: str, suffix: str) -> list[Any]:
    """One parameter a file, or one that fails its test when the folder is missing or holds no such file at all."""
    place = Path(os.environ.get("ONCA_GOLDEN") or Path(__file__).parent) / folder
    if not any(place.glob(f"*{suffix}")):
        return [pytest.param(f"no golden file *{suffix} in {place}", id=f"{folder}/missing")]
    return [pytest.param(path, id=f"{folder}/{path.stem}") for path in sorted(place.glob(f"{pattern}*{suffix}"))]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(folder, pattern, suffix='.npz'): runs on each such golden file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        folder, pattern = marker.args
        metafunc.parametrize("golden", files(folder, pattern, marker.kwargs.get("suffix", ".npz")), indirect=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden | str:
    return request.param if isinstance(request.param, str) else Golden(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """What is missing fails the test itself: failing in the fixture would be reported as a broken set-up."""
    missing = pyfuncitem.funcargs.get("golden")
    if isinstance(missing, str):
        pytest.fail(missing)
