"""Weighted vote of the nearest neighbours (1805.01978, section 3.4), as MoCo's CIFAR notebook monitors it."""

import torch
from torch import Tensor

from onca.evaluate.inputs import check_features, check_labels
from onca.neighbours import neighbours

SLICE = 2**22  # votes held at a time, of 8 bytes each


def knn(
    bank: Tensor, bank_label: Tensor, query: Tensor, classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """Scores [B,classes] of query [B,F]: each of the k most similar rows of bank [N,F] adds exp(cosine / temperature).

    Similarities are divided by the lengths of both rows here. Scores are float64, because exp(1 / temperature) soon
    leaves float32. No B x N matrix is held. The neighbours are exact; among equal similarities the row that comes first
    votes first.

    Raises:
        ValueError: k outside 1..N, a temperature below 1/700 (its exponential overflows), features or labels that do
            not fit, unknown labels (-1) in the bank.
    """
    bank = check_features("bank", bank)  # [N,F]
    query = check_features("query", query, width=bank.shape[1])  # [B,F]
    bank_label = check_labels("bank labels", bank_label, bank, classes)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k={k} neighbours of a bank of {len(bank)} rows: k must be 1 to {len(bank)}")
    if not temperature >= 1 / 700:
        raise ValueError(f"temperature must be 1/700 or more (usual are 0.07 to 0.5); got {temperature}")
    scores = torch.zeros(len(query), classes, dtype=torch.float64, device=query.device)
    rows = max(1, SLICE // k)
    for part, votes in zip(torch.split(query, rows), torch.split(scores, rows), strict=True):
        similarity, place = neighbours(part, bank, k, normalize=True)  # [b,k]
        votes.scatter_add_(1, bank_label[place], similarity.double().div(temperature).exp())
    return scores


def knn_top1(
    bank: Tensor,
    bank_label: Tensor,
    query: Tensor,
    query_label: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> dict[str, float]:
    """{"knn_top1": share of queries in percent whose class has the highest score, "knn_k", "knn_temperature"}.

    Arguments and errors are those of `knn`; query_label [B] must be known.
    """
    query_label = check_labels("query labels", query_label, query, classes)
    predictions = knn(bank, bank_label, query, classes, k, temperature).argmax(dim=1)
    right = (predictions == query_label).double().mean().item()
    return {"knn_top1": 100 * right, "knn_k": k, "knn_temperature": temperature}
