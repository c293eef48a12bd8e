"""Train the toy variant: ``train_toy.py RECIPE.json DATA OUTPUT``, alone or under torchrun."""

import json
import sys
from pathlib import Path

import worlds

from ai_models_mosaic.training.recipe import recipe_of
from ai_models_mosaic.training.run import TrainingFolders, train

if __name__ == "__main__":
    worlds.register()
    recipe, data, output = (Path(argument) for argument in sys.argv[1:])
    train(
        recipe_of(json.loads(recipe.read_text()), str(recipe)),
        TrainingFolders(data, output, 10**9),
        lambda update: print(update.number, flush=True),
    )
