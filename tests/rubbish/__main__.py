"""``python -m tests.rubbish``: a table of all bad inputs and their expected outcomes."""

from tests.rubbish.archive_corpus import ARCHIVES
from tests.rubbish.media_corpus import CLIPS
from tests.rubbish.picture_corpus import CAPTIONS, PICTURES
from tests.rubbish.store_corpus import STORES
from tests.rubbish.text_corpus import ROWS

CORPORA = {
    "clip": CLIPS, "archive": ARCHIVES, "picture": PICTURES, "caption": CAPTIONS, "text": ROWS,
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
