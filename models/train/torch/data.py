"""Labelled images in memory, from what `hwgq train` reads: a folder or archive with train/CLASS/IMAGE and test/CLASS/IMAGE (or
val/, also Tiny ImageNet's), or just CLASS/IMAGE, a folder of MNIST or Fashion-MNIST IDX files, a folder of CIFAR-10 binary
batches. Images in files need Pillow."""
import functools
import gzip
import io
import lzma
import math
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib

import numpy

# What users take for images, and what is read: an image of another kind is refused, and does not vanish.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_DEPTH = 8  # folders within folders, links among them


class Images:
    """pixels: uint8 [N, H, W, C] in the network's channel order; labels: int64 [N]; classes: names, or "0", "1", ...;
    undivided: the source has no train/ and test/, and these are all its images."""

    def __init__(self, pixels, labels, classes, undivided):
        self.pixels, self.labels, self.classes = pixels, numpy.asarray(labels, numpy.int64), classes
        self.undivided = undivided


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
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(read()), formats=FORMATS))
        image = fit(image.convert("L" if preprocess["order"] == "gray" else "RGB"), shape, preprocess.get("resize", 0))
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image that is read here: convert it to JPEG, PNG or WebP, or take it away")
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


def read_idx(path, rank):
    opened = gzip.open if path.endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            data = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: cannot be unpacked: {error}")
    start = 4 + 4 * rank
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) < start:
        raise ValueError(f"{path}: not an IDX file of {'images' if rank == 3 else 'labels'}: it must start with "
                         f"0x00000{800 + rank}")
    extents = struct.unpack(f">{rank}I", data[4:start])
    expected, found = math.prod(extents), len(data) - start
    if expected == 0 or expected != found:
        raise ValueError(f"{path}: damaged: {expected} bytes of data expected for {extents[0]} entries, "
                         f"{'fewer' if found < expected else 'more'} found")
    return numpy.frombuffer(data, numpy.uint8, expected, start).reshape(extents)


def idx_source(folder, split):
    found, stem = [], "train" if split == "train" else "t10k"
    for kind in ("images-idx3", "labels-idx1"):
        names = [f"{stem}-{kind}-ubyte{ending}" for ending in ("", ".gz")]
        found.append(next((os.path.join(folder, name) for name in names if os.path.exists(os.path.join(folder, name))), None))
    if not found[0]:
        return None
    if not found[1]:
        raise ValueError(f"{folder} has no {stem}-labels-idx1-ubyte[.gz]")
    images, labels = read_idx(found[0], 3), read_idx(found[1], 1)
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images but {len(labels)} labels")
    return [(int(label), image[:, :, None]) for label, image in zip(labels, images)]


def cifar_source(folder, split):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    if not all(os.path.exists(os.path.join(folder, name)) for name in names):
        return None
    rows = numpy.concatenate([numpy.fromfile(os.path.join(folder, name), numpy.uint8).reshape(-1, 3073) for name in names])
    return [(int(row[0]), row[1:].reshape(3, 32, 32).transpose(1, 2, 0)) for row in rows]


def is_wanted(name):
    return name.lower().endswith(IMAGE_ENDINGS) or posixpath.basename(name) == "val_annotations.txt"


def fail(error):
    raise error


