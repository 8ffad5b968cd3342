"""Tiny towers of timm, OpenCLIP and sentence-transformers with random weights, in local folders."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16,
        },
        "text_cfg": {
            "context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}  # fmt: skip
TIMM_NAME = "test_resnet"  # one of timm's own tiny models for tests
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "cat", "barks", "in", "the", "park"]


def write_timm_weights(path: Path) -> Path:
    import timm

    torch.manual_seed(1)
    save_file(timm.create_model(TIMM_NAME, pretrained=False).state_dict(), path)
    return path


def write_clip(folder: Path) -> Path:
    from open_clip.model import CLIP

    torch.manual_seed(2)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP_CONFIG))
    clip = CLIP(**CLIP_CONFIG["model_cfg"])  # type: ignore[arg-type]
    save_file(
        {name: tensor.contiguous() for name, tensor in clip.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def write_sentence_transformer(folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(3)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    network = folder / "transformer"
    BertModel(
        BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1,
                   num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
    ).save_pretrained(network)  # fmt: skip
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]", model_max_length=12,  # noqa: S106
    ).save_pretrained(network)  # fmt: skip
    transformer = Transformer(str(network), max_seq_length=12)
    pooling = Pooling(transformer.get_embedding_dimension())
    whole = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    whole.save(str(folder / "model"))
    return folder / "model"
