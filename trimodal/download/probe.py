"""What a media file turns out to be: the outcome of a wanted clip."""

from dataclasses import replace

from trimodal.core.archives import ArchiveError, StoredFile, as_path
from trimodal.core.manifest import ClipOutcome
from trimodal.core.records import Clip
from trimodal.core.timing import frame_count
from trimodal.media.container import MediaError, MediaInfo, probe


def inspect(
    clip: Clip, file: StoredFile, updated_at: int | None, *, attempts: int = 1
) -> ClipOutcome:
    """Looks into a media file and settles its outcome; the file is not decoded."""
    found = ClipOutcome(
        clip=clip,
        path=file.path.as_posix(),
        member=file.member,
        offset=file.offset,
        status="ok",
        bytes=file.size,
        attempts=attempts,
        updated_at=updated_at,
    )
    try:
        info = _probe(file)
    except MediaError as error:
        return replace(found, status=error.reason, reason=str(error))
    except ArchiveError as error:
        return replace(found, status="corrupt", reason=str(error))
    found = replace(found, duration_s=info.duration_seconds, has_audio=info.has_audio)
    if frame_count(info.duration_seconds) == 0:
        reason = f"{info.duration_seconds:.2f} s hold no frame"
        return replace(found, status="too_short", reason=reason)
    return found


def _probe(file: StoredFile) -> MediaInfo:
    with as_path(file) as path:
        try:
            return probe(path)
        except MediaError as error:
            if not file.member:
                raise
            place = file.path / file.member  # and not that of the copy, another one each time
            detail = error.detail.replace(str(path), str(place))
            raise MediaError(place, error.reason, detail) from error
