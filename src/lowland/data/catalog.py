"""What each data set looks like: its file names on the hub and in classic form, sums, classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

__all__ = ["EMBEDDED", "SOURCES", "Source", "names", "source_of"]

EMBEDDED = "digits"

DIGITS = tuple("0123456789")
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# the 100 fine classes in label order, which is alphabetical
CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Source:
    """Where a data set may lie and how to tell that it is the right one.

    Attributes:
        repo: Data set repository on the Hugging Face hub.
        config: Folder of the parquet files in that repository.
        shape: Channels, height and width of an image.
        classes: Class names in label order.
        layout: Classic layout, a name that :mod:`lowland.data.readers` knows.
        classic: For each split, the classic files that hold it.
        archive: The classic files packed into one ``.tar.gz``, if there is one.
        folders: Folder names under which the classic files usually lie.
        md5: Sums of classic files by file name, as torchvision lists them; a file that is not
            listed (uncompressed Fashion-MNIST) is not checked.
    """

    repo: str
    config: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    layout: str
    classic: Mapping[str, tuple[str, ...]]
    archive: str | None = None
    folders: tuple[str, ...] = ()
    md5: Mapping[str, str] = field(default_factory=dict)


IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

SOURCES: dict[str, Source] = {
    "cifar10": Source(
        repo="uoft-cs/cifar10",
        config="plain_text",
        shape=(3, 32, 32),
        classes=CIFAR10,
        layout="cifar",
        classic={
            "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
            "test": ("test_batch",),
        },
        archive="cifar-10-python.tar.gz",
        folders=("cifar-10-batches-py",),
        md5={
            "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    "cifar100": Source(
        repo="uoft-cs/cifar100",
        config="cifar100",
        shape=(3, 32, 32),
        classes=CIFAR100,
        layout="cifar",
        classic={"train": ("train",), "test": ("test",)},
        archive="cifar-100-python.tar.gz",
        folders=("cifar-100-python",),
        md5={
            "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
    "mnist": Source(
        repo="ylecun/mnist",
        config="mnist",
        shape=(1, 28, 28),
        classes=DIGITS,
        layout="idx",
        classic=IDX,
        folders=("MNIST/raw",),
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": Source(
        repo="zalando-datasets/fashion_mnist",
        config="fashion_mnist",
        shape=(1, 28, 28),
        classes=FASHION,
        layout="idx",
        classic=IDX,
        folders=("FashionMNIST/raw",),
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "svhn": Source(
        repo="ufldl-stanford/svhn",
        config="cropped_digits",
        shape=(3, 32, 32),
        classes=DIGITS,
        layout="mat",
        classic={
            "train": ("train_32x32.mat",),
            "test": ("test_32x32.mat",),
            "extra": ("extra_32x32.mat",),
        },
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
        },
    ),
}


def names() -> tuple[str, ...]:
    """Name all data sets, the embedded one first.

    Returns:
        Names that :func:`lowland.data.load` takes.
    """
    return (EMBEDDED, *SOURCES)


def source_of(name: str) -> Source:
    """Look up a data set that lies in files.

    Args:
        name: One of :func:`names`, except the embedded one.

    Returns:
        Its description.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if name not in SOURCES:
        near = get_close_matches(name.lower().replace("-", ""), names(), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}.{hint}")
    return SOURCES[name]
