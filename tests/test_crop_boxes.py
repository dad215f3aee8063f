"""ContrastiveCrop's boxes against the true boxes of real images: what must hold, whatever the encoder has learnt."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import boxes


def loops(one, other):
    """IoU of two boxes by counting the pixels of an 8 x 8 image."""
    inside = [
        {(y, x) for y in range(8) for x in range(8) if t <= y < b and left <= x < right}
        for t, left, b, right in (one, other)
    ]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


def test_iou_counts_pixels():
    draws = torch.Generator().manual_seed(0)
    ends = torch.randint(0, 8, (50, 2, 4), generator=draws).sort(2).values
    ends = torch.stack((ends[..., 0], ends[..., 1], ends[..., 2] + 1, ends[..., 3] + 1), 2)
    found = boxes.iou(ends[:, 0].double(), ends[:, 1].double())
    expected = [loops(*pair) for pair in ends.tolist()]
    assert found.tolist() == pytest.approx(expected)
    assert 0 < min(value for value in expected if value) < max(expected) <= 1 and 0 in expected


def test_found_boxes_hold_their_last_row_and_column_and_fixed_ones_are_exact():
    shares = torch.tensor([[0.0, 16 / 64, 31 / 64, 63 / 64], [0.0, 0.0, 1.0, 1.0]])
    assert boxes.in_pixels(shares, 64, 64, found=True).tolist() == [[0, 16, 32, 64], [0, 0, 64, 64]]
    assert boxes.in_pixels(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), 64, 32).tolist() == [[16, 8, 48, 24]]


@pytest.mark.realdata
def test_boxes_of_a_short_training_on_tiny_imagenet(tmp_path):
    if not boxes.PACKS.is_dir():
        pytest.skip(f"no real data at {boxes.PACKS}: set ONCA_DATA")
    crop = "contrastive_crop(warmup=1)"
    images, measured = boxes.train(0, str(tmp_path), images=400, epochs=2, encoder="small(8)", queue=128, crop=crop)
    assert len(images) == 400 and len(measured) == 3
    truth = boxes.true_boxes(images)
    assert (truth[:, :2] < truth[:, 2:]).all() and (truth >= 0).all() and (truth <= 64).all()

    result = boxes.summarise(images, [measured])
    area = (truth[:, 2:] - truth[:, :2]).prod(1) / 64**2
    assert result["fixed"]["whole image"]["mean"] == pytest.approx(float(area.mean()), abs=1e-4)
    middle = [(max(0, min(b, 48) - max(t, 16)), max(0, min(r, 48) - max(left, 16))) for t, left, b, r in truth.tolist()]
    shared = torch.tensor([high * wide for high, wide in middle], dtype=torch.float64)
    expected = shared / (32 * 32 + area * 64**2 - shared)
    assert result["fixed"]["fixed_crop(margin=0.25)"]["mean"] == pytest.approx(float(expected.mean()), abs=1e-4)

    for by_threshold in measured:
        areas = []
        for threshold in boxes.THRESHOLDS:
            found = by_threshold[threshold]
            assert ((found["iou"] >= 0) & (found["iou"] <= 1)).all() and len(found["iou"]) == 400
            assert ((found["area"] > 0) & (found["area"] <= 1)).all()
            areas.append(found["area"])
        live = by_threshold[0.5]["constant"] == 0
        assert (areas[0] >= areas[1])[live].all() and (areas[1] >= areas[2])[live].all()  # boxes lie in one another
    assert len(boxes.table(result)) == len(boxes.FIXED) + 3 * len(boxes.THRESHOLDS)
