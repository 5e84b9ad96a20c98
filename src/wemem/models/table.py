"""The first layer of a model for a table: the preprocessing, fitted on the model's own records."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from wemem.data.dataset import Dataset
from wemem.data.preprocessing import Preprocessing, code_matrix
from wemem.data.table_form import TableForm
from wemem.errors import InputError
from wemem.models import CustomModel, EntityEmbedding, Model
from wemem.models.several_inputs import SeveralInputsModel

#: The names of the first layer and of the network behind it.
PREPROCESS, NETWORK = "preprocess", "network"
#: The buffers of the first layer that a fit sets.
FITTED = ("filling", "shift", "scale", "present")


class TableInput(nn.Module):
    """A layer that applies a :class:`~wemem.data.preprocessing.Preprocessing`, as buffers.

    It has nothing to train or to prune. Before it is fitted, ``records`` is 0, and the layer leaves
    numbers as they are.

    Args:
        form: the columns of the table.
    """

    filling: Tensor
    shift: Tensor
    scale: Tensor
    present: Tensor
    records: Tensor

    def __init__(self, form: TableForm) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("filling", torch.zeros(len(form.numbers)))
        self.register_buffer("shift", torch.zeros(len(form.numbers)))
        self.register_buffer("scale", torch.ones(len(form.numbers)))
        self.register_buffer("present", torch.ones(len(form.switches)))
        self.register_buffer("records", torch.zeros((), dtype=torch.int64))
        self.numbers = torch.tensor(form.numbers, dtype=torch.int64, device="cpu")
        self.source = torch.tensor([i for i, _ in form.switches], dtype=torch.int64, device="cpu")
        values = [float("nan") if code is None else float(code) for _, code in form.switches]
        self.value = torch.tensor(values, dtype=torch.float32, device="cpu")
        self.codes = torch.from_numpy(code_matrix(form)) if form.categories == "codes" else None

    def forward(self, x: Float32[Tensor, "*B F"]) -> Float32[Tensor, "*B W"]:
        return self.encode(x, self.filling, self.shift, self.scale, self.present)

    def encode(
        self,
        x: Float32[Tensor, "*B F"],
        filling: Float[Tensor, "*#B n"],
        shift: Float[Tensor, "*#B n"],
        scale: Float[Tensor, "*#B n"],
        present: Float[Tensor, "*#B s"],
    ) -> Float32[Tensor, "*B W"]:
        """Apply the preprocessing with these numbers, which may differ by model along leading axes."""
        if self.numbers.device != x.device:
            self.numbers, self.source, self.value = (t.to(x.device) for t in (self.numbers, self.source, self.value))
            self.codes = None if self.codes is None else self.codes.to(x.device)
        numbers, of_switch = x.index_select(-1, self.numbers), x.index_select(-1, self.source)
        numbers = (torch.where(numbers.isnan(), filling.expand_as(numbers), numbers) - shift) / scale
        on = (of_switch == self.value) | (of_switch.isnan() & self.value.isnan())  # NaN equals nothing
        switches = on.to(x.dtype) * present
        return torch.cat([numbers, switches if self.codes is None else switches @ self.codes], dim=-1)

    @torch.no_grad()
    def load(self, preprocessing: Preprocessing) -> "TableInput":
        """Take over the numbers of a preprocessing.

        Raises:
            InputError: it is for other columns.
        """
        require_form(self.form, preprocessing.form)
        for name in FITTED:
            getattr(self, name).copy_(torch.from_numpy(getattr(preprocessing, name)))
        self.records.fill_(preprocessing.records)
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """The numbers of the layer as a value."""
        numbers = {name: getattr(self, name).detach().cpu().numpy() for name in FITTED}
        numbers["present"] = numbers["present"] > 0
        return Preprocessing(self.form, **numbers, records=int(self.records))


@dataclass(frozen=True)
class TableModel:
    """A model behind the preprocessing of a table.

    Args:
        model: the model, which takes the numbers that the preprocessing gives.
        form: the columns of the table.
    """

    model: Model
    form: TableForm

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network on the columns of the table, ``(B, F) -> (B, classes)``.

        Raises:
            InputError: a model that does not take codes of categories, or records of another form.
        """
        if input_shape != (len(self.form.columns),):
            raise InputError(f"expected records of {len(self.form.columns)} columns, got shape {input_shape}")
        network = self._suited().build((self.form.width,), classes)
        return _joined(TableInput(self.form), network)

    def _suited(self) -> Model:
        """The model, with the number of codes of each input if it takes codes."""
        codes = self.form.categories == "codes"
        if isinstance(self.model, EntityEmbedding):
            if not codes:
                raise InputError(
                    "entity_embedding expected codes of categories, got others; set data.categories = 'codes'"
                )
            return replace(self.model, categories=self.form.code_counts)
        if codes and not isinstance(self.model, CustomModel):
            raise InputError(
                f"{type(self.model).__name__} expected categories as numbers, got codes, which are for embeddings; set "
                "data.categories = 'one-hot', or use the model entity_embedding"
            )
        if codes and isinstance(self.model, CustomModel):
            return replace(self.model, arguments={**self.model.arguments, "categories": self.form.code_counts})
        return self.model