def folder_files(path):
    """Links are followed, hidden folders are not entered."""
    for folder, folders, names in os.walk(path, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if folders and folder != path and os.path.relpath(folder, path).count("/") + 2 > MAX_DEPTH:
            raise ValueError(f"{os.path.join(folder, folders[0])} lies deeper than {MAX_DEPTH} folders")
        for name in filter(is_wanted, names):
            full = os.path.join(folder, name)
            yield os.path.relpath(full, path), lambda full=full: open(full, "rb").read()


def tar_files(path):
    """An image may stand in the archive once and be linked from other places."""
    there, links = {}, {}
    with tarfile.open(path, "r|*") as archive:  # a stream: an .xz cannot go back
        for member in archive:
            name = posixpath.normpath(member.name)
            if member.isfile() and is_wanted(name):
                there[name] = archive.extractfile(member).read()
            elif member.islnk() or member.issym():
                target = member.linkname if member.islnk() else posixpath.join(posixpath.dirname(name), member.linkname)
                links[name] = posixpath.normpath(target), member.linkname

    def end(name):
        for _ in range(MAX_DEPTH):
            if name not in links:
                break
            name = links[name][0]
        return name

    def read(name):
        if end(name) not in there:
            raise ValueError(f"it is a link to '{links[name][1]}', which is no image of the archive: put the files themselves "
                             "into it (tar --dereference)")
        return there[end(name)]

    folders = {name[:i] for name in there for i, sign in enumerate(name) if sign == "/"}
    for name, (target, stated) in links.items():
        if split_of([*name.split("/"), "class", "image"])[0] and end(target) in folders:
            raise ValueError(f"{path}: '{name}' is a link to '{stated}', a folder, and links to folders are not followed in "
                             "archives: put the files themselves into it (tar --dereference)")
    for name in [*there, *filter(is_wanted, links)]:
        yield name, lambda name=name: read(name)


def named_files(path):
    """(name, function that reads it) of a folder or an archive: images, and lists of classes."""
    if os.path.isdir(path):
        yield from folder_files(path)
    elif zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        for name in filter(is_wanted, archive.namelist()):
            yield name, lambda name=name: archive.read(name)
    else:
        yield from tar_files(path)


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


def classes_of_undivided(path, entries):
    """The class is the first folder, after folders that all images share: (name, class, read)."""
    paths = [name.split("/") for name, _, _ in entries]
    place = 0
    while all(len(parts) > place + 2 and parts[place] == paths[0][place] for parts in paths):
        place += 1
    for parts in paths:
        if len(parts) < place + 2:
            raise ValueError(f"{path}: {'/'.join(parts)} is in no folder that names its class: expected CLASS/IMAGE")
    return [(name, parts[place], read) for parts, (name, _, read) in zip(paths, entries)]


def file_source(path, split):
    """The source, its classes, and whether it is undivided."""
    found = {"train": [], "test": [], "val": [], None: []}
    try:
        files = list(named_files(path))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: cannot be unpacked: {error}")
    annotated = annotations(files)
    for name, read in files:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        part, place = split_of(parts)
        if not name.lower().endswith(IMAGE_ENDINGS) or any(p.startswith((".", "__MACOSX")) for p in parts):
            continue
        label = parts[place + 1] if part else None
        if annotated and label == "images":
            if part == "test":  # without classes
                continue
            if part == "val" and parts[-1] not in annotated:
                raise ValueError(f"{path}: val_annotations.txt has no class for {name}")
            label = annotated[parts[-1]] if part == "val" else label
        found[part].append(("/".join(parts), label, read))
    beside, undivided = found.pop(None), not any(found.values())
    if undivided and beside:
        found["train"] = found["test"] = classes_of_undivided(path, beside)
    # Classes of all splits, so that one that a split lacks does not shift the labels.
    classes = sorted({label for entries in found.values() for _, label, _ in entries}, key=str.encode)
    number = {label: i for i, label in enumerate(classes)}
    entries = found["train"] if split == "train" else found["test"] or found["val"]
    entries.sort(key=lambda entry: entry[0].encode())
    source = [(number[label], functools.partial(decode, os.path.join(path, name), read)) for name, label, read in entries]
    return source, classes, undivided


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
    undivided = False
    if not source:
        source, classes, undivided = file_source(path, split)
    if not source:
        if split == "test":
            return None
        raise ValueError(f"{path}: no images to train on: expected train/CLASS/IMAGE, CLASS/IMAGE, IDX files or CIFAR-10 "
                         "batches")
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
    return Images(numpy.ascontiguousarray(pixels), [labels[i] for i in chosen], classes, undivided)
