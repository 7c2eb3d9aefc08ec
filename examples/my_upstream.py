"""An upstream of one's own: the log energy of 10 ms blocks. Try: frostbench check examples/my_upstream.py:Loudness."""

import torch

import frostbench as fb


@fb.register_upstream(fb.UpstreamCard(name="loudness", title="Log energy of 10 ms blocks", paper="none"))
class Loudness(fb.Upstream):
    """One value a frame."""

    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 160

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Whole blocks."""
        return wav_lengths // 160

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> fb.HiddenStates:
        """The mean square of each block, logarithmic."""
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energy = (blocks.square().mean(dim=2, keepdim=True) + 1e-8).log()  # (batch, frames, 1)
        return fb.HiddenStates((energy,), self.frame_lengths(wav_lengths))