def model_for(model: Model, data: Dataset) -> Model:
    """The model that takes the records of a data set: itself, or with the preprocessing of a table
    in front, or fed with several inputs.
    """
    if data.inputs is not None:
        return SeveralInputsModel(model, data.inputs)
    return model if data.table is None else TableModel(model, data.table)


def _joined(layer: TableInput, network: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict([(PREPROCESS, layer), (NETWORK, network)]))


def with_preprocessing(network: nn.Module, preprocessing: Preprocessing) -> nn.Sequential:
    """A network behind the preprocessing of a table: records of the table in, logits out.

    Its weights are those that ``wemem`` writes and reads for a table.

    Args:
        network: takes the numbers that the preprocessing gives.
        preprocessing: the preprocessing, fitted or read by
            :func:`~wemem.data.preprocessing_file.read_preprocessing`.

    >>> from wemem.data.table_form import Column
    >>> form = TableForm((Column("age"), Column("job", ("cook", "nurse"))))
    >>> people = form.encode({"age": [20, 40], "job": ["nurse", "cook"]})
    >>> model = with_preprocessing(nn.Identity(), Preprocessing.fit(form, people))
    >>> model(torch.from_numpy(people)).tolist()
    [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    return _joined(TableInput(preprocessing.form).load(preprocessing), network)


def table_input(module: nn.Module) -> TableInput | None:
    """The preprocessing layer of a module; None without one."""
    layer = getattr(module, PREPROCESS, None)
    return layer if isinstance(layer, TableInput) else None


def require_form(expected: TableForm, received: TableForm) -> None:
    """Refuse a preprocessing of other columns or categories.

    Raises:
        InputError: the first difference, by the name of the column.
    """
    names = [[column.name for column in form.columns] for form in (expected, received)]
    if names[0] != names[1]:
        lone = sorted(set(names[0]) ^ set(names[1]))[:5]
        which = f"others ({', '.join(lone)})" if lone else "another order"
        raise InputError(f"expected the columns of the table in the preprocessing, got {which}; fit it on this table")
    for own, other in zip(expected.columns, received.columns, strict=True):
        if own != other:
            raise InputError(
                f"expected column {own.name!r} in the preprocessing as in the table, {_described(own)}, got "
                f"{_described(other)}; give the table that the model was trained on"
            )
    if expected != received:
        raise InputError(
            f"expected categories = {expected.categories!r} and standardize = {expected.standardize}, got "
            f"{received.categories!r} and {received.standardize} in the preprocessing; set them so in [data]"
        )


def _described(column: object) -> str:
    categories, missing = getattr(column, "categories", ()), getattr(column, "missing", False)
    kind = f"{len(categories)} categories {', '.join(categories[:5])}" if categories else "numbers"
    return f"{kind}, {'some' if missing else 'none'} missing"
