"""Trained models on their own tasks, no worse than in float by more than noise."""

import pytest
import torch

import fourfold

LIMITS = {
    "charrnn": {"valid_perplexity": (None, 4.3385), "test_perplexity": (None, 5.311)},
    "g2pm": {"test_accuracy": (97.20, None)},
    "g2p_en": {"phoneme_error_rate": (None, 9.72)},
    "silero": {"roc_auc": (0.9618, None)},
    "nnsplit": {"boundary_f1": (0.692, None)},
}


@pytest.mark.parametrize("task", LIMITS)
def test_trained_models(task, evaluate):
    torch.set_num_threads(1)
    with torch.no_grad():
        _, metrics = getattr(evaluate, task)(
            lambda m: fourfold.quantize_dynamic(m, evaluate.RECURRENT, torch.qint8)
        )
    for name, (least, most) in LIMITS[task].items():
        assert least is None or metrics[name] >= least, metrics
        assert most is None or metrics[name] <= most, metrics
