"""Who was learnt from? Told by the released network alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmer.audit.detection import Detection, by_group, numbered
from fedmer.audit.subject import Subject
from fedmer.data.batch import Excerpt
from fedmer.report.attacks import Finding
from fedmer.seeds import generator


@dataclass(frozen=True, eq=False)
class Pool:
    """Utterances of which somebody wants to know whether the network learnt from them.

    Args:
        excerpts: Those of clients, then those of the test part.
        members: How many are clients'.
        dialogue: ``(E,)``, a number for the dialogue of each excerpt.
    """

    excerpts: Sequence[Excerpt]
    members: int
    dialogue: NDArray[np.int64]

    @classmethod
    def of(cls, subject: Subject) -> "Pool":
        """What the clients of a run learn from, and its test part."""
        ours = [excerpt for client in subject.clients for excerpt in client.train]
        excerpts = [*ours, *subject.data.excerpts("test")]
        return cls(excerpts, len(ours), numbered([e.dialogue for e in excerpts]))


def loss_threshold(subject: Subject) -> Finding:
    r"""Is the loss of an utterance small?

    The score of an utterance is :math:`\log p_y`, which training raises on what it sees (S. Yeom et
    al., CSF 2018, arXiv 1709.01604); that of a dialogue is the mean over its labelled utterances.
    """
    why = _refusal(subject)
    if why:
        return Finding(skipped=why)
    pool = Pool.of(subject)
    answers = subject.ask(subject.network, pool.excerpts)
    member, dialogue = answers.excerpt < pool.members, pool.dialogue[answers.excerpt]
    score = -answers.losses
    whole = by_group(score, dialogue)
    theirs = by_group(member.astype(np.float64), dialogue) > 0.5
    dialogues = Detection(whole, theirs, np.arange(len(whole)))
    return Finding(
        [
            *Detection(score, member, dialogue).figures("utterances", subject.seed),
            dialogues.figures("dialogues", subject.seed)[0],
        ],
    )


def likelihood_ratio(
    subject: Subject, shadows: int, kept: dict[str, NDArray[np.float64]] | None = None
) -> Finding:
    r"""Is the network surer of an utterance than networks that did not learn from it?

    The offline attack of N. Carlini et al. ("Membership Inference Attacks From First Principles",
    S&P 2022, arXiv 2112.03570). With :math:`\phi = \log p_y - \log(1 - p_y)` the score is

    .. math:: \phi - \frac{1}{|O|} \sum_{j \in O} \phi_j

    over the shadow networks :math:`O` that did not learn from the utterance's dialogue. As there
    are few of them, all utterances have one variance, which moves no rank. Every dialogue, whether
    a member or not, is in half of the shadows, so that nothing but the attacked network tells
    members apart. Shadows learn centrally, with the run's network, loss and optimizer, as many
    passes as its clients made.

    Args:
        subject: The run.
        shadows: How many, an even number from 2.
        kept: Answers of shadows, by what they follow from; runs of one command share them that
            differ in their rule and protections alone.
    """
    why = _refusal(subject)
    if why:
        return Finding(skipped=why)
    pool = Pool.of(subject)
    answers = subject.ask(subject.network, pool.excerpts)
    member, dialogue = answers.excerpt < pool.members, pool.dialogue[answers.excerpt]
    inside = halves(int(pool.dialogue.max()) + 1, shadows, subject.seed)
    out = ~inside[:, dialogue]
    shared = {} if kept is None else kept
    if subject.untold not in shared:
        answered = [_shadow(subject, pool, learnt, i) for i, learnt in enumerate(inside)]
        shared[subject.untold] = (np.stack(answered) * out).sum(axis=0) / out.sum(axis=0)
    score = answers.confidence - shared[subject.untold]
    return Finding(Detection(score, member, dialogue).figures("utterances", subject.seed))


def _shadow(
    subject: Subject, pool: Pool, learnt: NDArray[np.bool_], number: int
) -> NDArray[np.float64]:
    """How sure a shadow is of all utterances."""
    chosen = [e for e, place in zip(pool.excerpts, pool.dialogue, strict=True) if learnt[place]]
    return subject.ask(subject.train(chosen, "shadow", number), pool.excerpts).confidence


def halves(count: int, shadows: int, seed: int) -> NDArray[np.bool_]:
    """``(S, count)``: which shadow learns from which dialogue; each from half of them, and each
    dialogue is in half of the shadows.

    >>> halves(5, 4, seed=0).sum(axis=0).tolist()
    [2, 2, 2, 2, 2]
    """
    random = generator(seed, "audit", "halves")
    ranks = random.permuted(np.tile(np.arange(shadows), (count, 1)), axis=1).T
    return ranks < shadows // 2


def _refusal(subject: Subject) -> str:
    if subject.loop.trainer.personal:
        return f"{subject.rule} has no global network whose answers could tell."
    if not subject.data.excerpts("test"):
        return "The corpus has no test part, and so nobody who was not learnt from."
    return ""
