"""Compression: nothing is lost by top-k, rounding is right in the mean, and bytes are counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.executor import Executor
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.privacy import ClientContext, Privacy
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy._changes import changes, norm
from fedmer.plugins.privacy.clip_norm import ClipNorm
from fedmer.plugins.privacy.compression import Compression
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4))
VECTORS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12)


def sent_by(
    rule: Compression, change: torch.Tensor, seed: int = 0, memory: dict | None = None
) -> tuple[torch.Tensor, Update]:
    start = torch.zeros_like(change)
    context = ClientContext(
        0, Broadcast(0, {"w": start, "n": torch.tensor(1)}), seed=seed,
        memory={} if memory is None else memory,
    )  # fmt: skip
    _, sent = rule.on_client(Summary(0, 1), Update(0, {"w": change, "n": torch.tensor(4)}), context)
    assert sent is not None
    assert int(sent.weights["n"]) == 4
    return sent.weights["w"], sent


@settings(max_examples=100, deadline=None)
@given(st.lists(VECTORS, min_size=1, max_size=6), st.floats(0.05, 1))
def test_what_top_k_leaves_out_comes_later(rounds: list[list[float]], keep: float) -> None:
    """All that was sent and what is left is all that changed."""
    size = min(map(len, rounds))
    rule, memory, total = Compression("top_k", keep), {}, torch.zeros(size, dtype=torch.float64)
    made = torch.zeros(size, dtype=torch.float64)
    for change in rounds:
        change = torch.tensor(change[:size]).double()
        sent, update = sent_by(rule, change, memory=memory)
        made += change
        total += sent
        assert int((sent != 0).sum()) <= max(1, round(keep * size))
        assert update.nbytes == max(1, round(keep * size)) * (4 + 8) + 8
        left = memory["left.torch.float64"]
        assert float(left.abs().max()) <= float(sent.abs().max())
    torch.testing.assert_close(total + left, made, atol=1e-9, rtol=0)


@pytest.mark.parametrize("method", ["int8", "sign"])
def test_rounding_is_right_in_the_mean(method: str) -> None:
    change = torch.linspace(-1.0, 0.7, 21).double()
    found = torch.stack([sent_by(Compression(method), change, s)[0] for s in range(1500)])
    spread = found.std(dim=0) / 1500**0.5
    assert ((found.mean(dim=0) - change).abs() <= 5 * spread + 1e-9).all()
    levels = {"int8": 255, "sign": 2}[method]
    assert len(found.unique()) <= levels
    assert float(found.abs().max()) <= 1.0 + 1e-6


@settings(max_examples=100, deadline=None)
@given(VECTORS, st.integers(0, 100))
def test_a_byte_is_within_a_step(change: list[float], seed: int) -> None:
    exact = torch.tensor(change)
    found, update = sent_by(Compression("int8"), exact, seed)
    step = float(exact.abs().max()) / 127
    assert ((found - exact).abs() <= step * (1 + 1e-4) + 1e-6).all()
    assert update.nbytes == len(change) + 4 + 8
    assert sent_by(Compression("sign"), exact, seed)[1].nbytes == (len(change) + 7) // 8 + 4 + 8


def run(executor: Executor, *privacy: Privacy, rule: FedAvg | None = None):
    loop = federation(rule or FedAvg(), CORPUS, CLIENTS, executor=executor, privacy=privacy)
    try:
        reports = [loop.run_round(number) for number in range(2)]
    finally:
        executor.close()
    return weights_of(loop), [report.bytes_up for report in reports]


@pytest.mark.parametrize("rule", [FedAvg(), SCAFFOLD()], ids=lambda rule: rule.name)
def test_bytes_are_counted_on_every_executor(rule: FedAvg) -> None:
    _, whole = run(Inline(), rule=rule)
    for compression, least in ((Compression("int8"), 3.4), (Compression("sign"), 12),
                               (Compression("top_k", 0.05), 8)):  # fmt: skip
        weights, up = run(Inline(), compression, rule=rule)
        assert whole[0] / up[0] > least
        others = run(Workers(workers=2), compression, rule=rule)
        assert same_bits(weights, others[0])
        assert up == others[1]


def test_a_clip_after_it_bounds_it_and_keeps_its_bytes() -> None:
    sent = []

    class Looking(Privacy):
        def on_client(self, summary, update, context):  # type: ignore[no-untyped-def]
            sent.append((norm(changes(update, context.received)), update.compressed))
            return summary, update

    run(Inline(), Compression("sign"), ClipNorm(0.05), Looking())
    assert all(length <= 0.0501 and count is not None for length, count in sent)
    pytest.importorskip("dp_accounting")
    sent.clear()
    run(Inline(), Compression("sign"), GaussianNoise(0.05, 1.0), Looking())
    assert all(length <= 0.0501 and count is not None for length, count in sent)
    sent.clear()
    # Noise on a client fills all numbers, so that nothing is saved.
    run(Inline(), Compression("sign"), GaussianNoise(0.05, 1.0, where="client"), Looking())
    assert all(count is None for _, count in sent)
    sent.clear()
    run(Inline(), GaussianNoise(0.05, 1.0, where="client"), Compression("int8"), Looking())
    assert all(count is not None for _, count in sent)


class Masked(Privacy):
    masked_sum = MaskedSum(0.6, 1.0)


class Carrying(Inline):
    carries_masked_sums = True


class Whole(Inline):
    sends_whole = True


@pytest.mark.parametrize(
    ("executor", "privacy", "said"),
    [
        (Carrying(), [Compression(), Masked()], "the masks of Masked fill all of an update"),
        (Whole(), [Compression()], "Whole sends all numbers of an update whatever they are"),
        (Inline(), [ClipNorm(1.0), Compression()], "names ClipNorm before Compression, .* first"),
        (Inline(), [GaussianNoise(1.0, 1.0), Compression()], "names GaussianNoise before Compres"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(
    executor: Executor, privacy: list[Privacy], said: str
) -> None:
    with pytest.raises(InputError, match=f"--privacy.*{said}"):
        federation(FedAvg(), CORPUS, CLIENTS, executor=executor, privacy=privacy)


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_a_share_out_of_range_is_a_sentence(keep: float) -> None:
    with pytest.raises(InputError, match=r"privacy.keep is .*; expected a number in \(0, 1\]"):
        Compression("top_k", keep)
