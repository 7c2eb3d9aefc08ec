"""Networks that several families share: on mel spectra and on waveforms."""
