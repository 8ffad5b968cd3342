"""Test sets of kind ``text_audio``: captions and sound files (docs/evaluation.md)."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import torch.nn.functional as F
from torch import Tensor

from trimodal.core.archives import StoredFile, as_path
from trimodal.core.files import read_table
from trimodal.core.schemas import AV_SCHEMA
from trimodal.evaluation.caption_sets import CaptionedFile, UnusableFileError, embed_captioned
from trimodal.evaluation.config import TextAudioSet
from trimodal.evaluation.hubs import bank_of
from trimodal.evaluation.pairs import write_pair_results
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.media.audio_windows import audio_windows
from trimodal.media.container import LimitError, MediaError
from trimodal.models.networks import TrimodalNet
from trimodal.sources.sounds import CaptionedSound, find_sounds, read_captioned_sounds
from trimodal.training.leaks import Leaks, check_leaks


def evaluate_text_audio(task: Task, test_set: TextAudioSet) -> None:
    """Embeds sounds from their files, each the mean over its windows, and captions, ranks them and
    writes the results. Errors as of :func:`~trimodal.evaluation.text_image.evaluate_text_image`.
    """
    folder = Path(test_set.path)
    sounds, left_out = read_captioned_sounds(folder / test_set.captions)
    leaks = find_sound_leaks(task.inputs.av, sounds)
    check_leaks("evaluate", leaks, task.leaks, items="test sounds")
    if task.leaks.test_in_training == "leave_out":
        sounds = [sound for sound in sounds if sound.sound_id not in leaks.videos]
        left_out["seen in training"] = len(leaks.videos)
    items = [
        CaptionedFile(name=found.sound.sound_id, file=found.file, captions=found.sound.captions)
        for found in find_sounds(sounds, folder / test_set.media)
    ]

    def embed(network: TrimodalNet, file: StoredFile) -> Tensor:
        try:
            with as_path(file) as path:
                windows = audio_windows(path, task.checkpoint.audio_front_end)
        except (MediaError, LimitError) as error:
            raise UnusableFileError(str(error)) from error
        mean: Tensor = network.audio(windows.to(task.world.device)).mean(dim=0)
        return F.normalize(mean, dim=0) if task.config.renormalise else mean

    pairs, not_usable = embed_captioned(task, "audio", "sounds", items, embed)
    bank = bank_of(task)
    if task.world.is_main:
        write_pair_results(
            task,
            pairs,
            duplicates=test_set.duplicates,
            folds=0,
            leaks=leaks,
            left_out=left_out + not_usable,
            bank=bank,
            facts={"data": data_fingerprint(task.inputs.av)},
        )


def find_sound_leaks(av_dir: Path, sounds: Sequence[CaptionedSound]) -> Leaks:
    """The sounds that come from a YouTube video which a training or validation clip is from."""
    index = read_table(av_dir / "index.parquet", AV_SCHEMA, columns=["split", "youtube_id"])
    training = set(index.filter(pc.field("split") != "test")["youtube_id"].to_pylist()) - {""}
    same = {s.sound_id: s.youtube_id for s in sounds if s.youtube_id in training}
    return Leaks(
        test_videos=frozenset(sound.sound_id for sound in sounds),
        by_reason={"same_youtube_video": same},
        unknown_origin=frozenset(s.sound_id for s in sounds if not s.youtube_id),
    )
