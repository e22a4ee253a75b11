"""Drawn endoscopic scenes whose masks are known exactly: for the demo, for tests and for pretraining.

Everything is computed with numpy and OpenCV from seeds: tissue with relief, vessels and wet highlights, blood and
smoke, one to three instruments, and the optics and sensor of an endoscope. The pictures are plausible, not
physical, and no result on them says anything about real patients.

Two presets share all code: `demo` is mild, so that a small network learns it in minutes; `varied` has every
disturbance, for pretraining. A procedure fixes what its frames have in common (tissue, light, field of view,
instruments), so that it serves as the group that a split must not cut.

Modules: `noise` and `presets` are the ingredients, `tissue`, `instruments` and `tips` say what is there, `materials`
and `painting` how it looks, `optics` what the endoscope makes of it, `scene` puts one picture together, `dataset`
writes many.
"""

from __future__ import annotations

from trocar.synthetic.dataset import write_dataset
from trocar.synthetic.presets import PRESETS
from trocar.synthetic.scene import PARTS, Scene, draw_clip, draw_scene

__all__ = ["PARTS", "PRESETS", "Scene", "draw_clip", "draw_scene", "write_dataset"]
