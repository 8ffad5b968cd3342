"""A trained model as a folder that one can hand on, and on Hugging Face's Hub (extra ``hub``)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

from trimodal.core.arguments import missing_packages
from trimodal.core.errors import UserError
from trimodal.core.files import (
    read_json,
    remove_stale_temporary_folders,
    temporary_folder,
    write_text,
)
from trimodal.core.records import DataError, reading_text
from trimodal.models.checkpoint import (
    CARD,
    CONFIG,
    MODEL,
    VOCABULARY,
    WEIGHTS,
    load_vocabulary,
    read_checkpoint,
)
from trimodal.search.replacing import replacing

REPORT_CARD = Path("metrics/report/model_card.md")
FILES = frozenset({CONFIG, WEIGHTS, VOCABULARY, CARD})
_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class HubError(UserError, RuntimeError):
    """The Hub has no such model, refuses, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """The written files, and where their model card is from; None for one made here."""

    files: tuple[str, ...]
    card: Path | None


def model_folder(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: ``model`` itself, or that in the Hub's cache for text such as
    "owner/model" that names no folder here (and is in none, as "models/trimodal" may be). Of the
    repository, ``config.json``, ``model.safetensors``, ``vocabulary.parquet`` and ``README.md`` are
    downloaded and nothing else. HF_HUB_OFFLINE and HF_HOME hold as for any other model.

    Raises HubError without the package, for a repository or revision that the Hub does not have,
    and where it is neither reached nor cached.
    """
    if not _is_repo_id(model):
        if revision is not None:
            raise HubError(f"{model}: is a folder here, which has no revision {revision}")
        return Path(model)
    with _hub_errors(f"{model}: no such folder here"):
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                str(model), revision=revision, cache_dir=cache_dir, token=token,
                force_download=force_download, local_files_only=local_files_only,
                allow_patterns=sorted(FILES),
            )
        )  # fmt: skip
    if not (folder / CONFIG).is_file():
        raise HubError(f"{model}: Hugging Face's Hub has no model of trimodal there, no {CONFIG}")
    return folder


def _is_repo_id(model: str | Path) -> bool:
    return (
        isinstance(model, str)
        and _REPO_ID.fullmatch(model) is not None
        and model != MODEL
        and not Path(model).parent.is_dir()
    )


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    if missing_packages("huggingface_hub"):
        raise HubError(f"{what}; Hugging Face's Hub needs pip install 'trimodal[hub]'")
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
    )

    try:
        yield
    except (
        HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, LocalTokenNotFoundError,
        ConnectionError,
    ) as error:  # fmt: skip
        reason = next(iter(filter(None, map(str.strip, str(error).splitlines()))), "no answer")
        raise HubError(f"{what}; Hugging Face's Hub: {reason}") from error


def export_model(
    model_folder: Path, folder: Path, card: Path | None = None, *, weights: str | None = None
) -> ExportedModel:
    """Writes a copy of a model's folder, with its model card as README.md: ``card``; by default
    that of the last report if it describes these very weights, else the folder's own, else one made
    here. ``folder`` appears, or replaces that of an earlier export, when it is complete.

    Raises DataError for a model that cannot be read, for one of others than these ``weights`` (a
    fingerprint), and for a ``card`` of others; ExportError if ``folder`` has other files in it.
    """
    checkpoint = read_checkpoint(model_folder)
    if weights is not None and checkpoint.weights != weights:
        raise DataError(
            f"{model_folder}: another model than the one that was loaded; load it again"
        )
    vocabulary = load_vocabulary(model_folder, checkpoint)
    text, source = _card(model_folder, card, checkpoint.weights)
    with replacing(folder, FILES) as complete:
        for name in (WEIGHTS, VOCABULARY, CONFIG):
            if name != VOCABULARY or vocabulary is not None:
                copyfile(model_folder / name, complete / name)
        if read_checkpoint(complete) != checkpoint:
            raise DataError(f"{model_folder}: was replaced while it was copied; try again")
        if text is None:
            from trimodal.models.model_card import model_card

            language = vocabulary.tokeniser.language if vocabulary else None
            text = model_card(read_json(complete / CONFIG), language=language)
        write_text(complete / CARD, text)
        files = tuple(sorted(path.name for path in complete.iterdir()))
    return ExportedModel(files=files, card=source)


def _card(model_folder: Path, card: Path | None, weights: str) -> tuple[str | None, Path | None]:
    """The text of the model card, and its file; None without one."""
    from trimodal.models.model_card import described_weights

    if card is not None:
        text = _read(card)
        if described_weights(text) != weights:
            raise DataError(
                f"{card}: not the card of the model in {model_folder}, whose weights are "
                f"{weights}: run dvc repro report, or leave the card out"
            )
        return text, card
    if REPORT_CARD.is_file() and described_weights(text := _read(REPORT_CARD)) == weights:
        return text, REPORT_CARD
    own = model_folder / CARD
    return (_read(own), own) if own.is_file() else (None, None)


def _read(path: Path) -> str:
    with reading_text(path):
        return path.read_text(encoding="utf-8")


def push_model(
    model_folder: Path,
    repo_id: str,
    card: Path | None = None,
    *,
    weights: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Model of trimodal",
) -> str:
    """Uploads what :func:`export_model` writes in one commit to a repository of the Hub, which is
    created if there is none; returns the commit's address. Raises HubError, and the errors of
    :func:`export_model`.
    """
    remove_stale_temporary_folders()
    with _hub_errors(f"{repo_id}: not uploaded"), temporary_folder() as scratch:
        from huggingface_hub import HfApi

        written = export_model(model_folder, scratch / "model", card, weights=weights)
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=scratch / "model", revision=revision,
            commit_message=commit_message, allow_patterns=list(written.files),
        )  # fmt: skip
        return str(commit)
