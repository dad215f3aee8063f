"""Heat maps, boxes and crops of ContrastiveCrop (arXiv 2202.03278) against the official code."""

import pytest
import torch

from onca import views

PRECISIONS = [torch.float64, torch.float32]


@pytest.mark.golden("contrastive_crop", "box")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_boxes(golden, dtype):
    height, width = golden.tensor("image_hw").tolist()
    maps = views.heat_maps(golden.tensor("features", dtype), height, width)
    golden.close(maps, "heatmap")
    boxes, constant = views.boxes_of(maps, golden.number("threshold"))
    assert torch.equal(boxes, golden.tensor("boxes"))
    places = boxes.double() * torch.tensor([height, width, height, width])
    golden.close(places.round().long(), "box_indices")
    assert not constant.any()


@pytest.mark.golden("contrastive_crop", "params")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_crops(golden, dtype):
    """The recorded draws give the recorded crops; tries that the official code did not make are NaN."""
    height, width = golden.integer("height"), golden.integer("width")
    ratio = tuple(golden["ratio"].tolist())
    share, log_ratio = golden.tensor("area_frac"), golden.tensor("log_ratio")
    extent, fits = views.crop_extents(share, log_ratio, height, width, ratio)
    golden.close(~fits, "fallback")
    boxes, row, column = (golden.tensor(name, dtype) for name in ("box", "beta_row", "beta_col"))
    golden.close(views.place_crop(extent, fits, boxes, row, column, height, width), "crop")
