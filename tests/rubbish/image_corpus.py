"""Bad and unusual images and captions: one row each, with its outcome in the captions stage."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image file, which is stored or counted as ``left_out``; None: no file."""

    name: str
    make: Callable[[], bytes | None]
    left_out: str = ""

    def outcome(self) -> str:
        """The expected outcome, in words."""
        return f"left out: {self.left_out}" if self.left_out else "kept"


@dataclass(frozen=True, kw_only=True)
class BadCaption:
    """A caption, of which ``tokens`` words are kept, or which is counted as ``left_out``."""

    name: str
    text: str
    tokens: int = 0
    left_out: str = ""

    def outcome(self) -> str:
        """The expected outcome, in words."""
        return f"left out: {self.left_out}" if self.left_out else f"kept, {self.tokens} words"


def _encoded(
    file_format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: object
) -> Callable[[], bytes]:
    def make() -> bytes:
        pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 4), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels, "RGBA").convert(mode).save(buffer, file_format, **options)
        return buffer.getvalue()

    return make


_JPEG = _encoded("JPEG")


def _bytes(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _deep_png() -> bytes:
    """16 bits of grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(buffer, "PNG")
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def _png_bomb(width: int, height: int) -> Callable[[], bytes]:
    """A few kilobytes that state this size in black and white; at least 100 megapixels are real."""

    def make() -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # 1 bit a pixel
        rows = zlib.compress(bytes(min(height * (width // 8 + 1), 2**24)))
        chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunks

    return make


def _jpeg_bomb() -> bytes:
    """A small JPEG whose header states the largest possible size."""
    content = bytearray(_JPEG())
    offset = content.index(b"\xff\xc0") + 5
    content[offset : offset + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def _png_text_bomb() -> bytes:
    """A text chunk that decompresses to 100 MB."""
    content = _encoded("PNG")()
    text = _chunk(b"zTXt", b"title\0\0" + zlib.compress(bytes(100_000_000), 9))
    return content[:33] + text + content[33:]


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    return _encoded("JPEG", exif=exif)()


_BROKEN = "image file broken"

IMAGES = [
    BadImage(name="no file", make=lambda: None, left_out="image file missing"),
    BadImage(name="empty file", make=_bytes(b""), left_out=_BROKEN),
    BadImage(name="HTML called .jpg", make=_bytes(b"<html>404</html>"), left_out=_BROKEN),
    BadImage(name="JPEG header alone", make=lambda: _JPEG()[:100], left_out=_BROKEN),
    BadImage(
        name="truncated JPEG",
        left_out=_BROKEN,
        make=lambda: _encoded("JPEG", (300, 300))()[:-20_000],
    ),
    BadImage(
        name="JPEG of noise after its header",
        left_out=_BROKEN,
        make=lambda: _JPEG()[:400] + bytes(500),
    ),
    BadImage(
        name="PNG with a wrong checksum",
        left_out=_BROKEN,
        make=lambda: _encoded("PNG")().replace(b"IDAT", b"IDAU", 1),
    ),
    BadImage(name="BMP called .jpg", make=_encoded("BMP"), left_out=_BROKEN),
    BadImage(name="PNG bomb of 10 gigapixels", make=_png_bomb(100_000, 100_000), left_out=_BROKEN),
    BadImage(name="PNG bomb of 100 megapixels", make=_png_bomb(10_000, 10_000), left_out=_BROKEN),
    BadImage(name="JPEG that states 65,500 x 65,500", make=_jpeg_bomb, left_out=_BROKEN),
    BadImage(name="PNG with a text bomb", make=_png_text_bomb, left_out=_BROKEN),
    BadImage(name="1 x 1", make=_encoded("JPEG", (1, 1))),
    BadImage(name="3000 x 1", make=_encoded("JPEG", (3000, 1))),
    BadImage(name="grey JPEG", make=_encoded("JPEG", mode="L")),
    BadImage(name="CMYK JPEG", make=_encoded("JPEG", mode="CMYK")),
    BadImage(name="progressive JPEG", make=_encoded("JPEG", progressive=True)),
    BadImage(name="GIF called .jpg", make=_encoded("GIF")),
    BadImage(name="WebP called .jpg", make=_encoded("WEBP")),
    BadImage(name="JPEG rotated by EXIF", make=_exif),
    BadImage(name="transparent PNG called .jpg", make=_encoded("PNG", mode="RGBA")),
    BadImage(name="PNG with a palette", make=_encoded("PNG", mode="P")),
    BadImage(name="black and white PNG", make=_encoded("PNG", mode="1")),
    BadImage(name="16 bit PNG", make=_deep_png),
    BadImage(name="JPEG with something after it", make=lambda: _JPEG() + b"more" * 99),
]

_STOP = "caption of stop words alone"
CAPTIONS = [
    BadCaption(name="empty", text="", left_out="coco: empty caption"),
    BadCaption(name="blanks", text=" \t\n ", left_out="coco: empty caption"),
    BadCaption(name="stop words alone", text="It is what it is.", left_out=_STOP),
    BadCaption(name="emoji alone", text="🐕🔊🎸", left_out=_STOP),
    BadCaption(name="numbers alone", text="123 456", left_out=_STOP),
    BadCaption(name="Chinese alone", text="一只狗在叫", left_out=_STOP),
    BadCaption(name="500 words", text="dog " * 500, tokens=500),
    BadCaption(name="word of 10,000 letters", text="w" * 10_000, tokens=1),
    BadCaption(name="emoji between words", text="dog 🐕 barks", tokens=2),
    BadCaption(name="accents", text="café crème", tokens=2),
    BadCaption(name="capitals and marks", text="DOG!!! [barks]; dog's", tokens=3),
    BadCaption(name="letters that grow in lower case", text="İstanbul dog", tokens=2),
    BadCaption(name="right to left", text="dog \u202e barks", tokens=2),
    BadCaption(name="NUL and controls", text="dog\0barks\x1b[31m red", tokens=3),
    BadCaption(name="line ends and tabs", text="dog\r\nbarks\tloud", tokens=3),
    BadCaption(name="HTML", text="<b>dog</b> &amp; cat", tokens=5),
    BadCaption(name="quotes and commas", text='a "dog", it\'s 5" long', tokens=2),
]
