"""Probes a clip's media file and returns its outcome."""

from dataclasses import replace
from functools import partial

from trimodal.core.archives import ArchiveError, StoredFile, as_path
from trimodal.core.machine_errors import UnreadableError, retried
from trimodal.core.manifest import ClipOutcome
from trimodal.core.records import Clip
from trimodal.core.timing import frame_count
from trimodal.media.container import MediaError
from trimodal.media.tracks import MediaInfo, probe


def inspect(
    clip: Clip, file: StoredFile, updated_at: int | None, *, attempts: int = 1
) -> ClipOutcome:
    """The outcome of a clip from its media file, which is probed but not decoded. An error of this
    machine makes it ``unreadable``, which the next run tries again.
    """
    outcome = ClipOutcome(
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
        info = retried(partial(_probe, file))
    except UnreadableError as error:
        return replace(outcome, status="unreadable", reason=str(error))
    except MediaError as error:
        return replace(outcome, status=error.reason, reason=str(error))
    except ArchiveError as error:
        return replace(outcome, status="corrupt", reason=str(error))
    outcome = replace(outcome, duration_s=info.duration_seconds, has_audio=info.has_audio)
    if frame_count(info.duration_seconds) == 0:
        reason = f"{info.duration_seconds:.2f} s hold no frame"
        return replace(outcome, status="too_short", reason=reason)
    return outcome


def _probe(file: StoredFile) -> MediaInfo:
    with as_path(file) as path:
        try:
            return probe(path)
        except MediaError as error:
            if not file.member:
                raise
            member_path = file.path / file.member  # not that of the temporary copy
            detail = error.detail.replace(str(path), str(member_path))
            raise MediaError(member_path, error.reason, detail) from error
