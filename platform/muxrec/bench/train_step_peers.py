"""The peers of the training-step benchmark, used as their own documentation says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
    BoundsCheckMode,
    EmbeddingLocation,
    PoolingMode,
)
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.embedding_configs import PoolingType

Step = Callable[[], object]


def peer_steps(
    rows: Tensor, offsets: Tensor, gradients: list[Tensor], *, table_rows: int, width: int
) -> tuple[Step, Step, Step]:
    """One training step of plain TorchRec, of TBE, and of TBE with its output cut per feature.

    Args:
        rows: Rows to read, int64 ``[F * B]``, feature-major; no peer pays for hashing.
        offsets: Bag starts, int64 ``[F * B + 1]``.
        gradients: Gradient of each feature's vectors, float32 ``[B, width]`` each.
        table_rows: Rows of the shared table.
        width: Numbers per row.
    """
    whole = torch.cat(gradients, dim=1)
    table = _table_batched(len(gradients), table_rows, width)

    def one_gradient() -> None:
        table(rows, offsets).backward(whole)

    def gradient_per_feature() -> None:
        parts = table(rows, offsets).split(width, dim=1)
        torch.autograd.backward(list(parts), gradients)

    keys = [f"feature {i}" for i in range(len(gradients))]
    collection = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name="shared",
                embedding_dim=width,
                num_embeddings=table_rows,
                feature_names=keys,
                pooling=PoolingType.SUM,
            )
        ]
    )

    def plain() -> None:
        found = collection(KeyedJaggedTensor(keys=keys, values=rows, offsets=offsets))
        found.values().backward(whole)
        collection.zero_grad(set_to_none=True)

    return plain, one_gradient, gradient_per_feature


def _table_batched(features: int, rows: int, width: int) -> SplitTableBatchedEmbeddingBagsCodegen:
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        feature_table_map=[0] * features,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.05,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
