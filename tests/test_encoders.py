"""Encoders: what the names build, what they accept, and split batch norm against one batch norm a part."""

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onca.encoders import SplitBatchNorm2d, make, split_batch_norm

NAMES = ["small(8)", "resnet18", "resnet18(stem='small')", "resnet50(stem='small')"]


def images(count=4, size=32, dtype=torch.float32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def encoder(name="small(8)", head="mlp", dim=6):
    torch.manual_seed(0)
    return make(name, head, dim)


@pytest.mark.parametrize("width", [1, 8])
def test_small_is_five_convolutions_and_a_mean(width):
    backbone = encoder(f"small({width})").backbone
    convolutions = [layer for layer in backbone if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [width * factor for factor in (1, 2, 2, 4, 4)]
    assert [layer.stride for layer in convolutions] == [(s, s) for s in (2, 2, 1, 2, 1)]
    assert all(layer.kernel_size == (3, 3) and layer.bias is None for layer in convolutions)
    names = [type(layer).__name__ for layer in backbone]
    assert names == 5 * ["Conv2d", "BatchNorm2d", "ReLU"] + ["AdaptiveAvgPool2d", "Flatten"]
    maps = backbone[:-2](images())
    assert maps.shape == (4, 4 * width, 4, 4)
    torch.testing.assert_close(backbone(images()), maps.mean(dim=(2, 3)))


@pytest.mark.parametrize(("name", "width"), list(zip(NAMES, (32, 512, 512, 2048), strict=True)))
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_features_and_embeddings(name, width, head):
    made = encoder(name, head).eval()
    features = made.features(images())
    assert made.width == width and features.shape == (4, width)
    torch.testing.assert_close(made(images()), made.head(features))
    assert made(images()).shape == (4, 6)
    linear = [layer for layer in made.head.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == {
        "linear": [(6, width)],
        "mlp": [(width,) * 2, (6, width)],
    }[head]
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d) for layer in made.head.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions(name):
    from torchvision.models import get_model

    made, theirs = encoder(name).eval(), get_model(name, weights=None).eval()
    theirs.load_state_dict(made.backbone.state_dict(), strict=False)
    theirs.fc = nn.Identity()
    torch.testing.assert_close(made.features(images(2)), theirs(images(2)), rtol=0, atol=0)


def test_small_stem_keeps_the_resolution():
    backbone = encoder("resnet18(stem='small')").backbone
    sizes = []
    backbone.layer1.register_forward_hook(lambda layer, args, output: sizes.append(output.shape[-1]))
    backbone.layer4.register_forward_hook(lambda layer, args, output: sizes.append(output.shape[-1]))
    backbone(images(2))
    assert sizes == [32, 4]
    assert 0.9 < backbone.conv1.weight.std().item() / (2 / (64 * 9)) ** 0.5 < 1.1  # He, fan out, as the other layers


def test_the_seed_decides_the_weights():
    one, two = encoder().state_dict(), encoder().state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(make("small(8)", "mlp", 6).head[0].weight, one["head.0.weight"])


@pytest.mark.parametrize("name", NAMES[:3])
def test_dtypes_layouts_and_copies(name):
    made = encoder(name)
    twin = copy.deepcopy(made)
    expected = made(images())  # training mode, as in a step
    twin.backbone.requires_grad_(False)
    torch.testing.assert_close(twin(images()), expected, rtol=0, atol=0)
    assert all(weight.requires_grad for weight in made.parameters())
    last = copy.deepcopy(made).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images().to(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-4)
    assert copy.deepcopy(made).double()(images(dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        rough = made(images())
    assert rough.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rough.float(), expected).min() > 0.99


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smal(32)", "did you mean small"),
        ("resnet34", "did you mean resnet"),
        ("vit", "known are resnet18, resnet50, small"),
        ("small(0)", "1 or more; got 0"),
        ("small(True)", "got True"),
        ("small(2.5)", "got 2.5"),
        ("small(8, 8)", "it is small"),
        ("small(wide=8)", "wide"),
        ("resnet18(stem='tiny')", "'imagenet' or 'small'; got 'tiny'"),
        ("resnet 18", "write a name such as"),
        ("small(__import__('os').getpid())", "write a name such as"),
        ("small.width", "write a name such as"),
        ("small(32", "write a name such as"),
        ("small({[]: 1})", "write a name such as"),
        ("small(**{'width': 3})", "unexpected keyword"),
        ("", "write a name such as"),
        (32, "write a name such as"),
    ],
)
def test_names_that_are_refused(name, words):
    with pytest.raises(ValueError, match=words) as refusal:
        make(name, "mlp", 8)
    assert "\n" not in str(refusal.value)


def test_heads_and_dims_that_are_refused():
    with pytest.raises(ValueError, match="did you mean mlp"):
        make("small", "mpl", 8)
    for dim in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="dim is the length"):
            make("small", "mlp", dim)


