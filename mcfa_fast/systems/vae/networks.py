"""A variational autoencoder with one hidden layer on each side."""

import torch
from torch import Tensor, nn

__all__ = ["VAE", "Encoder", "xavier_linear"]


class Encoder(nn.Module):
    """Linear-ReLU, then one linear head for the mean and one for the log-variance.

    Args:
        features: Input dimensions F.
        hidden: Hidden units.
        latent_features: Latent dimensions D.
        generator: Source of the initial weights; None draws from PyTorch's global generator.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        latent_features: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.hidden = xavier_linear(features, hidden, generator)
        self.mean = xavier_linear(hidden, latent_features, generator)
        self.logvar = xavier_linear(hidden, latent_features, generator)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [N, D] of the latent Gaussians of ``features`` [N, F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        if features.dim() != 2 or features.shape[1] != self.features:
            raise ValueError(f"expected [N, {self.features}] features, got {features.shape}")
        hidden = torch.relu(self.hidden(features))
        return self.mean(hidden), self.logvar(hidden)


class VAE(nn.Module):
    r"""Variational autoencoder F → hidden → D → decoder hidden → F with ReLU.

    Weights start Xavier-uniform, biases at zero.

    Args:
        features: Input dimensions F.
        hidden: Hidden units of the encoder.
        latent_features: Latent dimensions D.
        decoder_hidden: Hidden units of the decoder; None is as many as of the encoder.
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
        hidden: int,
        latent_features: int,
        decoder_hidden: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(features, hidden, latent_features, generator)
        width = decoder_hidden or hidden
        self.decoder = nn.Sequential(
            xavier_linear(latent_features, width, generator),
            nn.ReLU(),
            xavier_linear(width, features, generator),
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


def xavier_linear(
    inputs: int, outputs: int, generator: torch.Generator | None, gain: float = 0.5
) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and biases of zero."""
    # skip_init: the layer's own initialisation would draw from the global generator.
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, gain=gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
