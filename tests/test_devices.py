import pytest
import torch

from trocar.devices import choose_device, choose_precision
from trocar.errors import UserError


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        choose_device(name)


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == "32-true"
    assert choose_precision("bf16", cpu) == "bf16-mixed"
    assert choose_precision("auto", cpu) in ("32-true", "bf16-mixed")
    with pytest.raises(UserError, match="fp16"):
        choose_precision("fp16", cpu)
