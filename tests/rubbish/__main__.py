"""``python -m tests.rubbish``: prints every bad input and its expected outcome as a table."""

from tests.rubbish.archive_corpus import ARCHIVES
from tests.rubbish.image_corpus import CAPTIONS, IMAGES
from tests.rubbish.media_corpus import CLIPS
from tests.rubbish.store_corpus import STORES
from tests.rubbish.text_corpus import ROWS

CORPORA = {
    "clip": CLIPS, "archive": ARCHIVES, "image": IMAGES, "caption": CAPTIONS, "text": ROWS,
    "store": STORES,
}  # fmt: skip


def main() -> None:
    for kind, rows in CORPORA.items():
        for row in rows:
            print(f"{kind:<8} {row.name:<58} {row.outcome()}")
    counts = ", ".join(f"{len(rows)} {kind}s" for kind, rows in CORPORA.items())
    print(f"{sum(map(len, CORPORA.values()))} bad inputs: {counts}")


if __name__ == "__main__":
    main()
