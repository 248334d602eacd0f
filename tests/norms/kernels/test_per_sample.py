import pytest
import torch

from domainnorm.norms.kernels import per_sample

SHAPES = [(3, 4), (3, 4, 9), (3, 4, 5, 7), (2, 64, 30, 31), (2, 3, 4, 3, 5)]
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
every_input = pytest.mark.parametrize(
    ("shape", "channels_last"),
    [(shape, False) for shape in SHAPES] + [(shape, True) for shape in SHAPES[2:]],
)


def draw(shape, channels_last, dtype=torch.float64):
    x = torch.randn(shape, dtype=dtype)
    return x.to(memory_format=FORMATS[len(shape)]) if channels_last else x


def rows_for(shape):
    return torch.randn(shape[:2], dtype=torch.float64)


def spread(t, shape):
    return t.reshape(*t.shape, *(1,) * (len(shape) - 2))


@every_input
def test_moments_are_mean_and_biased_variance_of_pixels(shape, channels_last):
    x = draw(shape, channels_last) + 10
    mean, var = per_sample.moments(x)
    pixels = x.reshape(*shape[:2], -1)
    torch.testing.assert_close(mean, pixels.mean(2))
    torch.testing.assert_close(var, pixels.var(2, unbiased=False), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [20, 70])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_moments_of_narrow_maps_are_not_rounded(dtype, size, memory_format):
    x = (torch.randn(3, 64, size, size) + 100).to(dtype).contiguous(memory_format=memory_format)
    mean, var = per_sample.moments(x)
    assert mean.dtype == var.dtype == torch.float32
    wide = x.double()
    torch.testing.assert_close(mean.double(), wide.mean((2, 3)), rtol=1e-6, atol=0)
    wanted = wide.var((2, 3), unbiased=False)
    torch.testing.assert_close(var.double(), wanted, rtol=1e-4, atol=0)


@every_input
def test_affine_scales_and_shifts_in_the_layout_of_the_input(shape, channels_last):
    x, scale, shift = draw(shape, channels_last), rows_for(shape), rows_for(shape)
    found = per_sample.affine(x, scale, shift)
    torch.testing.assert_close(found, x * spread(scale, shape) + spread(shift, shape))
    assert found.stride() == x.stride()


@every_input
@pytest.mark.parametrize("grad_channels_last", [False, True])
def test_dots_are_sums_over_pixels_whatever_the_layout_of_the_gradient(
    shape, channels_last, grad_channels_last
):
    x = draw(shape, channels_last)
    grad = draw(shape, grad_channels_last and len(shape) > 3)
    total, product = per_sample.dots(grad, x)
    torch.testing.assert_close(total, grad.reshape(*shape[:2], -1).sum(2))
    torch.testing.assert_close(product, (grad * x).reshape(*shape[:2], -1).sum(2))


@every_input
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_combine_rounds_once(shape, channels_last, dtype):
    x, grad = draw(shape, channels_last, dtype), draw(shape, channels_last, dtype)
    scale, slope, offset = (rows_for(shape).float() for _ in range(3))
    wide = grad.float() * spread(scale, shape) + x.float() * spread(slope, shape)
    wanted = (wide + spread(offset, shape)).to(dtype)
    torch.testing.assert_close(per_sample.combine(grad, x, scale, slope, offset), wanted)


@pytest.mark.parametrize("channels_last", [False, True])
def test_subsample_takes_every_kth_pixel_in_the_layout_of_the_input(channels_last):
    x = draw((2, 4, 5, 7), channels_last)
    found = per_sample.subsample(x, 3)
    assert torch.equal(found, x[:, :, ::3, ::3])
    assert per_sample.is_channels_last(found) == channels_last


@pytest.mark.parametrize(
    ("x", "way"),
    [
        (torch.empty(2, 3), "plain"),
        (torch.empty(0, 3, 4, 4), "plain"),
        (torch.empty(2, 3, 4, 4), "rows"),
        (torch.empty(2, 3, 4, 4, dtype=torch.float16), "plain"),
        (torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last), "plain"),
        (torch.empty(2, 64, 32, 32).to(memory_format=torch.channels_last), "slices"),
        (torch.empty(2, 3, 4, 4, device="meta"), "plain"),
    ],
)
def test_way_follows_device_layout_dtype_and_size(x, way):
    assert per_sample.way_of(x) == way


@pytest.mark.parametrize("shape", [(33, 256, 7, 7), (17, 512, 7, 8), (12, 256, 12, 13)])
@pytest.mark.parametrize("mean", [0, 1000])
def test_sums_of_wide_channels_last_maps_are_those_of_float64(shape, mean, monkeypatch):
    bags, add = [], per_sample.F.embedding_bag

    def counted(*arguments, **options):
        bags.append(1)
        return add(*arguments, **options)

    monkeypatch.setattr(per_sample.F, "embedding_bag", counted)
    x = draw(shape, True, torch.float32) + mean
    grad = draw(shape, True, torch.float32)
    wide, pixels = x.double(), (2, 3)
    found_mean, found_var = per_sample.moments(x)
    total, product = per_sample.dots(grad, x)
    assert len(bags) == 4
    close = torch.testing.assert_close
    close(found_mean.double(), wide.mean(pixels), rtol=3e-6, atol=1e-6)
    close(found_var.double(), wide.var(pixels, unbiased=False), rtol=1e-5, atol=1e-5)
    close(total.double(), grad.double().sum(pixels), rtol=0, atol=1e-4)
    close(product.double(), (grad.double() * wide).sum(pixels), rtol=0, atol=1e-4 * max(1, mean))
