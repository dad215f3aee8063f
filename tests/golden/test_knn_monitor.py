"""The weighted kNN vote against the official code (MoCo's CIFAR notebook)."""

import pytest
import torch

from onca.evaluate import knn, knn_top1


@pytest.mark.golden("knn_monitor", "case")
def test_case(golden):
    bank, labels, query = (golden.tensor(name) for name in ("bank", "bank_labels", "feature"))
    classes, k, temperature = golden.integer("classes"), golden.integer("k"), golden.number("t")
    scores = knn(bank, labels, query, classes, k, temperature)
    golden.close(scores, "scores")
    golden.close(scores.argmax(dim=1), "pred_top1")
    found = knn_top1(bank, labels, query, golden.tensor("test_labels"), classes, k, temperature)
    golden.close(found["knn_top1"] / 100, "top1")


@pytest.mark.golden("knn_monitor", "case")
def test_case_in_float32_and_any_length_of_rows(golden):
    bank, query = 3 * golden.tensor("bank", torch.float32), golden.tensor("feature", torch.float32) / 5
    scores = knn(
        bank, golden.tensor("bank_labels"), query, golden.integer("classes"), golden.integer("k"), golden.number("t")
    )
    golden.close(scores.float(), "scores")
