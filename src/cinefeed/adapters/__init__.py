"""Feed -> Keras, PyTorch. Each framework is imported by its own module alone."""
