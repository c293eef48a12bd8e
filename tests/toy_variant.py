"""The smallest variant that takes all 82 channels, known by name from the import of this module on.

To be imported before the options are, which list the variants there are.
"""

from dataclasses import replace

import worlds

from ai_models_mosaic.variants import VARIANTS

VARIANT = replace(worlds.TOY, checkpoint="toy.pt", statistics="toy-statistics.npz", statics="toy-statics.npz")
VARIANTS[VARIANT.name] = VARIANT
