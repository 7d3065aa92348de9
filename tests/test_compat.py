"""The drop-in classes against the definitions they stand in for, written out here independently."""

import math

import pytest
import torch

from mcfa_fast.compat import Cross_Mode_Loss, Inter_Mode_Loss, SupConLoss
from mcfa_fast.compat.lightly import NTXentLoss
from mcfa_fast.compat.open_clip import ClipLoss


def balanced(classes=4, instances=3, width=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    visual = torch.randn(classes * instances, width, dtype=dtype, generator=generator)
    semantic = torch.randn(classes, width, dtype=dtype, generator=generator)
    labels = torch.arange(classes).repeat_interleave(instances)
    return visual, semantic, labels


def cosine_exponentials(a, b, temperature):
    a = torch.nn.functional.normalize(a, dim=1)
    b = torch.nn.functional.normalize(b, dim=1)
    return (a @ b.T / temperature).exp()


def test_inter_mode_loss_is_the_authors_on_balanced_batches():
    visual, _, labels = balanced()
    similarity = cosine_exponentials(visual, visual, 2.0).fill_diagonal_(0)
    same = (labels[:, None] == labels[None, :]).fill_diagonal_(False)
    expected = -((similarity * same).sum(1) / 2 / similarity.sum(1)).log().sum()
    torch.testing.assert_close(Inter_Mode_Loss(temperature=2)(visual, labels), expected)


def test_cross_mode_loss_is_the_authors_on_balanced_batches():
    visual, semantic, labels = balanced()
    similarity = cosine_exponentials(visual, semantic, 2.0)
    own = similarity[torch.arange(len(labels)), labels]
    vtos = -(own / similarity.sum(1)).log().sum()
    stov = -(own.view(4, 3).mean(1) / similarity.sum(0)).log().sum()
    got = Cross_Mode_Loss(temperature=2)(visual, semantic, labels)
    torch.testing.assert_close(got, (vtos, stov))


def test_unequal_and_single_classes_are_right_where_the_authors_code_fails():
    visual, semantic, _ = balanced()
    labels = torch.tensor([0] * 7 + [1] * 4 + [2])  # class 2 has one instance, class 3 none
    similarity = cosine_exponentials(visual, semantic, 2.0)
    expected = sum(
        -(similarity[labels == c, c].mean() / similarity[:, c].sum()).log() for c in range(3)
    )
    torch.testing.assert_close(
        Cross_Mode_Loss(temperature=2)(visual, semantic, labels)[1], expected
    )
    assert Inter_Mode_Loss(temperature=2)(visual, labels).isfinite()


def supcon_by_pairs(features, same, temperature, base_temperature, anchor_views):
    """Eq. 2 of Khosla et al. over all views; same(i, j) says whether j is a positive of i."""
    samples, views = features.shape[:2]
    rows = [(i, v) for v in range(views) for i in range(samples)]
    losses = []
    for i, v in rows:
        if v >= anchor_views:
            continue
        others = [row for row in rows if row != (i, v)]
        logits = {(j, w): float(features[i, v] @ features[j, w]) / temperature for j, w in others}
        log_sum = math.log(sum(math.exp(value) for value in logits.values()))
        positives = [logits[row] - log_sum for row in others if same(i, row[0])]
        mean = sum(positives) / len(positives) if positives else 0.0  # which the mean counts
        losses.append(-temperature / base_temperature * mean)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("kind", ["labels", "mask", "neither"])
def test_supcon_matches_its_pair_sums(kind, views, mode):
    features = torch.nn.functional.normalize(torch.randn(7, views, 5, dtype=torch.float64), dim=2)
    labels = torch.tensor([0, 1, 1, 2, 0, 1, 3])
    mask = (torch.rand(7, 7) < 0.5).fill_diagonal_(True)  # need not be symmetric
    mask[2] = False  # positives of sample 2 there are none
    same = {
        "labels": lambda i, j: bool(labels[i] == labels[j]),
        "mask": lambda i, j: bool(mask[i, j]),
        "neither": lambda i, j: i == j,
    }[kind]
    loss = SupConLoss(temperature=0.3, contrast_mode=mode, base_temperature=0.07)
    arguments = {"labels": {"labels": labels}, "mask": {"mask": mask}, "neither": {}}[kind]
    anchor_views = 1 if mode == "one" else views
    expected = supcon_by_pairs(features, same, 0.3, 0.07, anchor_views)
    assert loss(features, **arguments).item() == pytest.approx(expected, rel=1e-10)


def test_supcon_counts_anchors_without_a_positive_as_0():
    """One view, norm 1, labels 0, 1, 1, 3: twice as much if the two alone were left out."""
    features = torch.eye(4, 8)[:, None]
    features[2] = features[1]
    loss = SupConLoss(temperature=0.5, base_temperature=0.5)
    of_pair = math.log(math.exp(2.0) + 2) - 2
    assert loss(features, torch.tensor([0, 1, 1, 3])).item() == pytest.approx(of_pair / 2)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float64, torch.int64])
