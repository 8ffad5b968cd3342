"""Which files of a folder are taken for videos: links, loops, hidden files."""

from pathlib import Path

from trimodal.search.folder import list_videos


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_folder_is_visited_once(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root / "z" / "a.mp4", outside / "sub" / "b.mp4", outside / "c.mp4")
    (root / "a").symlink_to(root / "z")  # listed before z, which keeps its name
    (root / "z" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "self").symlink_to("self")
    (root / "sub").symlink_to(outside / "sub")
    (root / "whole").symlink_to(outside)
    (outside / "back").symlink_to(root / "z")
    (outside / "sub" / "again").symlink_to(outside)
    listing = list_videos(root)
    once = "a folder that is indexed under another path"
    above = "a link to a folder that contains it; not followed"
    assert listing.problems == {
        "a": once, "z/loop": above, "up": above, "sub/again": once, "whole/back": once,
        "whole/sub": once,
    }  # fmt: skip
    assert sorted(listing.present) == ["sub/b.mp4", "whole/c.mp4", "z/a.mp4"]


def test_hidden_files_and_those_of_systems_are_passed_over(tmp_path: Path) -> None:
    hidden = (
        "._a.mp4", ".b.mp4", ".trash/c.mp4", "__MACOSX/._a.mp4", "b/$RECYCLE.BIN/d.mp4",
        "b/@eaDir/e.mp4", ".Trash-1000/files/f.mp4",
    )  # fmt: skip
    touch(tmp_path / "a.mp4", *(tmp_path / name for name in hidden))
    listing = list_videos(tmp_path)
    assert (list(listing.present), listing.problems, listing.hidden) == (["a.mp4"], {}, len(hidden))
