"""Split batch norm against the official code (MoCo's CIFAR notebook)."""

import pytest
import torch

from onca.encoders import SplitBatchNorm2d


@pytest.mark.golden("split_bn", "case")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_case(golden, dtype, memory_format):
    x = golden.tensor("x", dtype).contiguous(memory_format=memory_format)
    norm = SplitBatchNorm2d(
        x.shape[1], golden.integer("num_splits"), eps=golden.number("eps"), momentum=golden.number("momentum")
    ).to(dtype)
    names = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict({name: golden.tensor(name, dtype) for name in names}, strict=False)

    output = norm.train()(x)
    golden.close(output, "train_out")
    golden.close(norm.running_mean, "running_mean_after")
    golden.close(norm.running_var, "running_var_after")
    golden.close(norm.eval()(x), "eval_out_after")
    assert output.is_contiguous(memory_format=memory_format)
