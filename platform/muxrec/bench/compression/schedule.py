"""How a click model is trained, and what a training came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OnEpoch = Callable[[int, float], None]
"""Called with the epoch, from 1, and its validation AUC."""


@dataclass(frozen=True)
class Schedule:
    """How a click model is trained.

    Attributes:
        batch_size: Impressions per step.
        epochs: Most passes over the training part; the stages of a method share them.
        patience: Epochs without a better validation AUC after which the last stage stops.
        dense_lr: Learning rate of AdamW on everything but the rows.
        weight_decay: Decoupled weight decay of the dense part.
    """

    batch_size: int
    epochs: int
    patience: int
    dense_lr: float
    weight_decay: float


@dataclass(frozen=True)
class Trained:
    """What a training came to; qualities are those of the tables in the form that is served.

    Attributes:
        test_auc: AUC on the test part.
        test_log_loss: Log loss on the test part, nats.
        validation_auc: AUC on the validation part.
        best_epoch: Epoch whose weights were kept, from 1.
        epochs: Epochs trained.
        step_ms: Median process CPU time of a step (forward, backward, update), milliseconds.
        parameters: Trained numbers of the tables at the end, rows and maps.
        training_bytes: Most bytes that the tables took in any stage.
        serving_bytes: Bytes of the served form.
        dictionary_bytes: Bytes of the dictionary of known ids, part of both.
    """

    test_auc: float
    test_log_loss: float
    validation_auc: float
    best_epoch: int
    epochs: int
    step_ms: float
    parameters: int
    training_bytes: int
    serving_bytes: int
    dictionary_bytes: int
