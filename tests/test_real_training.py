"""A short run on real images learns something that raw pixels do not hold."""

import json
import os
from pathlib import Path

import pytest

from onca.train import Run, train

ROOT = Path(__file__).parent.parent
PACKS = Path(os.environ.get("ONCA_DATA", ROOT / ".." / "shared" / "data")).resolve()
RAW_PIXELS = 7.7  # % top-1 of the 20 nearest neighbours in raw pixels on this set, the better of the two stated floors


@pytest.mark.realdata
def test_three_epochs_beat_raw_pixels(tmp_path: Path) -> None:
    source = PACKS / "tinyimagenet_a"
    if not source.is_dir():
        pytest.skip(f"no real data at {PACKS}: set ONCA_DATA")
    run = Run(data=f"npz:{source}", size=32, images=8000, batch=128, epochs=3, runs=str(tmp_path))
    train(run)
    result = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
    assert result["split"] == "test" and result["images"] == 5000
    assert result["linear_top1"] > RAW_PIXELS + 1  # 10.6 % when written; chance is 1 %
