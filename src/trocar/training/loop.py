"""One run from its folder through the epochs: set up, step, judge, save; `finishing` makes the model of it."""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trocar.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    random_tensors,
    restore_optimizer,
    restore_random,
    save_checkpoint,
)
from trocar.config import Recipe, load_recipe
from trocar.data.augment import Augment
from trocar.data.files import atomic_write_text
from trocar.data.loading import NativeMasks, PreparedSet, default_workers, draws, fixed_batches_plan, shuffled_plan
from trocar.data.records import Record, Source
from trocar.data.splits import Fold, read_split
from trocar.data.store import Store, open_store
from trocar.devices import choose_device, choose_precision
from trocar.errors import UserError
from trocar.losses import build_loss
from trocar.model_folder import Ancestor, read_card, read_tensors, resolve_model
from trocar.models.build import Network, build_model
from trocar.progress import Watcher
from trocar.stopping import stop_requests
from trocar.training.board import open_board
from trocar.training.depthwise import slow_depthwise_in_float32
from trocar.training.finishing import RunResult, finish
from trocar.training.guards import Interrupted, deterministic, explained_memory
from trocar.training.judging import Judgement, judge
from trocar.training.step import Tally, average_update, build_optimizer, learning_rate_at, train_step


@dataclass
class Position:
    """Where a training stands. JSON in every checkpoint."""

    epoch: int = 0  # epochs finished
    step_in_epoch: int = 0  # optimiser steps done of the epoch that is under way
    step: int = 0  # optimiser steps done in all
    best_epoch: int = 0  # of the highest validation Dice so far
    best_dice: float = -1.0
    kept_epoch: int = 0  # whose weights are to become the model
    seconds: float = 0.0  # of the epoch that is under way, over all sittings
    tally: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Training:
    """One run, from its folder: set up once, then `run` to the end or until stopped."""

    def __init__(self, run: Path, source: Source, watcher: Watcher) -> None:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
        self.folder, self.source, self.watcher = run, source, watcher
        self.recipe: Recipe = load_recipe(run / "recipe.yaml")
        self.split = read_split(run / "split.yaml")
        self.fold_name: str | None = facts["fold"]
        self.fold: Fold = self.split.fold(self.fold_name)
        self.device = choose_device(facts["device"])
        self.precision = choose_precision(self.recipe.train.precision, self.device)
        self.start_from = Path(facts["start_from"]) if facts["start_from"] else None
        self.began_from = tuple(Ancestor(**one) for one in facts.get("began_from", ()))
        self.join = self.recipe.data.target == "instrument"
        self.classes = ("background", "instrument") if self.join else source.classes
        self.settings = self.recipe.train
        self.loss = build_loss(self.recipe.loss, len(self.classes))
        self.store: Store | None = None
        self.position = Position()
        self.kept: dict[str, Tensor] = {}
        self.checkpoints = run / "checkpoints"
        self.saved_at = time.monotonic()

    def run(self) -> RunResult:
        """Train from the newest checkpoint (or the start) to the model folder. Raises `Interrupted` when stopped."""
        try:
            return self._run()
        except Interrupted:
            raise
        except KeyboardInterrupt:  # where no step is under way: while preparing or finishing
            raise Interrupted(f"stopped; go on with: trocar train --resume {self.folder}") from None
        finally:
            if self.store is not None:
                self.store.close()

    def _run(self) -> RunResult:
        with deterministic(enabled=self.settings.deterministic), explained_memory():
            self._prepare_data()
            self._build()
            self._restore()
            with (
                stop_requests() as stop,
                open_board(self.folder / "tensorboard", purge_step=self.position.epoch + 1) as self.board,
            ):
                while self.position.epoch < self.settings.epochs and not self._out_of_patience():
                    self._run_epoch(stop)
            return finish(self)

    def _prepare_data(self) -> None:
        recipe = self.recipe
        self.store = open_store(
            self.source,
            recipe.preprocess,
            join=self.join,
            limit=int(self.settings.prepared_gb * 1e9),
            say=self.watcher.message,
        )
        records = {side: self.source.select(self.fold.side(side)) for side in ("train", "val")}
        self.train_set = self._prepare(
            "training frames", records["train"], training=True, augment=Augment(recipe.augment)
        )
        self.val_set = self._prepare("validation frames", records["val"])
        self.val_truths = NativeMasks.read(records["val"], recipe.preprocess, join=self.join)
        if not any(
            (truth != 0)[truth != 255].any() for truth in map(self.val_truths.__getitem__, range(len(self.val_set)))
        ):
            raise UserError(
                f"none of the {len(self.val_set)} validation frames shows an instrument: nothing can choose the model",
                where=f"fold {self.fold_name or 'of the split'}",
                mend="change split.seed, split.val_share or split.val_from",
            )

    def _prepare(
        self, what: str, records: Sequence[Record], *, training: bool = False, augment: Augment | None = None
    ) -> PreparedSet:
        return PreparedSet(
            records,
            self.recipe.preprocess,
            join=self.join,
            training=training,
            augment=augment,
            seed=self.settings.seed,
            memory_mb=self.settings.memory_mb,
            store=self.store,
            progress=lambda done, total: self.watcher.preparing(what, done, total),
        )

    def _build(self) -> None:
        torch.manual_seed(self.settings.seed)
        fresh = latest_checkpoint(self.checkpoints) is None and self.start_from is None
        network = build_model(self.recipe.model, self.recipe.preprocess, len(self.classes), load_encoder_weights=fresh)
        if self.start_from is not None and latest_checkpoint(self.checkpoints) is None:
            for line in start_from_model(network, self.start_from):
                self.watcher.message(line)
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu" and self.precision == "bf16-mixed":
            slow_depthwise_in_float32(network)
        self.network = network
        self.optimizer = build_optimizer(network, self.settings)
        decay = self.settings.ema_decay
        self.average = (
            None if decay is None else AveragedModel(network, multi_avg_fn=average_update(decay), use_buffers=True)
        )
        self.fabric = _fabric(self.device, self.precision)
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(network, self.optimizer)

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and kept: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    def _restore(self) -> None:
        path = latest_checkpoint(self.checkpoints)
        if path is None:
            return
        checkpoint = load_checkpoint(path)
        self.network.load_state_dict(checkpoint.tensors["model"])
        if self.average is not None:
            self.average.load_state_dict(checkpoint.tensors["average"])
        restore_optimizer(self.optimizer, checkpoint.tensors.get("optimizer", {}))
        restore_random(checkpoint.tensors["random"])
        self.kept = checkpoint.tensors.get("kept", {})
        self.fabric.strategy.precision.load_state_dict(checkpoint.state["precision"])
        self.position = Position(**checkpoint.state["position"])
        self.watcher.message(f"going on from step {self.position.step}, epoch {self.position.epoch + 1}")

    def _save(self) -> None:
        tensors = {
            "model": dict(self.network.state_dict()),
            "optimizer": optimizer_tensors(self.optimizer),
            "random": random_tensors(),
            "kept": self.kept,
        }
        if self.average is not None:
            tensors["average"] = dict(self.average.state_dict())
        state = {"position": vars(self.position), "precision": self.fabric.strategy.precision.state_dict()}
        save_checkpoint(self.checkpoints, Checkpoint(tensors, state), step=self.position.step)
        self.saved_at = time.monotonic()

    def _plan(self) -> list[list[list[tuple[int, int]]]]:
        """The batches of the epoch under way, grouped into optimiser steps."""
        count, size = len(self.train_set), self.settings.batch_size
        when = {"seed": self.settings.seed, "epoch": self.position.epoch}
        if self.settings.batches == "shuffled-records":
            plan = shuffled_plan(count, size, **when, drawn=draws(self.train_set.records, **when))
        else:
            plan = fixed_batches_plan(count, size, **when)
        width = self.settings.accumulate
        return [plan[start : start + width] for start in range(0, len(plan), width)]

    def _run_epoch(self, stop: threading.Event) -> None:
        position, plan = self.position, self._plan()
        total = len(plan) * self.settings.epochs
        tally = Tally(**position.tally)
        workers = self.settings.workers if self.settings.workers is not None else default_workers(self.device.type)
        left = plan[position.step_in_epoch :]
        batches = self.train_set.batches([batch for step in left for batch in step], workers=workers)
        started, spent = time.monotonic(), position.seconds
        self.wrapped.train()
        if self.settings.encoder_rate_factor == 0:
            self.network.body.get_submodule("encoder").eval()  # frozen whole: statistics of its batch norms too
        for step in left:
            rate = learning_rate_at(position.step, total, self.settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            value = train_step(
                self.fabric,
                self.wrapped,
                [next(batches) for _ in step],
                self.loss,
                self.wrapped_optimizer,
                clip_norm=self.settings.clip_norm,
                tally=tally,
            )
            if self.average is not None:
                self.average.update_parameters(self.network)
            position.step += 1
            position.step_in_epoch += 1
            position.tally = vars(tally)
            position.seconds = spent + time.monotonic() - started
            self.watcher.step(position.step, total, value)
            self._save_when_due(stop)
        self._end_epoch(tally, learning_rate_at(position.step - 1, total, self.settings))
        self._save_when_due(stop, at_end=position.epoch == self.settings.epochs or self._out_of_patience())

    def _save_when_due(self, stop: threading.Event, *, at_end: bool = False) -> None:
        due = time.monotonic() - self.saved_at >= self.settings.checkpoint_minutes * 60
        if due or at_end or stop.is_set():
            self._save()
        if stop.is_set():
            raise Interrupted(f"stopped at step {self.position.step}; go on with: trocar train --resume {self.folder}")

    def _end_epoch(self, tally: Tally, rate: float) -> None:
        position = self.position
        with self.fabric.autocast():
            result = self.judge(self.judged, self.val_set, self.val_truths)
        loss, dice, jaccard = tally.means
        row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "learning_rate": rate,
            "train_loss": loss,
            "train_dice": dice,
            "train_jaccard": jaccard,
            "val_loss": result.loss,
            "val_dice": result.mean_dice,
            "val_jaccard": result.mean_jaccard,
            "seconds": round(position.seconds, 2),
        }
        position.epoch, position.step_in_epoch, position.tally, position.seconds = position.epoch + 1, 0, {}, 0.0
        position.history.append(row)
        improved = result.mean_dice > position.best_dice
        if improved:
            position.best_epoch, position.best_dice = position.epoch, result.mean_dice
        if improved or self.settings.keep == "last":
            position.kept_epoch = position.epoch
            self.kept = {name: tensor.detach().cpu().clone() for name, tensor in self.judged.state_dict().items()}
        _write_log(self.folder, position.history)
        for name, value in row.items():
            self.board.add_scalar(name.replace("_", "/", 1), value, position.epoch)
        self.watcher.epoch(row)

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.position.epoch - self.position.best_epoch >= patience

    def judge(self, network: nn.Module, prepared: PreparedSet, truths: NativeMasks, **options: Any) -> Judgement:
        """Scores of a network on one side of the split, with the loss and on the device of this training."""
        return judge(
            network, prepared, truths, self.loss, device=self.device, batch_size=self.settings.batch_size, **options
        )


def start_from_model(network: Network, model: Path) -> list[str]:
    """Load the tensors of a trained model that match by name and shape; returns what was loaded and what not, in words.

    Raises `UserError` where none does, and for a model with a missing or altered file.
    """
    model = resolve_model(model)
    read_card(model)
    given, own = read_tensors(model), network.state_dict()
    matching = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if not matching:
        raise UserError(
            "no tensor of that model fits this network", where=str(model), mend="use the model's own recipe"
        )
    network.load_state_dict(matching, strict=False)
    others = [
        f"not loaded: {name}, {_shape(given.get(name))} there, {_shape(tensor)} here"
        for name, tensor in own.items()
        if name not in matching
    ]
    return [f"started from {model}: {len(matching)} of {len(own)} tensors loaded", *others]


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))


def _write_log(folder: Path, history: Sequence[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic_write_text(folder / "log.csv", text.getvalue())


def _fabric(device: torch.device, precision: str) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the card says which precision it was
    devices: Any = [device.index] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision=precision)  # type: ignore[arg-type]
