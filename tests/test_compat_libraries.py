"""The drop-ins against the libraries that they stand in for, values and gradients.

Each library is tested where it is installed: `make test-peers` has all of them.
"""

import copy
import importlib.util
import sys
from unittest import mock

import pytest
import torch
from torch.nn.functional import normalize

from mcfa_fast.compat import lightly as our_lightly
from mcfa_fast.compat import open_clip as our_open_clip


def library(name):
    """A module of a library, its image models aside: torchvision has no build for each PyTorch."""
    package = importlib.util.find_spec(name.partition(".")[0])
    if package is None:
        pytest.skip(f"{name} is not installed")
    if name == "open_clip.loss":  # which needs no model, unlike its package
        path = f"{package.submodule_search_locations[0]}/loss.py"
        spec = importlib.util.spec_from_file_location("open_clip_loss", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    names = ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.transforms")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in names}):
        return importlib.import_module(name)


def rows(count, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, dtype=torch.float64, generator=generator)


def assert_same(ours, theirs, tensors):
    """Values and gradients of both with respect to the tensors; a list calls one after another."""
    results = []
    for loss in (ours, theirs):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        value = loss(*leaves)
        grads = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else ()
        results.append((value.detach(), *grads))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_open_clip(scale, bias):
    original = library("open_clip.loss").ClipLoss()
    ours = our_open_clip.ClipLoss()
    images, texts = normalize(rows(9), dim=1), normalize(rows(9, seed=1), dim=1)
    tensors = [images, texts, torch.tensor(scale, dtype=torch.float64)]
    tensors += [torch.tensor(-10.0, dtype=torch.float64)] if bias else []
    assert_same(ours, original, tensors)
    as_dict = ours(*tensors, output_dict=True)
    assert as_dict.keys() == original(*tensors, output_dict=True).keys()


def test_lightly_without_a_bank():
    original = library("lightly.loss.ntx_ent_loss").NTXentLoss(temperature=0.2)
    ours = our_lightly.NTXentLoss(temperature=0.2)
    assert_same(ours, original, [rows(8), rows(8, seed=1)])


def test_lightly_with_a_bank():
    """Until it has been filled twice, with batches that do not fit its end and with two losses
    before their backward."""
    original = library("lightly.loss.ntx_ent_loss").NTXentLoss(0.2, memory_bank_size=(20, 6))
    ours = our_lightly.NTXentLoss(0.2, memory_bank_size=(20, 6))
    bank = normalize(rows(20, seed=5), dim=1)
    ours.bank, original.memory_bank.bank = bank.clone(), bank.clone()

    def two(loss):
        return lambda a, b: loss(a, b.detach()) + loss(b, a.detach())

    for step in range(9):
        tensors = [rows(6, seed=2 * step), rows(6, seed=2 * step + 1)]
        if step % 3 == 2:
            assert_same(two(ours), two(original), tensors)
        else:
            assert_same(ours, original, tensors)
    with torch.no_grad():  # which lets nothing in
        torch.testing.assert_close(ours(*tensors), original(*tensors))
    torch.testing.assert_close(ours.bank, original.memory_bank.bank)


def metric_learning():
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses

    from mcfa_fast.compat import pytorch_metric_learning as ours

    return ours, losses


LABELS = {
    "mixed": [0, 1, 1, 2, 0, 1, 3, 4],
    "pairs": [0, 1, 2, 3, 0, 1, 2, 3],
    "alone": [0, 1, 2, 3, 4, 5, 6, 7],
    "one class": [5] * 8,
    "negative": [-100, -1, -100, -1, 7, 7, 8, 9],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss"])
def test_metric_learning(name, labels):
    ours, losses = metric_learning()
    labels = torch.tensor(labels)
    first, second = (getattr(module, name)(temperature=0.3) for module in (ours, losses))
    assert_same(lambda x: first(x, labels), lambda x: second(x, labels), [rows(8)])
    references = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 1])

    def against(loss):
        return lambda x, keys: loss(x, labels, ref_emb=keys, ref_labels=references)

    assert_same(against(first), against(second), [rows(8), rows(11, seed=1)])


@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss"])
def test_metric_learning_with_the_options_of_the_library(name):
    ours, losses = metric_learning()
    from pytorch_metric_learning import distances, miners, reducers, regularizers

    labels, x = torch.tensor(LABELS["mixed"]), rows(8)
    for options in (
        {"distance": distances.LpDistance()},
        {"reducer": reducers.SumReducer()},
        {"reducer": reducers.PerAnchorReducer()},
        {"embedding_regularizer": regularizers.LpRegularizer()},
    ):
        first, second = (
            getattr(module, name)(temperature=0.3, **options) for module in (ours, losses)
        )
        assert_same(lambda x: first(x, labels), lambda x: second(x, labels), [x])  # noqa: B023
    pairs = miners.PairMarginMiner()(x, labels)
    first, second = getattr(ours, name)(), getattr(losses, name)()
    assert_same(lambda x: first(x, labels, pairs), lambda x: second(x, labels, pairs), [x])


