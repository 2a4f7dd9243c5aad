"""What a server reads in messages, where it is known what can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmer.audit.identity import group, left_out, sender
from fedmer.audit.inversion import first_layers, one_utterance, read_features
from fedmer.audit.labels import label_histograms
from fedmer.audit.prototypes import nearest_utterance
from fedmer.data.batch import collate
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.privacy.secure_sum import SecureSum
from fedmer.report.attacks import Finding
from tests.audit.subjects import Fit, subject_of, subject_with


def numbers(finding: Finding) -> dict[str, tuple[float, float]]:
    """Name of a figure -> what was found, and what chance finds."""
    assert not finding.skipped
    return {figure.name: (figure.value, figure.chance) for figure in finding.figures}


@pytest.fixture(scope="module")
def proto(fit: Fit) -> Path:
    """A run whose clients send the mean of a single utterance too."""
    means = ("--aggregator.min_count", "1", "--aggregator.prototypes", "after")
    small = ("--partitioner.clients", "16", "--trainer.max_epochs", "2")
    return fit("proto", "--aggregator", "Distance", *means, *small)


def test_the_bias_of_a_linear_network_has_the_histogram() -> None:
    found = numbers(label_histograms(subject_with()))
    assert found["distance to the histogram"][0] == pytest.approx(0, abs=1e-5)
    assert found["distance to the histogram"][1] > 0.1
    assert found["correlation with it"][0] == pytest.approx(1, abs=1e-5)


def test_a_change_of_a_linear_layer_has_the_features_that_it_was_made_by() -> None:
    subject = subject_with()
    found = numbers(one_utterance(subject))
    assert found["cosine with the features"][0] == pytest.approx(1, abs=1e-5)
    assert found["utterance found"][0] == 1
    layer, row = torch.nn.Linear(6, 3), torch.randn(1, 6)
    layer(row).square().sum().backward()
    change = {"w.weight": layer.weight.grad, "w.bias": layer.bias.grad}
    read = read_features({n: v for n, v in change.items() if v is not None}, "w.weight")
    assert torch.allclose(read, row[0], atol=1e-5)


def test_without_a_bias_the_direction_is_read_through_dropout_and_many_steps() -> None:
    def network(shape):  # type: ignore[no-untyped-def]
        return SDT(shape, hidden=8, heads=2)

    subject = subject_with(network, lr=0.01)
    batch = collate(subject.clients[0].train[:1])
    layers = {"text": "project.text.weight", "audio": "project.audio.weight"}
    assert first_layers(network(subject.data.shape), batch) == layers
    found = numbers(one_utterance(subject))
    assert found["cosine with the features"][0] == pytest.approx(1, abs=1e-4)
    assert found["utterance found"][0] == 1


def test_a_sum_says_no_more_of_one_client_than_of_another() -> None:
    plain = subject_with(rounds=2)
    hidden = subject_with(rounds=2, privacy=[SecureSum()])
    weights = [m.summary.examples for m in plain.messages[:4]]
    for name in hidden.messages[0].change:
        mean = sum(
            w * m.change[name] for w, m in zip(weights, plain.messages[:4], strict=True)
        ) / sum(weights)
        for message in hidden.messages[:4]:
            assert torch.allclose(message.change[name], torch.as_tensor(mean), atol=1e-6)
    assert numbers(sender(plain))["by update"][0] == 1
    assert numbers(sender(hidden))["by update"] == (0.25, 0.25)
    found, chance = numbers(label_histograms(hidden))["distance to the histogram"]
    assert found == pytest.approx(chance)
    assert numbers(one_utterance(hidden))["utterance found"][0] < 0.5


def test_the_mean_of_one_utterance_is_that_utterance(proto: Path) -> None:
    found = numbers(nearest_utterance(subject_of(proto)))
    assert found["means of 1"][0] == 1
    assert found["means of 1"][1] < 0.5
    assert found["means of 5 or more"][0] < 1


def test_messages_of_a_run_are_linked(proto: Path) -> None:
    subject = subject_of(proto, rounds=3)
    assert {m.round for m in subject.messages} == {2, 3, 4}
    found = numbers(sender(subject))
    assert found["by update"] == (1, 1 / 16)
    assert found["by prototypes"][0] > 0.5
    assert "give --rounds 2 or more" in sender(subject_of(proto)).skipped


def test_a_group_that_shows_is_found_and_one_that_does_not_is_not() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(30) % 2
    apart = torch.from_numpy(random.normal(size=(30, 50)) + 2.0 * truth[:, None])
    assert (left_out(apart, truth) == truth).all()
    alike = torch.from_numpy(random.normal(size=(30, 500)))
    assert 0.1 < (left_out(alike, truth) == truth).mean() < 0.9


def test_groups_are_those_of_clients_by_name() -> None:
    subject = subject_with()
    names = [client.name for client in subject.clients]
    assert "--groups SPEAKERS.csv tells" in group(subject, {}).skipped
    assert "all are of one group" in group(subject, dict.fromkeys(names, "f")).skipped
    found = numbers(group(subject, dict(zip(names, "fmfm", strict=True))))
    assert found["by update"][1] == 0.5


def test_what_is_not_sent_is_not_attacked(fit: Fit) -> None:
    one = ("--trainer.max_epochs", "1")
    proto = subject_of(fit("fed_proto", "--aggregator", "FedProto", *one), rounds=2)
    assert label_histograms(proto).skipped == "Clients of FedProto send no update that would tell."
    assert one_utterance(proto).skipped == "Clients of FedProto send no update that would tell."
    assert list(numbers(sender(proto))) == ["by prototypes"]
    assert "means of 5 or more" in numbers(nearest_utterance(proto))
    local = subject_of(fit("local", "--aggregator", "Local", *one), rounds=2)
    assert sender(local).skipped
    assert nearest_utterance(local).skipped == "Nobody sees prototypes of single clients of Local."


def test_attacks_leave_a_run_as_it_is(proto: Path) -> None:
    subject = subject_of(proto, rounds=2)
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    subject.messages, subject.rehearse(subject.clients[:2])
    after = subject.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_budget_that_is_spent_ends_no_attack(fit: Fit) -> None:
    pytest.importorskip("dp_accounting")
    private = (
        *("--aggregator", "FedAvg", "--privacy", "GaussianNoise", "--privacy.target_epsilon", "8"),
        *("--data.standardise", "local", "--data.holdout", "0", "--trainer.max_epochs", "2"),
    )
    subject = subject_of(fit("private", *private), rounds=2)
    assert len(subject.messages) == 8
    lengths = [sum(float(v.square().sum()) for v in m.change.values()) for m in subject.messages]
    assert max(lengths) <= 1 + 1e-4
