"""Image data sets, whole in memory as uint8, and batches of them made on the device.

``load`` finds a data set in any of the forms people have it in and never downloads unasked;
``Batches`` gives the same batches for the same seed on every device. The embedded digits are
*Optical Recognition of Handwritten Digits* from UCI, CC BY 4.0 as stated there (unverified).
"""

from lowland.data.batches import Batches, crop_and_flip
from lowland.data.catalog import names
from lowland.data.datasets import Dataset, channel_statistics, load

__all__ = ["Batches", "Dataset", "channel_statistics", "crop_and_flip", "load", "names"]