@pytest.mark.parametrize("labels", ["mixed", "pairs"])
@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss"])
def test_metric_learning_memories(name, labels):
    """Our loss in the library's memory, and in ours, until it has been filled twice."""
    ours, losses = metric_learning()
    original = losses.CrossBatchMemory(getattr(losses, name)(0.3), 6, memory_size=20)
    contenders = [
        losses.CrossBatchMemory(getattr(ours, name)(0.3), 6, memory_size=20),
        ours.CrossBatchMemory(getattr(ours, name)(0.3), 6, memory_size=20),
    ]
    for step in range(6):
        classes = torch.tensor(LABELS[labels]) + (8 * step if labels == "pairs" else 0)
        expected = [copy.deepcopy(original) for _ in contenders]
        for contender, reference in zip(contenders, expected, strict=True):
            assert_same(
                lambda x: contender(x, classes),  # noqa: B023
                lambda x: reference(x, classes),  # noqa: B023
                [rows(8, seed=step)],
            )
        original = expected[0]
    assert torch.equal(contenders[1].embedding_memory, original.embedding_memory)
    assert torch.equal(contenders[1].label_memory, original.label_memory)


def sentences():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer import losses

    from mcfa_fast.compat import sentence_transformers as ours

    return ours, losses, util


ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


@pytest.mark.parametrize(
    ("directions", "partition"),
    [
        (ALL[:1], "joint"),
        (ALL[:1], "per_direction"),
        (ALL[::2], "joint"),
        (ALL[::2], "per_direction"),
        (ALL, "joint"),
    ],
)
@pytest.mark.parametrize("documents", [1, 3])
@pytest.mark.parametrize("similarity", ["cos_sim", "dot_score"])
def test_sentence_transformers(similarity, documents, directions, partition):
    ours, losses, util = sentences()
    first, second = (
        module.MultipleNegativesRankingLoss(
            None,
            scale=4.0,
            similarity_fct=getattr(util, similarity),
            directions=directions,
            partition_mode=partition,
        )
        for module in (ours, losses)
    )
    tensors = [rows(5, seed=seed) for seed in range(documents + 1)]
    assert_same(
        lambda *x: first.compute_loss_from_embeddings(list(x), None),
        lambda *x: second.compute_loss_from_embeddings(list(x), None),
        tensors,
    )


def test_sentence_transformers_with_hardness():
    ours, losses, _ = sentences()
    options = {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0}
    first, second = (
        module.MultipleNegativesRankingLoss(None, **options) for module in (ours, losses)
    )
    assert_same(
        lambda *x: first.compute_loss_from_embeddings(list(x), None),
        lambda *x: second.compute_loss_from_embeddings(list(x), None),
        [rows(5, seed=seed) for seed in range(3)],
    )


class Pooled(torch.nn.Module):
    """The mean of the embeddings of a sentence's tokens."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.table = torch.nn.Embedding(11, 6, dtype=torch.float64)
        self.dropout = torch.nn.Dropout(0.0)

    def forward(self, features):
        self.seen.append(len(features["input_ids"]))
        mask = features["attention_mask"][:, :, None]
        embedded = self.dropout(self.table(features["input_ids"])) * mask
        return {**features, "sentence_embedding": embedded.sum(1) / mask.sum(1)}


def test_sentence_transformers_cached():
    ours, losses, _ = sentences()
    model = Pooled()
    generator = torch.Generator().manual_seed(0)
    features = [
        {
            "input_ids": torch.randint(11, (7, length), generator=generator),
            "attention_mask": torch.ones(7, length, dtype=torch.float64),
            "prompt_length": 1,
        }
        for length in (3, 5)
    ]
    loss = ours.CachedMultipleNegativesRankingLoss(model, 4.0, mini_batch_size=3)
    value = loss(features, None)
    assert max(model.seen) == 3
    (grad,) = torch.autograd.grad(value, model.table.weight)
    plain = losses.MultipleNegativesRankingLoss(model, 4.0)
    expected = plain([{**part} for part in features], None)
    (expected_grad,) = torch.autograd.grad(expected, model.table.weight)
    torch.testing.assert_close((value, grad), (expected, expected_grad))
    assert loss.get_config_dict()["mini_batch_size"] == 3
    with pytest.raises(ValueError, match="`mini_batch_num_tokens` to be None"):
        ours.CachedMultipleNegativesRankingLoss(model, mini_batch_num_tokens=100)
    with pytest.raises(ValueError, match="`mini_batch_size` to be 1 or more"):
        ours.CachedMultipleNegativesRankingLoss(model, mini_batch_size=0)
