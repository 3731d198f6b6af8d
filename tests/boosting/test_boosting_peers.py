"""Networks of torchvision, timm and transformers as chains: the logits are theirs, to the bit."""

import pytest
import torch

from lowland.boosting.chain import as_chain, logits_of
from lowland.params import call
from small_networks import seeded

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

TEXT = {"vocab_size": 99, "num_labels": 4, "pad_token_id": 0}
SMALL = TEXT | {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32}
GPT2 = TEXT | {"n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 16}
DISTIL = TEXT | {"dim": 24, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}


def is_chain(model, inputs, depth):
    chain = as_chain(model, inputs)
    model.eval()
    assert len(chain.parts) == depth + 1
    assert torch.equal(chain(inputs), logits_of(call(model, inputs)))
    found = {id(w) for part in [*chain.parts, chain.head] for w in part.parameters()}
    assert found == set(map(id, model.parameters()))


@pytest.mark.parametrize(
    ("name", "depth"),
    [("resnet18", 8), ("resnet50", 16), ("densenet121", 7), ("convnext_tiny", 7), ("swin_t", 7)],
)
def test_torchvision(name, depth):
    models = pytest.importorskip("torchvision.models")
    inputs = torch.randn(3, 3, 32, 32)
    is_chain(seeded(lambda: getattr(models, name)(num_classes=7), 0), inputs, depth)


@pytest.mark.parametrize(
    ("name", "depth", "size"),
    [("resnet18", 8, 32), ("vit_tiny_patch16_224", 12, 32), ("mixer_s16_224", 8, 32)],
)
def test_timm(name, depth, size):
    timm = pytest.importorskip("timm")
    options = {} if name == "resnet18" else {"img_size": size}
    model = seeded(lambda: timm.create_model(name, num_classes=7, **options), 0)
    is_chain(model, torch.randn(3, 3, size, size), depth)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("Bert", SMALL), ("Roberta", SMALL), ("DistilBert", DISTIL), ("GPT2", GPT2), ("Llama", SMALL)],
)
def test_transformers(name, options, attention):
    library = pytest.importorskip("transformers")
    make = getattr(library, f"{name}ForSequenceClassification")
    config = getattr(library, f"{name}Config")(**options, attn_implementation=attention)
    mask = torch.ones(4, 9, dtype=torch.long)
    mask[1, 5:], mask[2, 3:] = 0, 0
    ids = torch.randint(5, 90, (4, 9)) * mask
    is_chain(seeded(lambda: make(config), 0), {"input_ids": ids, "attention_mask": mask}, 3)
