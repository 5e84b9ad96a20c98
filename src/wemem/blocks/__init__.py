"""Building blocks for a user's own PyTorch training loop: sampler, optimizer states, pruner,
losses, engine.
"""

from wemem.blocks.engine import EngineRound, PruningEngine
from wemem.blocks.estimates import memorization_of_models, memorization_scores
from wemem.blocks.loader import DefendedLoader
from wemem.blocks.losses import AdversarialLoss, DefenseLoss
from wemem.blocks.optimizer import StepsByKind
from wemem.blocks.pruner import IterativePruner
from wemem.blocks.record_model import RecordModel
from wemem.blocks.sampler import DefenseBatchSampler, PlannedBatch
from wemem.blocks.soft_targets import SoftTargets, out_of_sample_targets
from wemem.blocks.views import SwappedViews, ViewedDataset

__all__ = [
    "AdversarialLoss", "DefendedLoader", "DefenseBatchSampler", "DefenseLoss", "EngineRound", "IterativePruner",
    "PlannedBatch", "PruningEngine", "RecordModel", "SoftTargets", "StepsByKind", "SwappedViews", "ViewedDataset",
    "memorization_of_models", "memorization_scores", "out_of_sample_targets",
]  # fmt: skip
