"""Sentence embeddings of sentence-transformers as the text network's backbone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, cast
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from trimodal.core.display import printable
from trimodal.core.files import temporary_folder
from trimodal.core.records import DataError
from trimodal.models.text_input import TextInput, TokenizerInput
from trimodal.models.towers import (
    SENTENCE_TRANSFORMERS,
    Definition,
    TowerError,
    check_installed,
    checking_definition,
    explaining_weights,
    quiet,
)

MINILM = "all-MiniLM-L6-v2"
# transformers' encoders of text alone: others load further networks, from anywhere.
_ENCODERS = frozenset({
    "albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra",
    "ernie", "eurobert", "gte", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta",
})  # fmt: skip
# Of a config, what does not describe the network: where it was, and code that would be fetched.
_NOT_OF_THE_NETWORK = (
    "_name_or_path", "transformers_version", "auto_map", "attn_implementation",
    "_attn_implementation", "experts_implementation", "_experts_implementation",
)  # fmt: skip


class SentenceTransformerText(nn.Module):
    """A transformer of sentence-transformers with its pooling: int64 (batch, length) ids ->
    (batch, features), not normalised.
    """

    def __init__(self, network: nn.Module, pooling: nn.Module, definition: Definition) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.definition = definition
        self.features = int(definition["pooling"]["embedding_dimension"])
        self._padding_id = int(definition["padding_id"])
        self.tokenise: TextInput = TokenizerInput(
            definition["tokenizer"], int(definition["length"]), self._padding_id
        )

    def forward(self, ids: Tensor) -> Tensor:
        """The pooled embedding, (batch, features)."""
        mask = (ids != self._padding_id).to(torch.int64)
        tokens = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled: dict[str, Tensor] = self.pooling(
            {"token_embeddings": tokens, "attention_mask": mask}
        )
        return pooled["sentence_embedding"]


def sentence_transformer(
    name: str, weights: str, key: str, weights_key: str
) -> SentenceTransformerText:
    """``sentence_transformers:NAME`` of the hub or of a local folder: a transformer with pooling,
    perhaps normalised. ``all-MiniLM-L6-v2`` is the installed package's, if there is one (extra
    ``minilm``). Raises TowerError and WeightsUnavailableError.
    """
    check_installed(SENTENCE_TRANSFORMERS, key)
    name = name.removeprefix(SENTENCE_TRANSFORMERS)
    from sentence_transformers import SentenceTransformer

    with explaining_weights(weights_key, name), quiet(), _folder_of(name) as place:
        whole = SentenceTransformer(
            place, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    kinds = [type(module).__name__ for module in whole]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise TowerError(
            f"{key}: {name} is made of {', '.join(kinds)}; only a transformer with pooling is "
            "supported"
        )
    transformer, pooling = cast("tuple[Any, Any]", (whole[0], whole[1]))
    tokenizer = transformer.tokenizer
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise TowerError(f"{key}: {name} has no tokenizer.json with a padding token")
    config = json.loads(transformer.auto_model.config.to_json_string(use_diff=False))
    if config["model_type"] not in _ENCODERS:
        raise TowerError(
            f"{key}: {name} is of type {config['model_type']}; supported are "
            f"{', '.join(sorted(_ENCODERS))}"
        )
    definition = {
        "config": _of_the_network(config),
        "pooling": pooling.get_config_dict(),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "length": whole.max_seq_length,
        "padding_id": tokenizer.pad_token_id,
    }
    if weights == "none":
        return rebuilt_sentence_transformer(definition)
    return SentenceTransformerText(transformer.auto_model, pooling, definition)


@contextmanager
def _folder_of(name: str) -> Iterator[str]:
    """The name itself, or a folder with the model that an installed package carries as a zip. The
    package is not imported.
    """
    found = find_spec("all_minilm_l6_v2") if name == MINILM and not Path(name).is_dir() else None
    if found is None or not found.submodule_search_locations:
        yield name
        return
    archive = Path(next(iter(found.submodule_search_locations))) / "model.zip"
    with temporary_folder() as folder, ZipFile(archive) as files:
        for member in files.infolist():
            path = PurePosixPath(member.filename)
            if not member.is_dir() and not path.is_absolute() and ".." not in path.parts:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(files.read(member))
        yield str(folder)


def rebuilt_sentence_transformer(definition: Definition) -> SentenceTransformerText:
    """The tower, with random weights, from what a saved model says of it. Nothing is downloaded.
    Raises DataError for a definition of anything else.
    """
    check_installed(SENTENCE_TRANSFORMERS, "model")
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoConfig, AutoModel

    with checking_definition("sentence-transformers"), quiet():
        config = _of_the_network(definition["config"])
        if config["model_type"] not in _ENCODERS:
            shown = printable(str(config["model_type"]))
            raise DataError(f"towers: text.config.model_type: {shown!r} is no encoder of text")
        from_config: Any = AutoModel.from_config
        network = from_config(AutoConfig.for_model(**config), trust_remote_code=False)
        return SentenceTransformerText(network, Pooling(**definition["pooling"]), definition)


def _of_the_network(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOT_OF_THE_NETWORK}
