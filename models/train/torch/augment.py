"""Random changes of a batch of images, as models/train/augment.c makes them of one: the same steps in the same order, each
image with draws of its own. All in tensor operations on the whole batch, on the device where it lies."""
import math

import torch
import torch.nn.functional as F

MAX_RADIUS = 24  # of the blur's kernel, in pixels


def draw(options, shape, count, generator):
    """What is random, one value per image: numbers from 0 to 1 where they stand for a range."""
    device = generator.device
    _, height, width = shape

    def uniform():
        return torch.rand(count, generator=generator, device=device)

    def below(bound, start=0):
        return torch.randint(start, start + bound, (count,), generator=generator, device=device)

    drawn = {"left": below(2 * options.pad + 1, -options.pad), "top": below(2 * options.pad + 1, -options.pad)}
    if options.mirror == "yes":
        drawn["mirror"] = below(2)
    for name in ("zoom", "aspect", "brightness", "contrast", "saturation"):
        if getattr(options, name):
            drawn[name] = uniform()
    if options.crop:
        drawn["crop"], drawn["crop_left"], drawn["crop_top"] = uniform(), uniform(), uniform()
    for name in ("soften", "blur"):  # every other image
        if getattr(options, name):
            drawn[name + "_this"], drawn[name] = below(2), uniform()
    if options.cutout:
        drawn["cut_left"], drawn["cut_top"] = below(width, -(options.cutout // 2)), below(height, -(options.cutout // 2))
    return drawn


def factor(draws, most):
    """Between 1 / (1 + most) and 1 + most, uniform in its logarithm; 1 without draws."""
    return 1.0 if draws is None else torch.exp((2 * draws - 1) * math.log1p(most))


def along(matrices, x, rows):
    """matrices [N, size, size] times every column (rows True) or row of x [N, C, H, W]."""
    return matrices[:, None] @ x if rows else x @ matrices[:, None].transpose(2, 3)


# ---- where the image lies --------------------------------------------------------------------------------------------


def source_columns(x, drawn):
    """Column of the input that each output column is, before it is moved: mirrored or not. [N, W]"""
    columns = torch.arange(x.shape[3], device=x.device).expand(len(x), -1)
    return torch.where(drawn["mirror"][:, None] == 1, x.shape[3] - 1 - columns, columns) if "mirror" in drawn else columns


def shift(x, drawn):
    """By whole pixels; what comes in at a border is 0, the mean."""
    height, width = x.shape[2:]
    columns = source_columns(x, drawn) + drawn["left"][:, None]
    rows = torch.arange(height, device=x.device) + drawn["top"][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def resample(x, drawn, options):
    """The same for any window, enlarged or shrunk to the image's size: bilinear."""
    height, width = x.shape[2:]
    left, top, step = drawn["left"].float(), drawn["top"].float(), factor(drawn.get("zoom"), options.zoom)
    aspect = factor(drawn.get("aspect"), (1 + options.aspect) ** 0.5 - 1)
    if "crop" in drawn:
        away = drawn["crop"] * options.crop
        left = left + (drawn["crop_left"] - 0.5) * away * (width - 1)
        top = top + (drawn["crop_top"] - 0.5) * away * (height - 1)
        step = step * (1 - away)
    grid = []
    for places, size, moved, share in ((source_columns(x, drawn), width, left, step * aspect),
                                       (torch.arange(height, device=x.device).expand(len(x), -1), height, top, step / aspect)):
        share = torch.as_tensor(share, device=x.device).expand(len(x))[:, None]
        at = places * share + (size - 1) / 2 * (1 - share) + moved[:, None]  # pixels
        grid.append(2 * at / max(size - 1, 1) - 1)
    columns, rows = grid
    grid = torch.stack([columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)], 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


# ---- softness and blur: a matrix for the rows and one for the columns of each image ----------------------------------


def soften_matrix(size, cells):
    """Averages over `cells` cells, which may share a pixel, and linear interpolation between their centers. [size, size]"""
    shrink = torch.zeros(cells, size, dtype=torch.float64)
    for i in range(cells):
        first, end = i * size // cells, -(-(i + 1) * size // cells)
        shrink[i, first:end] = 1 / (end - first)
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * cells / size - 0.5).clamp(0, cells - 1)
    low = at.floor().long()
    enlarge = torch.zeros(size, cells, dtype=torch.float64)
    rows = torch.arange(size)
    enlarge[rows, low] += 1 - (at - low)
    enlarge[rows, (low + 1).clamp(max=cells - 1)] += at - low
    return (enlarge @ shrink).float()


def neighbors(size, radius):
    """Which place lies at each offset, -radius to radius, of each place; beyond its ends a line goes on as it ended.
    [offset, place, 1 at the neighbor]"""
    offsets = torch.arange(-radius, radius + 1)
    return F.one_hot((torch.arange(size) + offsets[:, None]).clamp(0, size - 1), size).float()


def blur_matrices(sigma, table):
    """Gaussians of these standard deviations, out to 3 of them. table: of neighbors(). [N, size, size]"""
    radius, size = len(table) // 2, table.shape[2]
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = torch.exp(-offsets**2 / (2 * sigma[:, None] ** 2)) * (offsets.abs() <= torch.ceil(3 * sigma)[:, None])
    weights = weights / weights.sum(1, keepdim=True)
    return (weights @ table.flatten(1)).view(-1, size, size)


class Augmentation:
    """Called with a batch, (pixel - mean) * scale [N, C, H, W], and a generator on its device. preprocess: its "mean", "scale"
    and "order"; shape: C, H, W."""

    def __init__(self, options, preprocess, shape, device):
        self.options, self.shape, self.matrices, self.neighbors = options, shape, {}, {}
        self.mean, self.scale = (torch.tensor(preprocess[key], device=device).view(1, -1, 1, 1) for key in ("mean", "scale"))
        gray = [0.299, 0.587, 0.114]  # ITU-R BT.601
        self.gray = torch.tensor(gray[::-1] if preprocess["order"] == "bgr" else gray, device=device).view(1, -1, 1, 1)
        for size in set(shape[1:]) if options.soften else ():
            smallest = int(self.cells(size, torch.tensor(1.0)))
            matrices = torch.stack([soften_matrix(size, cells) for cells in range(smallest, size + 1)])
            self.matrices[size] = smallest, matrices.to(device)
        for size in set(shape[1:]) if options.blur else ():
            self.neighbors[size] = neighbors(size, min(MAX_RADIUS, math.ceil(3 * options.blur))).to(device)

    def cells(self, size, draws):
        return (size / (1 + draws * self.options.soften) + 0.5).floor().long().clamp(1, size)

    def soften(self, x, drawn):
        for rows, size in ((True, x.shape[2]), (False, x.shape[3])):
            smallest, matrices = self.matrices[size]
            cells = torch.where(drawn["soften_this"] == 1, self.cells(size, drawn["soften"]), size)
            x = along(matrices[cells - smallest], x, rows)
        return x

    def blur(self, x, drawn):
        # At 0.05 all other weights vanish: nothing is changed.
        sigma = torch.where(drawn["blur_this"] == 1, drawn["blur"] * self.options.blur, 0.0).clamp(min=0.05)
        for rows, size in ((True, x.shape[2]), (False, x.shape[3])):
            x = along(blur_matrices(sigma, self.neighbors[size]), x, rows)
        return x

    def change_colors(self, x, drawn):
        brightness, contrast, saturation = (
            factor(drawn[name], getattr(self.options, name)).view(-1, 1, 1, 1) if name in drawn else 1.0
            for name in ("brightness", "contrast", "saturation"))
        pixels = x / self.scale + self.mean
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = ((pixels - mean) * contrast + mean) * brightness
        if x.shape[1] == 3:
            gray = (pixels * self.gray).sum(1, keepdim=True)
            pixels = gray + (pixels - gray) * saturation
        return (pixels.clamp(0, 255) - self.mean) * self.scale

    def cut_out(self, x, drawn):
        def hit(size, start):
            places = torch.arange(size, device=x.device)
            return (places >= start[:, None]) & (places < start[:, None] + self.options.cutout)

        cut = hit(x.shape[2], drawn["cut_top"])[:, :, None] & hit(x.shape[3], drawn["cut_left"])[:, None, :]
        return x.masked_fill(cut[:, None], 0)

    def apply(self, x, drawn):
        moved = any(name in drawn for name in ("zoom", "aspect", "crop"))
        x = resample(x, drawn, self.options) if moved else shift(x, drawn)
        if "soften" in drawn:
            x = self.soften(x, drawn)
        if "blur" in drawn:
            x = self.blur(x, drawn)
        if any(name in drawn for name in ("brightness", "contrast", "saturation")):
            x = self.change_colors(x, drawn)
        return self.cut_out(x, drawn) if "cut_left" in drawn else x

    def __call__(self, x, generator):
        return self.apply(x, draw(self.options, self.shape, len(x), generator))
