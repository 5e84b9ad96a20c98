"""The terms of tables and reports, with one sentence or two on each: the same in the guide, in
``wemem list terms`` and at the end of every report.
"""

#: Terms in alphabetical order.
GLOSSARY: dict[str, str] = {
    "adaptive": "Made by an adversary who knows the defense and trains its own models under it.",
    "arm": "A defense with its settings at one sparsity, or a control; one row of a comparison.",
    "AUC": (
        "Area under the ROC curve: the probability that a random member scores higher than a random "
        "non-member. 50 % is chance."
    ),
    "balanced accuracy": (
        "Mean of the shares of members and of non-members that an attack classifies correctly; 50 % "
        "is chance. The paper's measure."
    ),
    "BaVarIA": (
        "An attack like LiRA with Bayesian estimates of each record's variance. The prior is WeMem's own choice."
    ),
    "blind baseline": (
        "A classifier of members that sees the records and no model. Above chance, it shows that "
        "members differ from the others by themselves."
    ),
    "canary": (
        "A record made to be memorized, by which the worst case is measured: mislabelled, a "
        "mislabelled twin, or out of distribution."
    ),
    "certificate": "The stored settings and hashes by which a model was made. By it an audit is called adaptive.",
    "chance of the strongest": (
        "What the strongest of several attacks reaches on models that leak nothing. Only a value above it shows a leak."
    ),
    "decile": "A tenth of the members, ordered by memorization score.",
    "dense": "The model before pruning. No defense of fine-tuning protects it.",
    "dev records": "Records for early stopping, in no other role.",
    "FPR": (
        "False positive rate: the share of non-members that an attack calls members. At 1 % FPR means "
        "that at most 1 % of them are."
    ),
    "Holm's correction": (
        "Makes several comparisons together err no more often than one. Differences are called "
        "distinguishable after it."
    ),
    "interval": ("A range that holds the true value in 95 % of repetitions. The unfavourable end counts for limits."),
    "leave-one-out": "Every model of the reference ensemble is attacked, with all others as references.",
    "LiRA": (
        "Likelihood ratio attack (Carlini et al., S&P 2022): compares the attacked model's confidence "
        "with those of models trained with and without the record."
    ),
    "member": "A record that the attacked model was trained on.",
    "memorization score": "Mean prediction of models trained with a record minus that of models trained without it.",
    "one_shot": (
        "A control: pruned to the target at once, then fine-tuned as often as an arm that is pruned in rounds."
    ),
    "oosd": (
        "Out-of-sample distillation: each record is learned from models that trained neither on it "
        "nor on similar records."
    ),
    "reference model": (
        "A model on a random half of the audited records, so that each record was in the training of "
        "some of them and not of others."
    ),
    "RMIA": (
        "Robust membership inference attack (Zarifzadeh et al., ICML 2024): compares likelihood "
        "ratios with those of population records."
    ),
    "RMR": ("Risky-memory regularization: strong weight decay on steps that show the most memorized records."),
    "ROC curve": "The TPR of an attack at every FPR.",
    "RSW": ("Ranked sliding window: an epoch shows a window of each class, moving along the memorization ranking."),
    "seed": "One whole repetition: split, training, pruning and attacks.",
    "shadow model": "A model of the adversary on its own records, made as the attacked model was.",
    "sparsity": "Share of prunable weights, or of channels, that is removed.",
    "SWMR": "Sliding window with memory regularization: RSW and RMR together.",
    "TPR": "True positive rate: share of members that an attack finds.",
    "undefended": "A control: pruned in rounds without a defense.",
    "unpruned": "A control: the same rounds of fine-tuning without pruning.",
    "weights held": "The adversary has the weights, and not only the answers that a defense alters.",
}


def anchor(term: str) -> str:
    """The identifier of a term in a page.

    >>> anchor("Holm's correction")
    'term-holms-correction'
    """
    return "term-" + "".join(c for c in term.casefold().replace(" ", "-").replace("_", "-") if c.isalnum() or c == "-")
