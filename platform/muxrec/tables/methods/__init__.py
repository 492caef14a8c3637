"""Table methods: one file each, and the dict that names them."""

from muxrec.tables.methods.adapt import Adapt
from muxrec.tables.methods.alpt import Alpt
from muxrec.tables.methods.autodim import AutoDim
from muxrec.tables.methods.autosrh import AutoSrh
from muxrec.tables.methods.cafe import Cafe
from muxrec.tables.methods.cce import Cce
from muxrec.tables.methods.dedup import Dedup
from muxrec.tables.methods.deeplight import DeepLight
from muxrec.tables.methods.dhe import DeepHash
from muxrec.tables.methods.dpq import Dpq
from muxrec.tables.methods.full import Full
from muxrec.tables.methods.hash_embedding import HashEmbedding
from muxrec.tables.methods.hashed import Hashed
from muxrec.tables.methods.int8 import Int8
from muxrec.tables.methods.int16 import Int16
from muxrec.tables.methods.mde import MixedDimension
from muxrec.tables.methods.memcom import Memcom
from muxrec.tables.methods.mgqe import Mgqe
from muxrec.tables.methods.narrow import Narrow
from muxrec.tables.methods.optembed import OptEmbed
from muxrec.tables.methods.pep import Pep
from muxrec.tables.methods.protocol import (
    Advanced,
    Declared,
    Lowered,
    Method,
    PhysicalTable,
    Read,
    Stage,
)
from muxrec.tables.methods.qr import QuotientRemainder
from muxrec.tables.methods.robe import RandomBlocks
from muxrec.tables.methods.tt import TensorTrain
from muxrec.tables.methods.unified import Unified

METHODS: dict[str, Method] = {
    "full": Full(),
    "hashed": Hashed(),
    "unified": Unified(),
    "narrow": Narrow(),
    "mde": MixedDimension(),
    "qr": QuotientRemainder(),
    "tt": TensorTrain(),
    "dhe": DeepHash(),
    "robe": RandomBlocks(),
    "hash_embedding": HashEmbedding(),
    "memcom": Memcom(),
    "adapt": Adapt(),
    "dpq": Dpq(),
    "mgqe": Mgqe(),
    "int8": Int8(),
    "int16": Int16(),
    "alpt": Alpt(),
    "dedup": Dedup(),
    "deeplight": DeepLight(),
    "pep": Pep(),
    "autosrh": AutoSrh(),
    "cce": Cce(),
    "autodim": AutoDim(),
    "optembed": OptEmbed(),
    "cafe": Cafe(),
}

__all__ = [
    "METHODS",
    "Advanced",
    "Declared",
    "Lowered",
    "Method",
    "PhysicalTable",
    "Read",
    "Stage",
]
