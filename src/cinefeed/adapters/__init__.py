"""Adapters of a Feed for Keras, PyTorch and JAX. Each framework is imported by its own module only."""
