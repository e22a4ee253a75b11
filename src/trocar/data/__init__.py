"""Labelled frames: where they lie, what they hold, how they are split, prepared and fed to training."""
