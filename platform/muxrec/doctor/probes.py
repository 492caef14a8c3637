"""Does a backend really work? Each probe runs in a process of its own, since some crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 180

PROBES = {
    "torch": "import torch; n = torch.cuda.device_count(); print(f'{n} CUDA devices')",
    "torchrec": """
import torch, torchrec
bags = torchrec.EmbeddingBagCollection(tables=[torchrec.EmbeddingBagConfig(
    name='t', embedding_dim=4, num_embeddings=4, feature_names=['f'])])
ids = torchrec.KeyedJaggedTensor(keys=['f'], values=torch.tensor([1]), lengths=torch.tensor([1]))
print('looked up', tuple(bags(ids)['f'].shape))
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen)""",
    "triton": """
import os, torch
from muxrec_kernels.dispatch import choose_backend
device = 'cuda' if torch.cuda.is_available() else 'cpu'
picked = choose_backend(torch.device(device))
if device == 'cpu':
    os.environ['TRITON_INTERPRET'] = '1'
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup
one, zero = (torch.tensor([n], device=device) for n in (1, 0))
multiplexed_lookup(torch.ones(4, 4, device=device), one, torch.cat([zero, one]), zero, one,
                   batch_size=1, backend='triton')
where = 'on the GPU' if device == 'cuda' else 'in the interpreter'
forced = ', forced by MUXREC_BACKEND' if os.environ.get('MUXREC_BACKEND') else ''
taken = f'operations on {device} tensors take the {picked.value} backend'
print(f'kernels ran {where}; {taken}{forced}')
""",
    "onnxruntime": "import onnxruntime; print(', '.join(onnxruntime.get_available_providers()))",
    "hnswlib": """
import hnswlib, numpy
index = hnswlib.Index(space='ip', dim=4)
index.init_index(max_elements=2)
index.add_items(numpy.eye(2, 4, dtype='float32'))
print('built an index of', index.element_count)""",
    "pyspark": "import pyspark, pandas; print('imports; Spark itself starts with the first job')",
    "mlflow": "from mlflow.tracking import MlflowClient; print('client imports')",
}
"""Backend -> program; it is asked for only where a distribution of that name is installed."""


def probe_backends(installed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """What each installed backend's probe said: ``ok: ...`` or its last error line.

    Args:
        installed: Distribution name -> versions, as ``read_packages`` gives it.
    """
    present = [name for name in PROBES if name in installed]
    if "onnxruntime-gpu" in installed and "onnxruntime" not in present:
        present.append("onnxruntime")
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(present, pool.map(lambda name: _run(PROBES[name]), present), strict=True))


def _run(program: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    if done.returncode == 0:
        return f"ok: {(done.stdout.strip().splitlines() or [''])[-1]}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with code {done.returncode}"