def test_a_small_encoder_needs_no_torchvision():
    code = "import sys, onca.encoders as e; e.make('small(8)', 'mlp', 8); assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def split_by_parts(norm, x, splits):
    """One plain batch norm per strided part, and the mean of what their buffers become."""
    parts = [copy.deepcopy(norm) for _ in range(splits)]
    output = torch.stack([part(x[s::splits]) for s, part in enumerate(parts)], dim=1).flatten(0, 1)
    return output, *(
        torch.stack([getattr(part, f"running_{key}") for part in parts]).mean(0) for key in ("mean", "var")
    )


@settings(max_examples=25, deadline=None)
@given(
    splits=st.integers(1, 4),
    each=st.integers(1, 3),
    channels=st.integers(1, 3),
    size=st.integers(2, 4),
    momentum=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_split_norm_is_one_batch_norm_a_part(splits, each, channels, size, momentum, seed):
    torch.manual_seed(seed)
    plain = nn.BatchNorm2d(channels, momentum=momentum).double()
    for tensor in plain.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    split = SplitBatchNorm2d(channels, splits, momentum=momentum).double()
    split.load_state_dict(plain.state_dict())
    x = torch.randn(splits * each, channels, size, size, dtype=torch.float64)
    y = x.clone().requires_grad_()
    x.requires_grad_()
    probe = torch.randn_like(x)
    expected, mean, var = split_by_parts(plain, x, splits)
    found = split(y)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    for one, other in ((found, expected), (y.grad, x.grad), (split.running_mean, mean), (split.running_var, var)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    assert split.num_batches_tracked == 1
    torch.testing.assert_close(split.eval()(y), nn.functional.batch_norm(y, mean, var, split.weight, split.bias))


def test_neighbouring_parts_would_be_noticed():
    """The planted fault: parts of neighbouring rows instead of strided ones."""
    x = images(8, 4, torch.float64)
    split = SplitBatchNorm2d(3, 4).double()
    wrong = torch.cat([nn.functional.batch_norm(part, None, None, training=True) for part in x.split(2)])
    assert (split(x) - wrong).abs().max() > 0.1


def test_split_norm_in_an_encoder():
    plain = encoder()
    key = copy.deepcopy(plain)
    weights = dict(key.named_parameters())
    assert split_batch_norm(key, 4) is key
    assert all(after is weights[name] for name, after in key.named_parameters())
    assert sum(isinstance(layer, SplitBatchNorm2d) for layer in key.modules()) == 5
    x = images(8)
    assert (key(x) - plain(x)).abs().max() > 1e-3
    plain.load_state_dict(key.state_dict())  # the same names: weights pass in both directions
    torch.testing.assert_close(key.eval()(x), plain.eval()(x))
    twin = copy.deepcopy(key)
    split_batch_norm(twin, 2)  # again, with another number of parts
    assert "splits=2" in repr(twin) and "splits=4" in repr(key) and "splits=4" not in repr(twin)
    assert not any(layer.training for layer in twin.modules())


def test_split_norm_keeps_channels_last():
    key = split_batch_norm(encoder(), 2).to(memory_format=torch.channels_last)
    norm = next(layer for layer in key.modules() if isinstance(layer, SplitBatchNorm2d))
    x = torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(key(images(8))).all()


def test_split_norm_refuses():
    with pytest.raises(ValueError, match="6 images cannot be cut into 4 equal parts"):
        SplitBatchNorm2d(3, 4)(images(6))
    for splits in (0, 1.5, True):
        with pytest.raises(ValueError, match="1 or more"):
            SplitBatchNorm2d(3, splits)
    with pytest.raises(ValueError, match="no BatchNorm2d"):
        split_batch_norm(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match="cannot split"):
        split_batch_norm(nn.Sequential(nn.BatchNorm2d(3, affine=False)), 2)
