"""One client: a network, its losses and its metrics. It knows nothing of rounds."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.missing import drop_modalities
from fedmer.losses.class_terms import NEUTRAL, ClassTerms
from fedmer.losses.distillation import SelfDistillation
from fedmer.metrics import EmotionMetrics
from fedmer.seeds import derive

OptimizerCallable = Callable[[Iterable[torch.nn.Parameter]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]


def adam(parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
    """Adam as fedmer's defaults have it: learning rate 3e-4, L2 factor 1e-5."""
    return Adam(parameters, lr=3e-4, weight_decay=1e-5)


def fuse(optimizer: Optimizer) -> Optimizer:
    """Let Adam, AdamW and SGD step in one call, unless a choice was made.

    It is a fifth of the time of torch's default on the CPU, and the same to rounding.
    """
    if type(optimizer) in (Adam, AdamW, SGD):
        for group in optimizer.param_groups:
            chosen = group["fused"] is not None or group["foreach"] is not None
            if not (chosen or group["differentiable"]):
                group["fused"] = True
    return optimizer


def restart(optimizer: Optimizer) -> bool:
    """Let Adam, AdamW and SGD forget all steps, in place; False for others, which stay as they are.

    What they do next is what a new one would do, bit for bit. A new one takes a tenth of a step of
    Adam longer: it has to find room for the moments of every parameter.
    """
    if type(optimizer) is SGD:
        optimizer.state.clear()  # its momentum is the first gradient, and not a mean with zero
        return True
    if type(optimizer) not in (Adam, AdamW):
        return False
    moments = [value for known in optimizer.state.values() for value in known.values()]
    if moments:
        torch._foreach_zero_(moments)
    return True


class EmotionClient(pl.LightningModule):
    """A network and what it is trained for.

    Under a plain ``Trainer`` it is the centralised baseline; in a federation
    :class:`~fedmer.local.LocalTrainer` drives the same hooks. Dropout is drawn from (seed, client,
    epoch, step), so both ways give the same bits. Under a plain ``Trainer`` classes weigh the same
    and logits are not moved, unless ``class_terms`` is set, such as to ``loss.terms(counts,
    counts)`` with the class counts of the data.

    Args:
        network: Any plugin of kind ``networks``.
        loss: How predictions are judged.
        optimizer: Parameters -> optimizer.
        seed: Where dropout comes from.
        lr_scheduler: Optimizer -> scheduler, or None; stepped once an epoch here, and in a
            federation once a round.
        modality_dropout: The chance in [0, 1] that a modality of an utterance is left out of a
            step; in a federation that of :class:`~fedmer.local.LocalTraining`.

    >>> from fedmer.data.corpus import CorpusShape
    >>> from fedmer.plugins.networks.sdt import SDT
    >>> shape = CorpusShape({"text": 8}, classes=3, speakers=2)
    >>> client = EmotionClient(SDT(shape, hidden=8, heads=2), SelfDistillation())
    >>> type(client.configure_optimizers()).__name__
    'Adam'
    """

    def __init__(
        self,
        network: Network,
        loss: SelfDistillation,
        optimizer: OptimizerCallable = adam,
        seed: int = 0,
        lr_scheduler: LRSchedulerCallable | None = None,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self.modality_dropout = modality_dropout
        self.class_terms: ClassTerms = NEUTRAL
        """What the loss makes of the classes, by the data that it trains on."""
        self.teacher: Network | None = None
        """The global network of the round's start, where the loss asks for it."""
        self.metrics = EmotionMetrics(network.shape.classes)

    @property
    def class_weights(self) -> Tensor | None:
        """``(C,)``, what the loss weighs each emotion by; None for all alike."""
        return self.class_terms.weights

    def forward(self, batch: Batch) -> NetworkOutput:
        output: NetworkOutput = self.network(batch)
        return output

    def new_optimizer(self) -> Optimizer:
        """One that has made no step yet."""
        return fuse(self.optimizer(self.network.parameters()))

    def configure_optimizers(self) -> Any:
        optimizer = self.new_optimizer()
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler(optimizer)}

    def begin_step(self, client: int, epoch: int, step: int) -> None:
        """Make this step's dropout a function of (seed, client, epoch, step)."""
        seed = derive(self.seed, "dropout", client, epoch, step)
        # Those two alone, since torch.manual_seed writes a traceback for every other accelerator.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Each step anew, since a DataLoader too draws from torch's generator when it starts.
        self.begin_step(0, self.current_epoch, batch_idx)

    def training_batch(self, batch: Batch) -> Batch:
        """What a step learns from: a batch, of which modalities may be dropped."""
        return drop_modalities(batch, self.modality_dropout)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.training_batch(batch)
        return self.supervised_loss(self(batch), batch)

    def supervised_loss(self, output: NetworkOutput, batch: Batch) -> Tensor:
        """What the network's words on a batch cost, a scalar."""
        loss: Tensor = self.loss(output, batch, self.class_terms, self._guidance(batch))
        return loss

    @torch.no_grad()
    def _guidance(self, batch: Batch) -> Tensor | None:
        """What the global teacher says, or None where the fused branch teaches."""
        return None if self.teacher is None else self.teacher(batch).logits

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.log("train_loss", outputs["loss"], prog_bar=True, batch_size=len(batch.context))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metrics.update(self(batch).logits, batch)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.metrics.update(self(batch).logits, batch)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities, ``(B, L, C)``."""
        output: NetworkOutput = self(batch)
        return output.logits.softmax(dim=-1)

    def _log_metrics(self, part: str) -> None:
        scores = self.metrics.totals()
        self.log_dict({f"{part}_{name}": value for name, value in scores.items()}, prog_bar=True)
        self.metrics.reset()
