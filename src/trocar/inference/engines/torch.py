"""The torch engine: a model folder as a network in evaluation mode on one device. The only one that imports torch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trocar.devices import choose_device
from trocar.errors import UserError
from trocar.inference.predictor import Precision
from trocar.model_folder import WEIGHTS, ModelCard, read_tensors
from trocar.models.build import Network, build_model


class TorchEngine:
    """Runs a network in PyTorch, channels_last, without gradients. Threads may share it.

    `precision` 32 computes in float32; bf16 under autocast, with logits back in float32.
    """

    def __init__(self, network: Network, device: torch.device, *, precision: Precision = "32") -> None:
        self.device = device
        self.precision: Precision = precision
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self._one_call = threading.Lock()  # a call takes all cores; two at once would only take them from each other

    @classmethod
    def open(
        cls,
        folder: Path,
        card: ModelCard,
        device: str = "auto",
        *,
        precision: Precision = "32",
        threads: int | None = None,
    ) -> TorchEngine:
        """Build the network of a model folder whose card was read, on `device`.

        `threads` is a setting of torch, for the whole process.
        """
        chosen = choose_device(device)  # before the weights are read
        if threads:
            torch.set_num_threads(threads)
        return cls(load_network(folder, card), chosen, precision=precision)

    @property
    def about(self) -> str:
        """The engine in one line."""
        arithmetic = {"32": "f32", "bf16": "bf16"}[self.precision]
        count = torch.get_num_threads()
        where = f"CPU, {count} thread{'s' * (count > 1)}" if self.device.type == "cpu" else str(self.device)
        return f"torch {arithmetic}, {where}"

    @property
    def versions(self) -> dict[str, str]:
        """The library that runs it, and its version."""
        return {"torch": str(torch.__version__)}

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Shapes: frames (N, h, w, 3) uint8 -> logits (N, C, h, w) float32."""
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        try:
            with self._one_call, torch.inference_mode(), bf16:
                logits = self.network(torch.from_numpy(np.require(frames, requirements=["C", "W"])).to(self.device))
        except torch.OutOfMemoryError:
            raise UserError(
                f"{len(frames)} images at a time do not fit in the memory of {self.device}",
                mend="lower --batch-size, or use --device cpu",
            ) from None
        return np.asarray(logits.float().cpu().numpy(), np.float32)


def load_network(folder: Path, card: ModelCard) -> Network:
    """The network of a model folder with its weights, on the CPU, in evaluation mode."""
    network = build_model(card.model, card.preprocess, len(card.classes), load_encoder_weights=False)
    try:
        network.load_state_dict(read_tensors(folder))
    except RuntimeError as error:
        raise UserError(
            f"the weights do not fit the architecture that the card names: {str(error).splitlines()[-1].strip()}",
            where=str(folder / WEIGHTS),
            mend="copy the whole folder again, or train again with this version of trocar",
        ) from None
    return network.eval()
