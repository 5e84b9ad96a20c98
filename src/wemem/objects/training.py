"""Training of one model on the objects of a program."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import nn

from wemem.exporting.checkpoint import TRAINED, load_pruned
from wemem.exporting.preprocess import preprocess_path
from wemem.files.documents import read_json
from wemem.files.output_folder import output_folder
from wemem.objects.code import ArchitectureLike
from wemem.objects.inputs import DataLike, MembersLike, Place, StudyLike, built_network, members_file, study_of
from wemem.objects.outcome import Outcome
from wemem.objects.output import OutputPlace, shown_progress
from wemem.pipeline.progress import Progress
from wemem.results.folder import no_results_of_before
from wemem.results.model_files import remove_old_model, training_summary, write_trained
from wemem.results.wording import printable
from wemem.store.location import location_beside
from wemem.store.store import Store
from wemem.study.single_training import train_model


@final
@dataclass(frozen=True, eq=False, repr=False)
class TrainResult(Outcome):
    """A trained model with its certificate.

    Args:
        summary: sentences on what was done.
        build: makes the architecture.
    """

    summary: tuple[str, ...] = ()
    build: Callable[[], nn.Module] | None = None

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.folder / "weights.safetensors"

    @property
    def members(self) -> Path:
        """The file of the training records."""
        return self.folder / "members.npz"

    def model(self) -> nn.Module:
        """Return the trained model, in evaluation mode."""
        assert self.build is not None
        return load_pruned(self.build(), self.weights)

    def save(self, directory: str | Path) -> Path:
        """Copy weights, training records and certificate into a folder, created if missing.

        Returns:
            The weights file, for :func:`wemem.prune` and :func:`wemem.audit`.
        """
        with output_folder(directory) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            if not folder.samefile(self.folder):
                for file in (TRAINED, self.weights.name, preprocess_path(self.weights).name, self.members.name):
                    (folder / file).unlink(missing_ok=True)
                    if (self.folder / file).exists():
                        shutil.copyfile(self.folder / file, folder / file)
        return folder / self.weights.name

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return [{"members": self.content["members"], **self.content["accuracy"], "epochs": self.content["epochs"]}]

    def _text(self) -> str:
        return "\n".join(map(printable, self.summary))


def train(
    data: DataLike | None = None,
    members: MembersLike | None = None,
    *,
    architecture: ArchitectureLike | None = None,
    study: StudyLike | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Place | None = None,
    store: Place | None = None,
    progress: bool | Progress = True,
) -> TrainResult:
    """Train one model as a study trains its own, and certify the training.

    An audit of the model with the same settings and the same members is adaptive. It counts the dev
    records, by whose accuracy the best weights are chosen, neither as members nor as non-members:
    the certificate lists them.

    Args:
        data: the records (:func:`~wemem.objects.inputs.loaded_data`); the study's if None.
        members: numbers of the training records, or a file of them; those of the model that the
            study itself would train if None.
        architecture: a kind, a module (its weights are not used) or a factory, in place of the
            study's model.
        study: the settings of training: a study, its table, or its file.
        settings: keys of the study set anew, such as ``{"training": {"epochs": 20}}``.
        out: the output directory; a temporary one that the result keeps if None.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    config, place = study_of(study, settings, data=data, architecture=architecture), OutputPlace.of(out)
    with (
        place.inputs() as inputs, output_folder(place.folder) as folder, shown_progress(progress) as receiver,
        no_results_of_before(folder, receiver, remove=remove_old_model) as shown,
    ):  # fmt: skip
        listed = None if members is None else members_file(members, inputs)
        trained = train_model(config, listed, Store(location_beside(store, folder), shown.warn), shown)
        write_trained(folder, config, trained)
        lines = training_summary(folder / "weights.safetensors", trained)
    certificate = read_json(place.folder / TRAINED, "a certificate")
    return TrainResult(place.folder, certificate, place.keeper, tuple(lines), partial(built_network, config))
