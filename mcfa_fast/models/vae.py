"""A variational autoencoder with one hidden layer on each side."""

import torch
from torch import Tensor, nn

__all__ = ["VAE", "Encoder"]

_GAIN = 0.5


class Encoder(nn.Module):
    """Linear-ReLU, then one linear head for the mean and one for the log-variance.

    Args:
        features: Input dimensions F.
        hidden: Hidden units; None leaves out the first layer.
        latent_features: Latent dimensions D.
        generator: Source of the initial weights; None draws from PyTorch's global generator.
    """

    def __init__(
        self,
        features: int,
        hidden: int | None,
        latent_features: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.hidden = None if hidden is None else _linear(features, hidden, generator)
        width = features if hidden is None else hidden
        self.mean = _linear(width, latent_features, generator)
        self.logvar = _linear(width, latent_features, generator)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [N, D] of the latent Gaussians of ``features`` [N, F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        if features.dim() != 2 or features.shape[1] != self.features:
            raise ValueError(f"expected [N, {self.features}] features, got {features.shape}")
        if self.hidden is not None:
            features = torch.relu(self.hidden(features))
        return self.mean(features), self.logvar(features)


class VAE(nn.Module):
    r"""Variational autoencoder F → hidden → D → hidden → F with ReLU.

    Weights start Xavier-uniform with gain 0.5, biases at zero.

    Args:
        features: Input dimensions F.
        hidden: Hidden units of the encoder and of the decoder; None makes both linear.
        latent_features: Latent dimensions D.
        generator: Source of the initial weights; None draws from PyTorch's global generator.

    Source:
        Liu et al., Section III-A, "Implementation and Configuration".

    Example:
        >>> vae = VAE(8, 16, 4, generator=torch.Generator().manual_seed(0))
        >>> mean, logvar = vae.encode(torch.zeros(3, 8))
        >>> vae.decode(mean).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        features: int,
        hidden: int | None,
        latent_features: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(features, hidden, latent_features, generator)
        if hidden is None:
            self.decoder = nn.Sequential(_linear(latent_features, features, generator))
        else:
            self.decoder = nn.Sequential(
                _linear(latent_features, hidden, generator),
                nn.ReLU(),
                _linear(hidden, features, generator),
            )

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [N, D] of the latent Gaussians of ``features`` [N, F]."""
        return self.encoder(features)

    def decode(self, latents: Tensor) -> Tensor:
        """Features [N, F] reconstructed from ``latents`` [N, D]."""
        return self.decoder(latents)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Same as :meth:`encode`."""
        return self.encoder(features)


def _linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    # skip_init: the layer's own initialisation would draw from the global generator.
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, gain=_GAIN, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
