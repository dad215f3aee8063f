"""The Triton engine's cases, in a process of their own: Triton settles at its first import whether it interprets, and
torchvision imports it. `python -m pytest tests/triton_cases.py` runs them one by one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).with_name("triton_cases.py")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_cases_hold() -> None:
    """38 cases and more, under the interpreter on a CPU; a minute and a half."""
    given = {**os.environ, "TRITON_INTERPRET": "0" if torch.cuda.is_available() else "1"}
    words = [sys.executable, "-m", "pytest", str(CASES), "-p", "no:cacheprovider"]
    done = subprocess.run(words, env=given, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
