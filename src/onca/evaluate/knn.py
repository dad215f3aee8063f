"""Weighted vote of the nearest neighbours (1805.01978, section 3.4), as MoCo's CIFAR notebook monitors it."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onca.evaluate.inputs import check_features, check_labels

SLICE = 2**23  # similarities held at a time: 32 MiB in float32


def knn(
    bank: Tensor, bank_label: Tensor, query: Tensor, classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """Scores [B,classes] of query [B,F]: each of the k most similar rows of bank [N,F] adds exp(cosine / temperature).

    Rows are brought to unit length here. Scores are float64, because exp(1 / temperature) soon leaves float32. Queries
    are taken in slices, so no B x N matrix is held. Among equal similarities at place k, which one votes is not defined
    (but the same call gives the same scores).

    Raises:
        ValueError: k outside 1..N, a temperature below 1/700 (its exponential overflows), features or labels that do
            not fit, unknown labels (-1) in the bank.
    """
    bank = normalize(check_features("bank", bank), dim=1)  # [N,F]
    query = normalize(check_features("query", query, width=bank.shape[1]), dim=1)  # [B,F]
    bank_label = check_labels("bank labels", bank_label, bank, classes)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k={k} neighbours of a bank of {len(bank)} rows: k must be 1 to {len(bank)}")
    if not temperature >= 1 / 700:
        raise ValueError(f"temperature must be 1/700 or more (usual are 0.07 to 0.5); got {temperature}")
    scores = torch.zeros(len(query), classes, dtype=torch.float64, device=query.device)
    rows = max(1, SLICE // len(bank))
    for part, votes in zip(torch.split(query, rows), torch.split(scores, rows), strict=True):
        similarity, place = (part @ bank.T).topk(k, dim=1)  # [b,k]
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
