"""What `hwgq train` does to training images (models/train/augment.c), on whole batches on the device. Images are (pixel - mean) *
scale, N,C,H,W: 0 is the mean, which also comes in at borders."""
import math

import torch
import torch.nn.functional as F


def factors(count, extent, device):
    """Random factors from 1 / (1 + extent) to 1 + extent, their logarithms uniform."""
    return torch.exp((2 * torch.rand(count, device=device) - 1) * math.log(1 + extent))


def windows(shape, pad, zoom, aspect, crop, device):
    """Output (x, y) of an image is its input (x * step_x + left, y * step_y + top): steps and corners, [N, 2] as x and y."""
    count, _, height, width = shape
    size = torch.tensor([width - 1.0, height - 1.0], device=device)
    shift = torch.randint(-pad, pad + 1, (count, 2), device=device).float()
    step = factors(count, zoom, device)
    away = torch.rand(count, device=device) * crop
    shift = shift + (torch.rand(count, 2, device=device) - 0.5) * away[:, None] * size
    stretch = factors(count, math.sqrt(1 + aspect) - 1, device)
    steps = torch.stack([step * stretch, step / stretch], 1) * (1 - away)[:, None]
    return steps, size / 2 * (1 - steps) + shift


def resample(x, steps, corners):
    """Between pixels: bilinear, 0 outside."""
    height, width = x.shape[2:]
    columns = torch.arange(width, device=x.device) * steps[:, :1] + corners[:, :1]
    rows = torch.arange(height, device=x.device) * steps[:, 1:] + corners[:, 1:]
    grid = torch.stack([((2 * columns + 1) / width - 1)[:, None, :].expand(-1, height, -1),
                        ((2 * rows + 1) / height - 1)[:, :, None].expand(-1, -1, width)], 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def cut_out(x, size):
    """A square of `size` pixels a side, anywhere, set to 0."""
    inside = []
    for axis in (2, 3):
        first = torch.randint(0, x.shape[axis], (len(x), 1), device=x.device) - size // 2
        at = torch.arange(x.shape[axis], device=x.device)
        inside.append((at >= first) & (at < first + size))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)


def augment(x, mirror=True, pad=4, zoom=0.0, aspect=0.0, crop=0.0, cutout=0):
    if mirror:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
    if pad or zoom or aspect or crop:
        x = resample(x, *windows(x.shape, pad, zoom, aspect, crop, x.device))
    return cut_out(x, cutout) if cutout else x
