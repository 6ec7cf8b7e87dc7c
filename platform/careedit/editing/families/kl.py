"""What the families share whose VAE is an `AutoencoderKL`: latents of one scale and shift, packed by 2x2."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from careedit.editing.families.family import Family, settings
from careedit.editing.latents import pack


@dataclass(frozen=True, eq=False)
class KLFamily(Family):
    """A base with an `AutoencoderKL`."""

    def scaled(self, latents: Tensor) -> Tensor:
        """The VAE's latents as the transformer knows them."""
        vae = settings(self.vae)
        return (latents - vae.shift_factor) * vae.scaling_factor  # type: ignore[no-any-return]

    def unscaled(self, latents: Tensor) -> Tensor:
        """The transformer's latents as the VAE decodes them, in its number format."""
        vae = settings(self.vae)
        return (latents / vae.scaling_factor + vae.shift_factor).to(self.vae.dtype)  # type: ignore[no-any-return]

    def encode_picture(self, picture: Image.Image) -> Tensor:
        """The mode of the picture's latents, which is their mean, as tokens [1, T, 4C]."""
        pixels = self.image_processor.preprocess(picture, height=picture.height, width=picture.width)
        latents = self.vae.encode(pixels.to(device=self.device, dtype=self.vae.dtype)).latent_dist.mode()
        return pack(self.scaled(latents).to(self.dtype))