def test_supcon_masks_of_every_dtype_and_weight(dtype, views):
    features = torch.nn.functional.normalize(torch.randn(300, views, 5, dtype=torch.float64), dim=2)
    mask = (torch.rand(300, 300) < 0.1).to(dtype)
    features.requires_grad_()
    results = []
    for loss in (SupConLoss(0.2), torch.jit.script(SupConLoss(0.2))):
        value = loss(features, mask=mask)
        results.append((value, *torch.autograd.grad(value, features)))
    torch.testing.assert_close(*results)
    if dtype == torch.float64:
        halved = SupConLoss(0.2)(features, mask=mask / 2)
        torch.testing.assert_close(halved, results[0][0])


def test_supcon_in_half_precision_with_a_mask_is_as_finite_as_with_labels():
    features = 50 * torch.nn.functional.normalize(torch.randn(6, 2, 9), dim=2)
    labels = torch.arange(6) % 3
    mask = labels[:, None] == labels[None, :]
    loss = SupConLoss(0.1)
    expected = loss(features.half(), labels)
    assert expected.isfinite()
    torch.testing.assert_close(loss(features.half(), mask=mask), expected)


def test_supcon_flattens_trailing_dimensions_and_ignores_no_label():
    features = torch.nn.functional.normalize(torch.randn(6, 2, 12), dim=2)
    labels = torch.tensor([-100, -100, 5, 5, 7, 7])
    loss = SupConLoss()
    expected = loss(features, torch.tensor([0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(loss(features.reshape(6, 2, 3, 4), labels[:, None]), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.randn(4, 3)}, r"`features` to have shape \[B, views, ...\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"`labels` to have shape \[B\] = \[4\]"),
        ({"mask": torch.ones(3, 4)}, r"`mask` to have shape \[B, B\] = \[4, 4\]"),
        ({"labels": torch.arange(4), "mask": torch.eye(4)}, "either `labels` or `mask`"),
        ({"mask": torch.eye(4).requires_grad_()}, "`mask` to be given numbers"),
        ({"features": torch.randn(0, 2, 3)}, "`features` to have one sample"),
    ],
)
def test_supcon_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        SupConLoss()(**({"features": torch.randn(4, 2, 3)} | arguments))
    with pytest.raises(ValueError, match="`contrast_mode`"):
        SupConLoss(contrast_mode="some")


def test_clip_is_the_mean_of_both_cross_entropies():
    images, texts = torch.randn(2, 7, 5, dtype=torch.float64)
    logits = 3.0 * images @ texts.T
    own = torch.arange(7)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(ClipLoss()(images, texts, 3.0), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ClipLoss(use_horovod=True), "`use_horovod` to be False"),
        (lambda: ClipLoss()(torch.ones(3, 2), torch.ones(4, 2), 1.0), "of one shape"),
        (lambda: NTXentLoss(temperature=0.0), "`temperature` to be positive, but got 0.0"),
        (lambda: NTXentLoss(memory_bank_size=8), r"`memory_bank_size` to be \(rows, width\)"),
        (lambda: NTXentLoss()(torch.ones(3, 2), torch.ones(3, 1)), "of one shape"),
    ],
)
def test_the_other_libraries_losses_name_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
