"""Makes the PNG and WebP files of this folder: the picture of make.c in the kinds of both formats. PNG files are written here
byte by byte, so that every kind can be had; WebP files by Pillow (Debian package python3-pil).
  gray-1 ... gray-16, rgb, rgb-16           without alpha; 1, 2, 4, 8 and 16 bits
  palette-1 ... palette-8                   a gray palette, so that they equal gray-1 ... gray-8
  *-interlaced                              the same pictures in seven passes
  gray-trns, rgb-trns, palette-trns         one color transparent; a palette with alpha
  gray-alpha, rgb-alpha, *-alpha-16         alpha rising from left to right
  exif-6, exif-6-late                       stored turned; the tag before or behind the picture's data
  animated                                  the picture as default image, and a frame
  one, odd                                  1x1; 17x13
  lossy, lossless, *-alpha, one .webp       as the names say
  exif-6.webp                               stored turned
  frames.webp                               two frames; the first does not fill the canvas
  frames-alpha.webp                         the same, with alpha and lossy
usage: make.py FOLDER"""
import io
import math
import os
import struct
import sys
import zlib

from PIL import Image

WIDTH, HEIGHT = 96, 64


def picture(width, height, x, y):
    u, v = (x + 0.5) / width, (y + 0.5) / height
    rgb = (int(40 + 160 * u), int(60 + 120 * v), int(200 - 120 * u * v))
    if math.hypot((u - 0.25) * width / height, v - 0.3) < 0.2:
        rgb = (220, 40, 30)
    if 0.2 < u < 0.9 and 0.65 < v < 0.8:
        rgb = (30, 30, 140)
    return rgb


def gray_of(rgb):
    return (77 * rgb[0] + 150 * rgb[1] + 29 * rgb[2] + 128) >> 8


def alpha_at(width, x):
    return x * 255 // (width - 1) if width > 1 else 128


def turned(x, y):
    """The pixel of the upright picture that is stored at (x, y) under orientation 6."""
    return picture(WIDTH, HEIGHT, WIDTH - 1 - y, x)


# ---- PNG -----------------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples, bits):
    """One row's samples, most significant first."""
    if bits == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    out, held, count = bytearray(), 0, 0
    for sample in samples:
        held, count = held << bits | sample, count + bits
        if count == 8:
            out.append(held)
            held, count = 0, 0
    if count:
        out.append(held << (8 - count))
    return bytes(out)


