"""The Trainer mixin: weighted sums over tokens, chosen from pools, a fixed normalizer."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.errors import NoEffectWarning
from lowland.importance.hugging_face import ImportanceTrainer

BATCH, RATIO, WORDS, TOKENS = 4, 3, 11, 6.5


class TinyModel(nn.Module):
    """As much of a causal language model as the mixin calls."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Embedding(WORDS, 8), nn.Linear(8, WORDS))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.net(input_ids)
        if labels is None:
            return SimpleNamespace(logits=logits)
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


class StandIn:
    """As much of a Trainer as the mixin calls."""

    def __init__(self, model, folder, label_smoother=None):
        self.model = model
        self.label_smoother, self.compute_loss_func = label_smoother, None
        self.model_accepts_loss_kwargs = True
        self.args = SimpleNamespace(process_index=1, gradient_accumulation_steps=2)
        self._train_batch_size = BATCH
        self.folder = folder
        self.loaded = None

    def train(self, pools):
        for inputs in pools:
            loss = self.compute_loss(self.model, inputs, num_items_in_batch=torch.tensor(3))
            loss.backward()
        return "done"

    def get_train_dataloader(self):
        return self._train_batch_size

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _save_rng_state(self, output_dir):
        os.makedirs(output_dir, exist_ok=True)

    def _load_rng_state(self, checkpoint):
        self.loaded = checkpoint


class StandInTrainer(ImportanceTrainer, StandIn):
    pass


@pytest.fixture(autouse=True)
def _global_generator():
    with torch.random.fork_rng(devices=[]):
        yield


def sentences(count, length=9):
    """Rows of different lengths; the first word decides the others in a part of them."""
    draws = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        size = int(torch.randint(3, length + 1, (1,), generator=draws))
        words = torch.randint(1, WORDS, (size,), generator=draws)
        rows.append(words if number % 3 == 0 else torch.full((size,), 1 + number % 5))
    return rows


def collate(rows):
    """Pad to the longest of these rows, as collators of Transformers do."""
    if isinstance(rows[0], dict):
        rows = [row["input_ids"] for row in rows]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def pools(count=6):
    rows = sentences(count * BATCH * RATIO)
    return [
        collate(rows[i : i + BATCH * RATIO]) for i in range(0, count * BATCH * RATIO, BATCH * RATIO)
    ]


def made(folder, base=StandInTrainer, threshold=1.0, **settings):
    return base(
        TinyModel(),
        folder,
        tokens_per_sequence=TOKENS,
        importance={"tau_threshold": threshold, "smoothing": 0.0},
        **settings,
    )


def token_sums(model, inputs):
    """One loss per sequence, by a loop over its tokens."""
    found = []
    for ids, labels in zip(inputs["input_ids"], inputs["labels"], strict=True):
        scores = model(ids[None]).logits[0].log_softmax(1)
        found.append(
            sum(-scores[t, labels[t + 1]] for t in range(len(ids) - 1) if labels[t + 1] != -100)
        )
    return torch.stack(found)


def test_a_uniform_step_is_a_sum_over_tokens_by_a_fixed_number(tmp_path):
    """Not by the tokens that happen to be there; the first rows of the pool are taken."""
    trainer = made(tmp_path, threshold=100.0)
    (pool,) = pools(1)
    loss, outputs = trainer.compute_loss(trainer.model, pool, True, torch.tensor(17))
    first = {name: rows[:BATCH] for name, rows in pool.items()}
    expected = token_sums(trainer.model, first).sum() / (BATCH * TOKENS)
    torch.testing.assert_close(loss, expected)
    assert len(outputs.logits) == BATCH
    assert trainer.model_accepts_loss_kwargs is False


