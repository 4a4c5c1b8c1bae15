from bc_keras.invariance._keras_arrays import KerasBackend, KerasSpatial

__all__ = ["KerasBackend", "KerasSpatial"]