def filtered(rows, pixel_bytes):
    """Rows with all five filters in turn."""
    out, before = bytearray(), None
    for number, row in enumerate(rows):
        kind, up = number % 5, before or bytes(len(row))
        out.append(kind)
        for i, value in enumerate(row):
            a = row[i - pixel_bytes] if i >= pixel_bytes else 0
            b, c = up[i], up[i - pixel_bytes] if i >= pixel_bytes else 0
            p = a + b - c
            near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((value - (0, a, b, (a + b) // 2, near)[kind]) & 255)
        before = row
    return bytes(out)


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(width, height, color_type, bits, sample, interlaced=False, before=b"", after=b""):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    pixel_bytes = max(1, channels * bits // 8)
    data = b""
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        rows = [packed([s for x in range(left, width, across) for s in sample(x, y)], bits) for y in range(top, height, down)]
        if rows and rows[0]:
            data += filtered(rows, pixel_bytes)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    data = zlib.compress(data, 9)
    half = len(data) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:]) +
            after + chunk(b"IEND", b""))


def exif(orientation):
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def png_files():
    here = lambda x, y: picture(WIDTH, HEIGHT, x, y)
    gray = lambda x, y: gray_of(here(x, y))
    make = lambda *a, **k: png(WIDTH, HEIGHT, *a, **k)
    files = {}
    for bits in (1, 2, 4, 8):
        top = (1 << bits) - 1
        level = lambda x, y, bits=bits: (gray(x, y) >> (8 - bits),)
        palette = chunk(b"PLTE", b"".join(bytes([i * 255 // top] * 3) for i in range(top + 1)))
        for end, interlaced in (("", False), ("-interlaced", True)):
            files["gray-%d%s" % (bits, end)] = make(0, bits, level, interlaced)
            files["palette-%d%s" % (bits, end)] = make(3, bits, level, interlaced, palette)
    for end, interlaced in (("", False), ("-interlaced", True)):
        files["rgb" + end] = make(2, 8, here, interlaced)
        files["rgb-16" + end] = make(2, 16, lambda x, y: tuple(s << 8 | (x * 5 & 255) for s in here(x, y)), interlaced)
        files["rgb-alpha" + end] = make(6, 8, lambda x, y: here(x, y) + (alpha_at(WIDTH, x),), interlaced)
    files["gray-16"] = make(0, 16, lambda x, y: (gray(x, y) << 8 | 77,))
    files["gray-alpha"] = make(4, 8, lambda x, y: (gray(x, y), alpha_at(WIDTH, x)))
    files["gray-alpha-16"] = make(4, 16, lambda x, y: (gray(x, y) << 8, alpha_at(WIDTH, x) << 8))
    files["rgb-alpha-16"] = make(6, 16, lambda x, y: tuple(s << 8 | 3 for s in here(x, y) + (alpha_at(WIDTH, x),)))
    files["rgb-trns"] = make(2, 8, here, before=chunk(b"tRNS", struct.pack(">HHH", 220, 40, 30)))
    files["gray-trns"] = make(0, 8, lambda x, y: (gray(x, y),), before=chunk(b"tRNS", struct.pack(">H", gray_of((220, 40, 30)))))
    palette = chunk(b"PLTE", bytes(range(96)) * 3) + chunk(b"tRNS", bytes(alpha_at(WIDTH, x) for x in range(96)))
    files["palette-trns"] = make(3, 8, lambda x, y: (x,), before=palette)
    side = lambda x, y: turned(x, y)
    files["exif-6"] = png(HEIGHT, WIDTH, 2, 8, side, before=chunk(b"eXIf", exif(6)))
    files["exif-6-late"] = png(HEIGHT, WIDTH, 2, 8, side, after=chunk(b"eXIf", exif(6)) + chunk(b"tEXt", b"Title\0late"))
    control = struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    frame = struct.pack(">IIIIIHHBB", 1, 1, 1, 0, 0, 1, 10, 0, 0)
    files["animated"] = make(2, 8, here, before=chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control),
                             after=chunk(b"fcTL", frame) + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(b"\0\1\2\3")))
    files["one"] = png(1, 1, 2, 8, lambda x, y: (1, 2, 3))
    files["odd"] = png(17, 13, 2, 8, lambda x, y: picture(17, 13, x, y), True)
    return files


# ---- WebP ----------------------------------------------------------------------------------------------------------------


def image(width, height, pixel, mode="RGB"):
    made = Image.new(mode, (width, height))
    made.putdata([pixel(x, y) for y in range(height) for x in range(width)])
    return made


def webp(picture_, **options):
    out = io.BytesIO()
    picture_.save(out, "WEBP", **options)
    return out.getvalue()


def parts(file):
    """The chunks of a still file."""
    at = 12
    while at + 8 <= len(file):
        size = struct.unpack("<I", file[at + 4:at + 8])[0]
        yield file[at:at + 4], file[at + 8:at + 8 + size]
        at += 8 + size + (size & 1)


def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)


def number(value):
    return struct.pack("<I", value)[:3]


def animation(width, height, frames):
    """Frames are (left, top, width, height, still file)."""
    body = riff(b"VP8X", bytes([0x12, 0, 0, 0]) + number(width - 1) + number(height - 1)) + riff(b"ANIM", bytes(6))
    for left, top, w, h, still in frames:
        inner = b"".join(riff(kind, data) for kind, data in parts(still) if kind in (b"ALPH", b"VP8 ", b"VP8L"))
        head = number(left // 2) + number(top // 2) + number(w - 1) + number(h - 1) + number(100) + b"\0"
        body += riff(b"ANMF", head + inner)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_files():
    whole = image(WIDTH, HEIGHT, lambda x, y: picture(WIDTH, HEIGHT, x, y))
    alpha = image(WIDTH, HEIGHT, lambda x, y: picture(WIDTH, HEIGHT, x, y) + (alpha_at(WIDTH, x),), "RGBA")
    side = image(HEIGHT, WIDTH, turned)
    part, part_alpha = whole.crop((8, 4, 72, 52)), alpha.crop((8, 4, 72, 52))
    lossless = {"lossless": True, "exact": True}
    return {
        "lossy": webp(whole, quality=90),
        "lossless": webp(whole, **lossless),
        "lossy-alpha": webp(alpha, quality=90, exact=True),
        "lossless-alpha": webp(alpha, **lossless),
        "exif-6": webp(side, exif=b"Exif\0\0" + exif(6), **lossless),
        "frames": animation(WIDTH, HEIGHT, [(8, 4, 64, 48, webp(part, **lossless)), (0, 0, 96, 64, webp(alpha, **lossless))]),
        "frames-alpha": animation(WIDTH, HEIGHT, [(8, 4, 64, 48, webp(part_alpha, quality=90, exact=True))]),
        "one": webp(image(1, 1, lambda x, y: (1, 2, 3)), **lossless),
    }


def main():
    for ending, files in ((".png", png_files()), (".webp", webp_files())):
        for name, data in files.items():
            with open(os.path.join(sys.argv[1], name + ending), "wb") as file:
                file.write(data)


main()