class TinyClassifier(TinyModel):
    """As much of a sequence classifier: logits have no axis of time."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        return SimpleNamespace(logits=self.net(input_ids).mean(1))


def class_pool(kind=torch.long):
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(1, WORDS, (BATCH * RATIO, 7), generator=draws)
    return {"input_ids": ids, "labels": (ids[:, 0] % WORDS).to(kind)}


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("is_chosen", [True, False])
def test_a_sequence_classifier_has_no_labels_to_shift(is_chosen, shift, tmp_path):
    """Its loss is the cross-entropy of each sequence, without a word about shift or loss_fn."""
    drawn = []
    trainer = StandInTrainer(
        TinyClassifier(),
        tmp_path,
        tokens_per_sequence=1,
        shift=shift,
        importance={
            "replay": [[0, is_chosen]],
            "on_sample": lambda step, index, weight: drawn.append((index, weight)),
        },
    )
    pool = class_pool()
    loss, outputs = trainer.compute_loss(trainer.model, pool, return_outputs=True)
    index, weight = drawn[0] if is_chosen else (torch.arange(BATCH), torch.ones(BATCH))
    logits = trainer.model(pool["input_ids"][index]).logits
    each = -logits.log_softmax(1)[torch.arange(BATCH), pool["labels"][index]]
    torch.testing.assert_close(loss, (weight * each).mean())
    torch.testing.assert_close(outputs.logits, logits)


@pytest.mark.untyped
@pytest.mark.parametrize("is_chosen", [True, False])
def test_targets_that_are_no_classes_need_a_loss(is_chosen, tmp_path):
    trainer = StandInTrainer(
        TinyClassifier(),
        tmp_path,
        tokens_per_sequence=1,
        importance={"replay": [[0, is_chosen]]},
    )
    with pytest.raises(
        ValueError, match=r"got \(\d+, 11\) and torch.float32 .*pass loss_fn=.*shift"
    ):
        trainer.compute_loss(trainer.model, class_pool(torch.float32))


def test_an_active_step_weighs_the_chosen_rows(tmp_path):
    """The mean over many draws is the pool's mean loss by the fixed number; 5 standard errors."""
    drawn = []
    trainer = StandInTrainer(
        TinyModel(),
        tmp_path,
        tokens_per_sequence=TOKENS,
        importance={
            "replay": [[0, True]],
            "scheme": "multinomial",
            "on_sample": lambda step, index, weight: drawn.append((index, weight)),
        },
    )
    (pool,) = pools(1)
    each = token_sums(trainer.model, pool).detach()
    found = []
    for _ in range(300):
        found.append(float(trainer.compute_loss(trainer.model, pool).detach()))
        index, weight = drawn[-1]
        assert found[-1] == pytest.approx(float((weight * each[index]).mean()) / TOKENS, rel=1e-5)
    values = torch.tensor(found, dtype=torch.float64)
    error = float(values.std()) / len(values) ** 0.5
    assert float(values.mean()) == pytest.approx(float(each.mean()) / TOKENS, abs=5 * error)


def test_training_ends_with_a_word_if_nothing_was_chosen(tmp_path):
    trainer = made(tmp_path)
    assert trainer.train(pools()) == "done"
    assert trainer.sampling.active_steps > 0
    assert trainer.sampling.switch.accumulate == 2  # as many as gradients are accumulated over
    with pytest.warns(NoEffectWarning, match="never switched on"):
        made(tmp_path, threshold=100.0).train(pools(2))


def test_the_loader_makes_pools(tmp_path):
    trainer = made(tmp_path, presample=2.5)
    assert trainer.get_train_dataloader() == 10
    assert trainer._train_batch_size == BATCH


def test_evaluation_is_the_trainers(tmp_path):
    trainer = made(tmp_path)
    (pool,) = pools(1)
    trainer.model.eval()
    loss, outputs = trainer.compute_loss(trainer.model, pool, True)
    assert len(outputs.logits) == BATCH * RATIO
    assert loss == outputs.loss
    assert trainer.sampling.steps == 0


