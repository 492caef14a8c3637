"""Export a transformers text model from a local folder to the files that ``TextEncoder`` reads.

Run as ``python -m muxrec.encoders.text_export MODEL_FOLDER OUT_FOLDER``: a process of its own, so
that preparing features needs no torch and the model's memory is given back.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from muxrec.encoders.text_source import fingerprint_model
from muxrec.errors import DataError
from muxrec.features.text_onnx import CONFIG, GRAPH, TOKENIZER

OPSET = 20
MAX_TOKENS = 128
"""Tokens kept per text: titles, genres and a plot fit, and cost grows with length."""

Pooling = Literal["mean", "last", "first"]
_CAUSAL = ("qwen2", "qwen3", "llama", "gpt2", "mistral", "gemma")


class PooledText(nn.Module):
    """A text model and its pooling: token ids and mask in, unit vectors out."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors, float32 ``[B, width]``, of token ids and a 0/1 mask, int64 ``[B, T]``."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = self._weights(mask).to(states.dtype)[..., None]
        pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return nn.functional.normalize(pooled, dim=-1)

    def _weights(self, mask: Tensor) -> Tensor:
        if self.pooling == "mean":
            return mask
        places = torch.arange(mask.shape[1])
        chosen = mask.sum(dim=1, keepdim=True) - 1 if self.pooling == "last" else 0
        return (places == chosen).to(mask.dtype)


def pooling_of(folder: Path, model_type: str) -> Pooling:
    """Pooling as a sentence-transformers folder says, else the last token of a causal model."""
    config = folder / "1_Pooling" / "config.json"
    if config.is_file():
        found = json.loads(config.read_text())
        return "first" if found.get("pooling_mode_cls_token") else "mean"
    return "last" if model_type in _CAUSAL else "mean"


def export_text_encoder(source: Path, out: Path) -> None:
    """Write the ONNX graph, the tokenizer and the settings of the model in ``source`` to ``out``.

    Raises:
        DataError: A file is missing in ``source``, or torch and ONNX disagree by more than 1e-4.
    """
    if not (source / "tokenizer.json").is_file():
        raise DataError(
            f"{source} holds no tokenizer.json: save the fast tokenizer beside the model"
        )
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    model = AutoModel.from_pretrained(
        source, local_files_only=True, use_safetensors=True, attn_implementation="sdpa"
    ).eval()
    pooled = PooledText(model, pooling_of(source, config.model_type)).eval()
    ids = torch.randint(0, config.vocab_size, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    out.mkdir(parents=True, exist_ok=True)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    program = torch.onnx.export(
        pooled,
        (ids, mask),
        dynamo=True,
        opset_version=OPSET,
        input_names=["ids", "mask"],
        output_names=["vector"],
        dynamic_shapes={"ids": {0: batch, 1: tokens}, "mask": {0: batch, 1: tokens}},
        verbose=False,
    )
    if program is None:
        raise DataError(f"{source}: the ONNX exporter returned nothing")
    program.save(out / GRAPH)
    shutil.copyfile(source / "tokenizer.json", out / TOKENIZER)
    settings = {
        "fingerprint": fingerprint_model(source),
        "max_tokens": min(MAX_TOKENS, getattr(config, "max_position_embeddings", MAX_TOKENS)),
        "model_type": config.model_type,
        "pooling": pooled.pooling,
        "width": int(config.hidden_size),
    }
    (out / CONFIG).write_text(json.dumps(settings, indent=1, sort_keys=True))
    _prove_parity(pooled, out, ids[:, :7])


def _prove_parity(pooled: PooledText, out: Path, ids: Tensor) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(out / GRAPH), providers=["CPUExecutionProvider"])
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    with torch.no_grad():
        expected = pooled(ids, mask)
    found = session.run(["vector"], {"ids": ids.numpy(), "mask": mask.numpy()})[0]
    error = float((torch.from_numpy(found) - expected).abs().max())
    if error > 1e-4:
        raise DataError(f"exported text encoder differs from torch by {error:.2e}, at most 1e-4")


if __name__ == "__main__":
    export_text_encoder(Path(sys.argv[1]), Path(sys.argv[2]))
