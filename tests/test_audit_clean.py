"""Nothing is raised on clean runs: 5 of them in every test run, 50 with ONCA_CLEAN_RUNS=50 (make audit-check)."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from audit_runs import clean, clean_settings

RUNS = list(itertools.islice(clean_settings(), int(os.environ.get("ONCA_CLEAN_RUNS", "5"))))


@pytest.mark.parametrize("settings", RUNS, ids=lambda settings: " ".join(f"{k}={v}" for k, v in settings.items()))
def test_a_clean_run_raises_no_alarm(settings: dict[str, Any], tmp_path: Path) -> None:
    assert clean(tmp_path, settings) == {}
