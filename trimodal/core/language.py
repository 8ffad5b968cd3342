"""What NLTK knows of a language: how its sentences are split, and its stop words.

NLTK takes almost as long to import as PyTorch, so it is imported in these functions, which the
captions stage calls. Queries are split as the vocabulary says (trimodal.core.text.Tokeniser).
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path

from trimodal.core.config import ConfigError
from trimodal.core.extras import imports_of
from trimodal.core.records import DataError
from trimodal.core.text import Tokeniser

# NLTK's 179 English stop words, in an NLTK data folder of our own: NLTK would download them.
NLTK_DATA = Path(__file__).with_name("nltk_data")
# NLTK's downloader leaves the archive and what is in it.
_PLACES = ("corpora/stopwords", "corpora/stopwords.zip/stopwords/")


def tokeniser_of(language: str) -> Tokeniser:
    """The tokeniser of a language that has a list of stop words in an NLTK data folder: English,
    which comes with this package, or what the user's folders have (``nltk.data.path``).

    Raises ConfigError for a language without a list, DataError for a list that cannot be used.
    """
    return Tokeniser(language=language, stop_words=frozenset(_stop_words(language)))


def nltk_tokenise(tokeniser: Tokeniser) -> Callable[[str], list[str]]:
    """``tokeniser.words``, its sentences split by NLTK."""
    with imports_of("pipeline"):
        from nltk.tokenize import RegexpTokenizer

    return tokeniser.with_split(RegexpTokenizer(tokeniser.pattern).tokenize)


def _stop_words(language: str) -> list[str]:
    own = NLTK_DATA / "corpora/stopwords" / language
    if language.isalpha() and own.is_file():  # NLTK would refuse a checkout that a group can write
        return own.read_text(encoding="utf-8").split()
    with imports_of("pipeline"):
        from nltk import data
        from nltk.corpus.reader import WordListCorpusReader

    for folder, place in product(data.path, _PLACES):
        try:
            root = data.find(place, [folder])
        except LookupError:
            continue
        reader = WordListCorpusReader(root, r"(?!README|\.).*", encoding="utf-8")
        if language in reader.fileids():
            try:
                words: list[str] = reader.words(language)
            except UnicodeDecodeError as error:
                raise DataError(f"{root}: {language}: not UTF-8 text: {error}") from error
            if not words:
                raise DataError(f"{root}: {language}: contains no stop words")
            return words
    raise ConfigError(
        f"captions.language: NLTK has no stop words of {language!r} here; get its lists with "
        "`python -m nltk.downloader stopwords`, or put one, a word a line, into "
        f"corpora/stopwords/{language} in a folder that NLTK_DATA names"
    )
