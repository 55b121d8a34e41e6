"""Labelled images in memory, from what `hwgq train` reads: a folder or archive with train/CLASS/IMAGE and test/CLASS/IMAGE (or
val/, also Tiny ImageNet's), a folder of MNIST or Fashion-MNIST IDX files, a folder of CIFAR-10 binary batches. Images in files
need Pillow."""
import functools
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib

import numpy

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


class Images:
    """pixels: uint8 [N, H, W, C] in the network's channel order; labels: int64 [N]; classes: names, or "0", "1", ..."""

    def __init__(self, pixels, labels, classes):
        self.pixels, self.labels, self.classes = pixels, numpy.asarray(labels, numpy.int64), classes


# ---- one image -------------------------------------------------------------------------------------------------------


def fit(image, shape, resize):
    """The shorter side to `resize` (0: the smallest size that covers the input), center crop. Images that have the input's size
    already are the very pixels that hwgq sees; others are resized by Pillow, whose rounding differs here and there."""
    from PIL import Image

    _, height, width = shape
    if (image.width, image.height) == (width, height) and not resize:
        return image
    factor = resize / min(image.width, image.height) if resize else max(width / image.width, height / image.height)
    size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    image = image.resize(size, Image.BOX if factor < 1 else Image.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def decode(name, read, shape, preprocess):
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(read())))
        image = fit(image.convert("L" if preprocess["order"] == "gray" else "RGB"), shape, preprocess.get("resize", 0))
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image that Pillow knows")
    except Exception as error:  # Pillow's decoders raise all kinds
        raise ValueError(f"{name}: cannot be decoded: {error}")
    return numpy.asarray(image).reshape(shape[1], shape[2], shape[0])


def from_array(pixels, shape, preprocess):
    """One decoded image, [H, W, C], to the network's size."""
    if pixels.shape == (shape[1], shape[2], shape[0]):
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L" if shape[0] == 1 else "RGB")
    return numpy.asarray(fit(image, shape, preprocess.get("resize", 0))).reshape(shape[1], shape[2], shape[0])


# ---- sources: [(class, pixels or a function that makes them of shape and preprocess)] ---------------------------------


def read_idx(path):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rb") as file:
        data = file.read()
    rank = data[3]
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * rank:
        raise ValueError(f"{path}: not an IDX file of bytes")
    extents = struct.unpack(f">{rank}I", data[4:4 + 4 * rank])
    return numpy.frombuffer(data, numpy.uint8, int(numpy.prod(extents)), 4 + 4 * rank).reshape(extents)


def idx_source(folder, split):
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        names = [f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte{ending}" for ending in ("", ".gz")]
        found += [os.path.join(folder, name) for name in names if os.path.exists(os.path.join(folder, name))][:1]
    if len(found) != 2:
        return None
    images, labels = read_idx(found[0]), read_idx(found[1])
    return [(int(label), image[:, :, None]) for label, image in zip(labels, images)]


def cifar_source(folder, split):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    if not all(os.path.exists(os.path.join(folder, name)) for name in names):
        return None
    rows = numpy.concatenate([numpy.fromfile(os.path.join(folder, name), numpy.uint8).reshape(-1, 3073) for name in names])
    return [(int(row[0]), row[1:].reshape(3, 32, 32).transpose(1, 2, 0)) for row in rows]


def named_files(path):
    """(name, function that reads it) of a folder or an archive."""
    if os.path.isdir(path):
        for folder, _, names in os.walk(path):
            for name in names:
                full = os.path.join(folder, name)
                yield os.path.relpath(full, path), lambda full=full: open(full, "rb").read()
    elif zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            yield name, lambda name=name: archive.read(name)
    else:
        with tarfile.open(path, "r|*") as archive:  # a stream: an .xz cannot go back
            for member in archive:
                if member.isfile() and member.name.lower().endswith(IMAGE_ENDINGS):
                    data = archive.extractfile(member).read()
                    yield member.name, lambda data=data: data


SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


def split_of(parts):
    """The split that a path belongs to, and the place of its folder: the first or second, with CLASS/IMAGE below it."""
    for place in range(min(2, len(parts) - 2)):
        if parts[place] in SPLITS:
            return SPLITS[parts[place]], place
    return None, None


def annotations(files):
    """Tiny ImageNet's val/images has its classes in a list: {file: class}."""
    for name, read in files:
        if os.path.basename(name) == "val_annotations.txt":
            return dict(line.split("\t")[:2] for line in read().decode().splitlines() if "\t" in line)
    return {}


def file_source(path, split):
    found = {"train": [], "test": [], "val": []}
    try:
        files = list(named_files(path))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: cannot be unpacked: {error}")
    annotated = annotations(files)
    for name, read in files:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        part, place = split_of(parts)
        if not part or not name.lower().endswith(IMAGE_ENDINGS) or any(p.startswith((".", "__MACOSX")) for p in parts):
            continue
        label = parts[place + 1]
        if annotated and label == "images":
            if part == "test":  # without classes
                continue
            if part == "val" and parts[-1] not in annotated:
                raise ValueError(f"{path}: val_annotations.txt has no class for {name}")
            label = annotated[parts[-1]] if part == "val" else label
        found[part].append(("/".join(parts), label, read))
    # Classes of all splits, so that one that a split lacks does not shift the labels.
    classes = sorted({label for entries in found.values() for _, label, _ in entries}, key=str.encode)
    number = {label: i for i, label in enumerate(classes)}
    entries = found["train"] if split == "train" else found["test"] or found["val"]
    entries.sort(key=lambda entry: entry[0].encode())
    source = [(number[label], functools.partial(decode, os.path.join(path, name), read)) for name, label, read in entries]
    return source, classes


def spread(labels, limit):
    """Positions of the first `limit` images, evenly over the classes."""
    seen, keyed = {}, []
    for i, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        keyed.append((seen[label], i))
    return sorted(i for _, i in sorted(keyed)[:limit])


def read_images(path, split, shape, preprocess, limit=0):
    """split: "train" or "test". None when there are no test images."""
    source, classes = (idx_source(path, split) or cifar_source(path, split)) if os.path.isdir(path) else None, None
    if not source:
        source, classes = file_source(path, split)
    if not source:
        if split == "test":
            return None
        raise ValueError(f"{path}: no images to train on: expected train/CLASS/IMAGE, IDX files or CIFAR-10 batches")
    labels = [label for label, _ in source]
    classes = classes or [str(i) for i in range(max(labels) + 1)]
    chosen = spread(labels, limit) if limit else range(len(labels))
    pixels = numpy.empty((len(chosen), shape[1], shape[2], shape[0]), numpy.uint8)
    for k, i in enumerate(chosen):
        what = source[i][1]
        pixels[k] = what(shape, preprocess) if callable(what) else from_array(what, shape, preprocess)
    if preprocess["order"] == "bgr":
        pixels = pixels[..., ::-1]
    if preprocess.get("invert"):
        pixels = 255 - pixels
    return Images(numpy.ascontiguousarray(pixels), [labels[i] for i in chosen], classes)
