"""Which files of a folder are taken for videos: links, loops, hidden files."""

from pathlib import Path

from trimodal.search.folder import folder_names, left_out, list_videos


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


def test_short_names_tell_folders_apart() -> None:
    assert folder_names(["/one/videos"]) == {"/one/videos": "videos"}
    assert folder_names(["/one/videos", "/two/films"]) == {
        "/one/videos": "videos", "/two/films": "films",
    }  # fmt: skip
    assert folder_names(["/one/videos", "/two/videos", "/"]) == {
        "/one/videos": "one/videos", "/two/videos": "two/videos", "/": "/",
    }  # fmt: skip
    assert folder_names([]) == {}


def test_what_is_left_out_is_counted_by_kind() -> None:
    assert left_out({}, 0) == ""
    assert left_out({".jpg": 12, "": 1}, 2) == "2 hidden, 12 .jpg, 1 without a suffix"
    kinds = {f".{number}": 10 - number for number in range(7)}
    assert left_out(kinds, 0) == "10 .0, 9 .1, 8 .2, 7 .3, 6 .4, 9 of other types"
