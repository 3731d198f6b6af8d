"""Table B.1 of Draxler et al. 2018: what the paper measured, as data."""

from typing import Any, NamedTuple

__all__ = ["TABLE", "Row", "published"]


class Row(NamedTuple):
    """Means over ten minima, and over the edges of their spanning tree.

    Attributes:
        data: Data set.
        model: Architecture, as :func:`lowland.models.build` knows it.
        minima: Training loss of the minima, in nats per example.
        saddles: Highest training loss of the paths.
        crossed: Epoch at which training falls below the saddle, times 60,000 images.
        test_minima: Test loss of the minima.
        test_saddles: Highest test loss of the paths.
        error_minima: Test error of the minima, in %.
        error_saddles: Highest test error of the paths, in %.
    """

    data: str
    model: str
    minima: float
    saddles: float
    crossed: int
    test_minima: float
    test_saddles: float
    error_minima: float
    error_saddles: float


TABLE = (
    Row("cifar10", "cnn-12", 0.5428, 0.6381, 78, 0.63, 0.69, 21.4, 23.6),
    Row("cifar10", "cnn-24", 0.4403, 0.5390, 84, 0.59, 0.64, 19.8, 21.8),
    Row("cifar10", "cnn-36", 0.3982, 0.4814, 91, 0.57, 0.61, 19.0, 20.8),
    Row("cifar10", "cnn-48", 0.3750, 0.4331, 103, 0.56, 0.59, 18.6, 19.9),
    Row("cifar10", "cnn-96", 0.3324, 0.3900, 103, 0.55, 0.57, 17.9, 19.3),
    Row("cifar10", "cnn-48x2", 0.1402, 0.1564, 136, 0.45, 0.46, 13.4, 14.2),
    Row("cifar10", "cnn-48x3", 0.0918, 0.1164, 110, 0.46, 0.50, 13.4, 15.2),
    Row("cifar10", "resnet-8", 0.2045, 0.2086, 136, 0.37, 0.38, 12.0, 12.5),
    Row("cifar10", "resnet-20", 0.0162, 0.0324, 104, 0.36, 0.38, 8.5, 8.9),
    Row("cifar10", "resnet-32", 0.0057, 0.0097, 107, 0.36, 0.37, 7.5, 7.8),
    Row("cifar10", "resnet-44", 0.0031, 0.0060, 122, 0.36, 0.36, 7.1, 7.4),
    Row("cifar10", "resnet-56", 0.0022, 0.0141, 85, 0.35, 0.36, 6.9, 7.4),
    Row("cifar10", "densenet-40-12", 0.0008, 0.0046, 205, 0.25, 0.25, 5.6, 6.0),
    Row("cifar10", "densenet-100-12-bc", 0.0005, 0.0026, 205, 0.21, 0.22, 4.9, 5.1),
    Row("cifar100", "cnn-12", 1.6167, 1.9029, 69, 2.00, 2.11, 51.0, 54.2),
    Row("cifar100", "cnn-24", 1.3854, 1.6930, 70, 1.90, 1.99, 48.2, 51.5),
    Row("cifar100", "cnn-36", 1.2670, 1.5801, 71, 1.87, 1.95, 47.2, 50.2),
    Row("cifar100", "cnn-48", 1.1977, 1.5002, 73, 1.87, 1.94, 46.6, 49.5),
    Row("cifar100", "cnn-96", 1.0549, 1.3304, 82, 1.85, 1.91, 45.6, 48.4),
    Row("cifar100", "cnn-48x2", 0.6579, 0.8372, 91, 1.71, 1.73, 41.0, 42.6),
    Row("cifar100", "cnn-48x3", 0.4393, 0.6124, 91, 1.88, 1.89, 43.7, 45.5),
    Row("cifar100", "resnet-8", 1.0894, 1.1547, 103, 1.46, 1.49, 39.6, 40.6),
    Row("cifar100", "resnet-20", 0.3528, 0.5442, 79, 1.42, 1.48, 33.3, 34.7),
    Row("cifar100", "resnet-32", 0.1422, 0.3576, 77, 1.53, 1.57, 31.5, 33.7),
    Row("cifar100", "resnet-44", 0.0753, 0.2117, 85, 1.60, 1.62, 30.8, 32.5),
    Row("cifar100", "resnet-56", 0.0428, 0.2978, 71, 1.64, 1.66, 30.3, 32.4),
    Row("cifar100", "densenet-40-12", 0.0101, 0.0808, 166, 1.30, 1.31, 26.3, 27.7),
    Row("cifar100", "densenet-100-12-bc", 0.0050, 0.0223, 205, 1.12, 1.13, 23.7, 24.6),
)


def published(data: str, model: str) -> dict[str, Any] | None:
    """Look up what the paper measured.

    Args:
        data: Data set.
        model: Architecture.

    Returns:
        The row as a dict, or None.
    """
    return next((row._asdict() for row in TABLE if row[:2] == (data, model)), None)
