"""Networks: DeepLabv3+ of the paper, and other architectures by name. They know no files but encoder weights."""

import os

# timm and segmentation-models-pytorch fetch through huggingface_hub, which reads this once, when it is imported.
# Nothing leaves the machine: its usage reports stay off, whatever else the environment says.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
