"""AdvReg: its limits, its loss by hand, what its inference network learns and does not, and both backends."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import small_study
from networks import ConvNet, modules
from toy import CLASSES, blobs, ensemble_of, largest_difference, same_bytes, split_of, uneven_split
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import AdversarialTraining, AdvReg, Batch, Undefended, chain, make_defense
from wemem.defenses.advreg import InferenceNetwork
from wemem.errors import InputError
from wemem.memorization import truth_values
from wemem.models import FullyConnected
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.training import Ensemble, Recipe, fit

pytestmark = pytest.mark.slow

DATA = blobs()
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=3, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
STILL = Recipe(epochs=1, learning_rate=0.0, weight_decay=0.0)
SCORES = [np.random.default_rng(k).random(len(DATA)) for k in range(3)]
MADE: list[InferenceNetwork] = []


@pytest.fixture
def quick(monkeypatch):
    """Fewer turns than are of use, where it does not matter what is learned."""
    monkeypatch.setattr(InferenceNetwork, "warm_up", 4)
    monkeypatch.setattr(InferenceNetwork, "turns", 1)


@dataclass(frozen=True)
class Watched(AdvReg):
    """AdvReg whose inference networks can be asked afterwards."""

    @property
    def capabilities(self):
        return (AdversarialTraining(watched),)


def watched(classes, seeds):
    MADE.append(InferenceNetwork(classes, seeds))
    return MADE[-1]


@dataclass(frozen=True)
class Ignored(Watched):
    """Its inference networks learn, and nobody listens."""

    def loss(self, batch):
        return batch.mean(batch.cross_entropy())


def trained(defense, **changed):
    settings = {"ensemble": ensemble_of(DATA), "data": DATA, "split": split_of(DATA), "recipe": SGD, "seeds": SEEDS}
    return fit(**(settings | changed), defense=defense)


# --- limit cases ---


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
@pytest.mark.parametrize("defense", [AdvReg(theta=0.0), Ignored()])
def test_an_attacker_without_weight_leaves_the_undefended_models_to_the_byte(defense, backend):
    plain = trained(Undefended(), backend=backend)
    assert same_bytes(trained(defense, backend=backend).ensemble, plain.ensemble)


def test_without_weight_there_is_no_attacker():
    assert AdvReg(theta=0.0).capability(AdversarialTraining) is None
    assert trained(AdvReg(theta=0.0)).history == trained(Undefended()).history


@pytest.mark.usefixtures("quick")
def test_an_ignored_attacker_leaves_batchnorm_statistics_as_they_were():
    images = blobs(shape=(1, 4, 4))
    start, split = Ensemble.from_modules(modules(ConvNet)), split_of(images)
    one, other = (trained(d, ensemble=start, data=images, split=split).ensemble for d in (Ignored(), Undefended()))
    assert same_bytes(one, other)


@pytest.mark.usefixtures("quick")
def test_an_attacker_with_weight_trains_other_models():
    assert largest_difference(trained(AdvReg()).ensemble, trained(Undefended()).ensemble) > 1e-2


# --- the loss and the network ---


def test_the_loss_is_cross_entropy_plus_the_weighted_log_probability_of_membership():
    p, inside = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]]), np.array([0.9, 0.2, 0.6])
    batch = Batch(
        torch.tensor(np.log(p[None])), torch.tensor([[0, 0, 1]]), torch.tensor([[1.0, 1.0, 0.0]]), 0,
        membership_log_probability=torch.tensor(np.log(inside[None])),
    )  # fmt: skip
    wanted = -np.log([0.7, 0.4]).mean() + 4 * np.log([0.9, 0.2]).mean()
    assert AdvReg(theta=4.0).loss(batch).item() == pytest.approx(wanted)


def test_what_the_network_says_is_a_plain_network_s_log_sigmoid():
    network = InferenceNetwork(3, SEEDS)
    logits, labels = (
        torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[0, 1, 2, 0, 1]] * 2),
    )
    said = network.membership_log_probability([0, 2], logits, labels)
    for row, k in enumerate((0, 2)):
        x = torch.cat([logits[row].softmax(-1), torch.eye(3)[labels[row]]], 1)
        for i in range(0, 6, 2):
            x = (x.relu() if i else x) @ network.layers[i][k] + network.layers[i + 1][k]
        torch.testing.assert_close(said[row], x[:, 0].sigmoid().log())


def test_a_turn_ascends_the_gain_as_adam_does_and_only_for_who_takes_it():
    network, again = InferenceNetwork(3, SEEDS), InferenceNetwork(3, SEEDS)
    draw = torch.Generator().manual_seed(1)
    inside, outside = (3 * torch.randn(2, 8, 3, generator=draw) for _ in range(2))
    labels = torch.randint(0, 3, (2, 8), generator=draw)
    own = [torch.nn.Parameter(t[2].clone()) for t in again.layers]
    adam = torch.optim.Adam(own, lr=3e-3)
    for _ in range(3):
        network.learn([0, 2], inside, labels, outside, labels)
        again.layers = [p[None] for p in own]
        member, other = (again.membership_log_probability([0], x[1:], labels[1:]).exp() for x in (inside, outside))
        adam.zero_grad()
        (-(member.log().mean() + (1 - other).log().mean()) / 2).backward()
        adam.step()
    for tensor, expected in zip(network.layers, own, strict=True):
        torch.testing.assert_close(tensor[2], expected.data, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(network.layers, InferenceNetwork(3, SEEDS).layers, strict=True))


# --- what it learns ---


def by_heart(data, records):
    """A model that was trained on records until it knows them by heart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FullyConnected((64,), 0.0).build(data.input_shape, data.classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(150):
            optimizer.zero_grad()
            cross_entropy(
                model(torch.from_numpy(data.features[records])), torch.from_numpy(data.labels[records])
            ).backward()
            optimizer.step()
    return model


def attacked(data, *, overfitted):
    """Accuracy, on records that it never saw, of an attacker that knows half of a member's train records."""
    split = split_of(data, members=2, train=200, dev=100)
    known = [by_heart(data, split.records(k, Role.TRAIN)) for k in range(2)]
    model = Ensemble.from_modules(known) if overfitted else ensemble_of(data, members=2)
    roles, held_back = split.roles.copy(), []
    for k in range(2):
        members = split.records(k, Role.TRAIN)
        held_back.append((members[1::2], split.records(k, Role.AUDIT)[:100]))
        roles[k, members[1::2]] = Role.UNUSED
    MADE.clear()
    fit(model, data, replace(split, roles=roles), STILL, seeds=[0, 1], defense=Watched())
    logits, shares = torch.from_numpy(model.logits(data.features)), []
    for k in range(2):
        for records, member in zip(held_back[k], (True, False), strict=True):
            said = MADE[0].membership_log_probability(
                [k], logits[k : k + 1, records], torch.from_numpy(data.labels[None, records])
            )
            shares.append(float(((said > np.log(0.5)) == member).float().mean()))
    return np.mean(shares)


def test_the_attacker_recognizes_members_of_an_overfitted_model_by_its_turns_alone():
    assert attacked(blobs(500, noise=3.0), overfitted=True) > 0.6


def test_the_attacker_finds_nothing_where_there_is_nothing():
    # 400 decisions at chance: 5 standard errors
    assert abs(attacked(blobs(500, noise=3.0), overfitted=False) - 0.5) < 0.125


def test_the_model_hides_from_its_attacker():
    data = blobs(500, noise=3.0)
    split, recipe = split_of(data, members=1, train=200, dev=100), Recipe(epochs=1, batch_size=4, learning_rate=3e-3)
    gaps = []
    for defense in (Undefended(), AdvReg(theta=8.0)):
        start = Ensemble.from_modules([by_heart(data, split.records(0, Role.TRAIN))])
        logits = fit(start, data, split, recipe, seeds=[0], defense=defense).ensemble.logits(data.features)[0]
        confidence = truth_values(logits[None], data.labels, "probability")[0]
        gaps.append(confidence[split.records(0, Role.TRAIN)].mean() - confidence[split.records(0, Role.AUDIT)].mean())
    assert gaps[1] < 0.7 * gaps[0]


# --- the trainer ---


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("split", [split_of(DATA), uneven_split(DATA)])
def test_both_backends_train_the_same_models(split):
    vmapped, sequential = (trained(AdvReg(), split=split, backend=b) for b in ("vmapped", "sequential"))
    assert (vmapped.choice.backend, sequential.choice.backend) == ("vmapped", "sequential")
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-3  # Adam of the attackers amplifies round-off


@pytest.mark.usefixtures("quick")
def test_a_member_s_result_does_not_depend_on_the_others():
    company = trained(AdvReg(), backend="sequential").ensemble
    start, split = ensemble_of(DATA).select([1]), split_of(DATA).select([1])
    alone = trained(AdvReg(), backend="sequential", ensemble=start, split=split, seeds=SEEDS[1:2]).ensemble
    assert same_bytes(company.select([1]), alone)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_the_same_seeds_give_the_same_bytes_whatever_the_global_generator(backend):
    one = trained(AdvReg(), backend=backend).ensemble
    torch.manual_seed(9)
    assert same_bytes(one, trained(AdvReg(), backend=backend).ensemble)


@pytest.mark.usefixtures("quick")
def test_it_chains_with_the_window_and_not_with_another_loss():
    both = make_defense("advreg+rsw", {"theta": 2.0, "width": 0.5, "stride": 0.0})
    assert (both.name, both.needs_scores) == ("advreg+rsw", True)
    assert both.capability(AdversarialTraining) == AdversarialTraining(InferenceNetwork)
    split = split_of(DATA)
    windowed = trained(both, scores=SCORES, backend="vmapped")
    assert max(h.records_seen for h in windowed.history) < trained(AdvReg()).history[0].records_seen
    assert largest_difference(windowed.ensemble, trained(both, scores=SCORES, backend="sequential").ensemble) < 1e-3
    wide = chain(AdvReg(), make_defense("rsw", {"width": 1.0, "stride": 0.0}))
    assert same_bytes(trained(wide, scores=SCORES, split=split).ensemble, trained(AdvReg()).ensemble)
    for other in ("ppb", "radd", "dpsgd"):
        with pytest.raises(InputError, match=f"advreg and {other} both|{other} and advreg both"):
            make_defense(f"advreg+{other}")


@pytest.mark.parametrize("theta", [-1, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(theta):
    with pytest.raises(InputError, match=r"theta must be finite and 0 or more, got .*; for no attacker use Undefended"):
        AdvReg(theta=theta)


def test_extreme_outputs_have_finite_suspicion_and_gradient():
    network = InferenceNetwork(CLASSES, [0])
    logits = (torch.eye(CLASSES)[None] * 1e30).requires_grad_()
    said = network.membership_log_probability([0], logits, torch.arange(CLASSES)[None])
    (gradient,) = torch.autograd.grad(said.sum(), logits)
    assert torch.isfinite(said).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.usefixtures("quick")
def test_a_study_attacks_it_adaptively_and_resumes_a_round_to_the_same_bytes(tmp_path):
    table = small_study.table(small_study.write_data(tmp_path), defenses=["advreg"], attacks=["confidence"])
    config = parse_study(table | {"pruning": {"rounds": 2}})
    (_, whole), (_, again) = (list(run_study(config, Store(tmp_path / "one"), Silent())) for _ in range(2))
    assert whole.victim.provenance == (whole.victim.provenance[0],) * 3
    assert same_bytes(whole.victim.ensemble, again.victim.ensemble)
    kept = {"attacks": ["confidence", "pruning_trajectory"]}  # it keeps every round, from which the last can go on
    store = Store(tmp_path / "two")
    rounds = list(run_study(parse_study(table | {"pruning": {"rounds": 2}} | kept), store, Silent()))[1].rounds
    store.delete(rounds[-1].key)
    resumed = list(run_study(config, store, Silent()))[1]
    assert same_bytes(resumed.victim.ensemble, whole.victim.ensemble)
