"""The same networks, loss and optimizer in PyTorch.

``tuned`` adds two recommendations of PyTorch's tuning guide: channels last and a fused Adam.
"""

# pyright: reportMissingImports=false

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks import TEST_IMAGES, TRAIN_IMAGES, Task, noise


class TorchAutoencoder(nn.Module):
    def __init__(self, latents: int = 10, classes: int = 10) -> None:
        super().__init__()

        def conv(inputs: int) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, 32, 4, 2, 1, bias=False)
            return [layer, nn.BatchNorm2d(32), nn.ReLU()]

        def linear(inputs: int, outputs: int) -> list[nn.Module]:
            layer = nn.Linear(inputs, outputs, bias=False)
            return [layer, nn.BatchNorm1d(outputs), nn.ReLU()]

        def transposed() -> list[nn.Module]:
            layer = nn.ConvTranspose2d(32, 32, 4, 2, 1, bias=False)
            return [layer, nn.BatchNorm2d(32), nn.ReLU()]

        self.trunk = nn.Sequential(*conv(1), *conv(32), *conv(32), nn.Flatten(), *linear(512, 256))
        self.mean = nn.Linear(256, latents)
        self.logvar = nn.Linear(256, latents)
        self.logits = nn.Linear(256, classes)
        self.decode = nn.Sequential(
            *linear(latents + classes, 256),
            *linear(256, 512),
            nn.Unflatten(1, (32, 4, 4)),
            *transposed(),
            *transposed(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
        )


class TorchImplementation:
    """Trains, samples and evaluates ``ours``, on a GPU if there is one."""

    def __init__(self, *, tuned: bool = False) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.format = torch.channels_last if tuned else torch.contiguous_format
        self.net: Any = TorchAutoencoder().to(self.device)
        self.net.to(memory_format=self.format)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=1e-3, fused=True if tuned else None
        )

    def facts(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def train(self, batch_size: int) -> Task:
        images, labels = self._data(TRAIN_IMAGES)
        step = 0

        def steps(count: int) -> None:
            nonlocal step
            self.net.train()
            for _ in range(count):
                batch = torch.randint(TRAIN_IMAGES, (batch_size,), device=self.device)
                nll, kl_z, kl_c = (
                    term.mean() for term in self._terms(images[batch], labels[batch])
                )
                capacity = 5 * min(step / 25_000, 1)
                loss = nll + 30 * (kl_z - capacity).abs() + 30 * kl_c.abs()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                step += 1
            self._synchronize()

        return steps

    def sample(self, batch_size: int) -> Task:
        labels = torch.arange(batch_size, device=self.device) % 10

        @torch.inference_mode()
        def samples(count: int) -> None:
            self.net.eval()
            for _ in range(count):
                z = torch.randn(batch_size, 10, device=self.device)
                torch.sigmoid(self.net.decode(torch.cat([z, F.one_hot(labels, 10)], dim=-1)))
                self._synchronize()

        return samples

    def evaluate(self, batch_size: int) -> Task:
        images, labels = self._data(TEST_IMAGES)

        @torch.inference_mode()
        def evaluations(count: int) -> None:
            self.net.eval()
            for _ in range(count):
                batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
                terms = [self._terms(*batch) for batch in batches]
                for term in zip(*terms, strict=True):
                    torch.cat(term).double().mean().item()

        return evaluations

    def _data(self, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = (torch.from_numpy(array).to(self.device) for array in noise(examples))
        return images.permute(0, 3, 1, 2).contiguous(memory_format=self.format), labels.long()

    def _terms(
        self, pixels: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction term, KL(z) and KL(c) of each image, in nats."""
        images = pixels.float() / 255
        hidden = self.net.trunk(images)
        mean, logvar = self.net.mean(hidden), self.net.logvar(hidden)
        logits = self.net.logits(hidden)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp_min(1e-20)))
        c = F.softmax((logits + gumbel) / 0.67, dim=-1)
        decoded = self.net.decode(torch.cat([z, c], dim=-1))
        nll = F.binary_cross_entropy_with_logits(decoded, images, reduction="none")
        kl_z = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(-1)
        return nll.sum((1, 2, 3)), kl_z, F.cross_entropy(logits, labels, reduction="none")

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
