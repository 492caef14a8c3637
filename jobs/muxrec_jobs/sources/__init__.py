"""Readers of raw logs and catalogues, one file per kind of source."""

from __future__ import annotations

from muxrec_jobs.sources.generic import GenericReader
from muxrec_jobs.sources.movielens import MovielensReader
from muxrec_jobs.sources.raw import Reader
from muxrec_jobs.sources.recbole import RecboleReader

READERS: dict[str, Reader] = {
    "generic": GenericReader(),
    "movielens": MovielensReader(),
    "recbole": RecboleReader(),
}