def test_classifiers_are_not_shifted(tmp_path):
    """A linear layer on vectors: labels of shape (batch,), cross-entropy with weights."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return SimpleNamespace(logits=self.layer(x))

    draws = torch.Generator().manual_seed(0)
    pool = {
        "x": torch.randn(6, 5, generator=draws),
        "labels": torch.randint(3, (6,), generator=draws),
    }
    loss_fn = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), reduction="none")
    trainer = StandInTrainer(
        Classifier(), tmp_path, tokens_per_sequence=1, presample=2, loss_fn=loss_fn, shift=False
    )
    loss = trainer.compute_loss(trainer.model, pool)
    expected = loss_fn(trainer.model(pool["x"][:3]).logits, pool["labels"][:3]).mean()
    torch.testing.assert_close(loss, expected)


def test_the_state_lies_beside_the_random_states(tmp_path):
    """One file for each process."""
    trainer, fresh = made(tmp_path), made(tmp_path)
    trainer.train(pools())
    folder = tmp_path / "checkpoint-3"
    trainer._save_rng_state(str(folder))
    assert [file.name for file in folder.iterdir()] == ["importance_sampling_1.pt"]
    fresh._load_rng_state(None)
    fresh._load_rng_state(str(tmp_path))  # of a run without the mixin
    assert fresh.sampling.steps == 0
    fresh._load_rng_state(str(folder))
    assert fresh.loaded == str(folder)
    assert fresh.sampling.steps == trainer.sampling.steps == 6
    assert fresh.sampling.tau == trainer.sampling.tau


def test_what_cannot_be_right_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tokens_per_sequence must be positive; got 0"):
        StandInTrainer(TinyModel(), tmp_path, tokens_per_sequence=0)
    with pytest.raises(ValueError, match="must leave the loss to the sampling"):
        made(tmp_path, label_smoother=object())


# --- with Transformers itself ----------------------------------------------------------------


def real(transformers, folder, *, threshold=1.0, **arguments):
    class Mine(ImportanceTrainer, transformers.Trainer):
        pass

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    settings = {"max_steps": 6, "gradient_accumulation_steps": 1, "save_strategy": "no"}
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        learning_rate=1e-2,
        max_grad_norm=0,
        optim="sgd",
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="steps",
        logging_steps=1,
        seed=0,
        **settings | arguments,
    )
    return Mine(
        model=transformers.GPT2LMHeadModel(config),
        args=args,
        data_collator=collate,
        train_dataset=[{"input_ids": row} for row in sentences(12 * BATCH * RATIO)],
        eval_dataset=[{"input_ids": row} for row in sentences(7)],
        tokens_per_sequence=TOKENS,
        importance={"tau_threshold": threshold, "smoothing": 0.0, "seed": 1},
    )


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("threshold", [1.0, 100.0])
def test_trainer_takes_the_steps_of_a_loop_by_hand(accumulation, threshold, tmp_path):
    """Pools padded as they come, gradients averaged over micro-steps, the weights after 6 updates.

    Losses to rounding: the Trainer divides each micro-step's loss by their number first.
    """
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    trainer = real(
        transformers, tmp_path, threshold=threshold, gradient_accumulation_steps=accumulation
    )
    twin = real(
        transformers, tmp_path, threshold=threshold, gradient_accumulation_steps=accumulation
    )
    trainer.train()
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]

    model, sampling = twin.model.train(), twin.sampling
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    transformers.set_seed(0)
    stream = iter(twin.get_train_dataloader())  # one epoch
    expected = []
    for _ in range(6):
        total = 0.0
        optimizer.zero_grad()
        for _ in range(accumulation):
            pool = sampling.select(next(stream))
            assert len(pool["labels"]) == BATCH
            logits = model(pool["input_ids"], attention_mask=pool["attention_mask"]).logits
            loss = sampling.loss(logits[:, :-1], pool["labels"][:, 1:]) / TOKENS / accumulation
            loss.backward()
            total += float(loss)
        optimizer.step()
        expected.append(total)
    assert sampling.active_steps == trainer.sampling.active_steps
    assert (sampling.active_steps > 0) == (threshold == 1.0)
    assert logged == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(flat(trainer.model), flat(model))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_trainer_resumes_in_the_middle(tmp_path):
    """Weights after 6 steps are those of 4 steps, a folder, and 2 steps."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    whole = real(transformers, tmp_path / "whole", save_strategy="steps", save_steps=4)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-4"
    assert (folder / "importance_sampling_0.pt").is_file()
    rest = real(transformers, tmp_path / "rest")
    rest.train(resume_from_checkpoint=str(folder))
    assert rest.sampling.steps == whole.sampling.steps == 6
    assert rest.sampling.switches == whole.sampling.switches
    assert torch.equal(flat(rest.model), flat(whole.model))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_trainer_evaluates_as_ever(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    trainer = real(transformers, tmp_path)
    found = trainer.evaluate()["eval_loss"]
    (batch,) = trainer.get_eval_dataloader()
    with torch.no_grad():
        assert found == pytest.approx(float(trainer.model(**batch).loss), rel=1e-5)
    assert trainer.sampling.steps == 0
