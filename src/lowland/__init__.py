"""Five papers on deep-learning theory as tools for your own PyTorch model."""

__version__ = "0.1.0"
