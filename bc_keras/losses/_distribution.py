"""What a loss must know of the replicas of a tf.distribute strategy; other backends compute on the global batch."""

from __future__ import annotations

from typing import Any

import keras


def num_replicas() -> int:
    """Number of replicas that run this step together."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def replica() -> Any:
    """Number of the replica that runs this, from 0."""
    if num_replicas() == 1:
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def sum_over_replicas(value: Any) -> Any:
    """Sum a tensor over all replicas, where there are several; unchanged elsewhere."""
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)
