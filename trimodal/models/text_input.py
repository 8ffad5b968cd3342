"""How sentences become the input of the text network: word ids of the vocabulary, or the tokens of
a pretrained tower's own tokeniser.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from trimodal.core.fingerprint import sha256_of
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary

_MAX_TOKENS = 4096


class TextBatch(NamedTuple):
    """Sentences for the text network: int64 (sentences, length) ids, and the vectors, (further,
    300), that only these sentences need (:meth:`trimodal.core.text.Vocabulary.encode`), or None.
    """

    ids: Tensor
    further: Tensor | None

    def to(self, device: torch.device) -> "TextBatch":
        """The same on a device."""
        further = None if self.further is None else self.further.to(device)
        return TextBatch(self.ids.to(device), further)


class TextInput(Protocol):
    """Turns sentences into token ids."""

    @property
    def fingerprint(self) -> str:
        """Identifies what ids mean; those of another text input are not comparable."""

    def encode(self, sentences: Sequence[str]) -> TextBatch:
        """Ids of sentences, padded to one length."""


class VocabularyInput:
    """The first 16 words that are not stop words (docs/method.md, Data)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @property
    def fingerprint(self) -> str:
        """See :class:`TextInput`."""
        return self.vocabulary.fingerprint

    def encode(self, sentences: Sequence[str]) -> TextBatch:
        """See :class:`TextInput`."""
        words = self.vocabulary.tokeniser.words
        ids, vectors = self.vocabulary.encode([words(sentence) for sentence in sentences])
        return TextBatch(torch.from_numpy(ids), torch.from_numpy(vectors) if len(vectors) else None)


class TokenizerInput:
    """A tokenizer of Hugging Face's library ``tokenizers``, from its JSON: sentences are cut after
    ``length`` tokens and padded with ``padding_id`` to the longest of a batch.
    """

    def __init__(self, json: str, length: int, padding_id: int) -> None:
        if not 0 < length <= _MAX_TOKENS:
            raise DataError(f"a tokeniser's length is not in 1 to {_MAX_TOKENS}: {length}")
        self.json, self.length, self.padding_id = json, length, padding_id

    @property
    def fingerprint(self) -> str:
        """See :class:`TextInput`."""
        return sha256_of(self.json.encode(), f"{self.length} {self.padding_id}".encode())[:16]

    def encode(self, sentences: Sequence[str]) -> TextBatch:
        """See :class:`TextInput`."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sentences))]
        longest = max(map(len, rows), default=0)
        ids = torch.full((len(rows), longest), self.padding_id, dtype=torch.int64)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return TextBatch(ids, None)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.json)
        except Exception as error:
            raise DataError(f"not a tokenizer.json: {error}") from error
        tokenizer.enable_truncation(self.length)
        tokenizer.no_padding()
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_tokenizer"}


class ClipInput:
    """OpenCLIP's byte-pair tokeniser, as CLIP's: ``length`` tokens, padded with 0."""

    def __init__(self, length: int) -> None:
        if not 0 < length <= _MAX_TOKENS:
            raise DataError(f"a tokeniser's length is not in 1 to {_MAX_TOKENS}: {length}")
        self.length = length

    @property
    def fingerprint(self) -> str:
        """See :class:`TextInput`."""
        return sha256_of(b"open_clip SimpleTokenizer", str(self.length).encode())[:16]

    def encode(self, sentences: Sequence[str]) -> TextBatch:
        """See :class:`TextInput`."""
        return TextBatch(self._tokenizer(list(sentences)), None)

    @cached_property
    def _tokenizer(self) -> Any:
        from open_clip import SimpleTokenizer

        return SimpleTokenizer(context_length=self.length)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_tokenizer"}
