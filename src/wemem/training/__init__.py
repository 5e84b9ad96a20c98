"""Training of ensembles: all models at once, or one after another with the same result."""

from wemem.training.backends import Choice, choose_backend
from wemem.training.device import choose_device, device_name
from wemem.training.ensemble import Ensemble
from wemem.training.fit import Fitted, accuracy, fit
from wemem.training.recipe import DENSE, FAST, FINETUNE, RECIPES, Recipe
from wemem.training.run import History

__all__ = [
    "DENSE", "FAST", "FINETUNE", "RECIPES", "Choice", "Ensemble", "Fitted", "History", "Recipe", "accuracy",
    "choose_backend", "choose_device", "device_name", "fit",
]  # fmt: skip
