"""Several clients a person, until there are as many as asked for."""

import heapq
from collections.abc import Mapping, Sequence

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.errors import InputError
from fedmer.plugins.partitioners._assign import check_clients
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.seeds import generator


class VirtualSpeaker(Speaker):
    """Each speaker's dialogues lie on several devices, so that there are exactly N clients.

    It reconciles "a client is a speaker" with "20 clients" on IEMOCAP, whose training part has
    eight speakers: four get three devices, four get two. What a device holds of a dialogue is what
    :class:`Speaker` gives that person. Every speaker has a device; each further one goes to whoever
    has the most dialogues a device (ties by name). Which device a dialogue is on is random, how
    many are on each is even to within one.

    Args:
        clients: How many devices there are in all.

    Raises:
        InputError: ``clients`` is below 1.
    """

    def __init__(self, clients: int = 20) -> None:
        check_clients(clients)
        super().__init__()
        self.clients = clients

    def split(
        self, corpus: ConversationCorpus, dialogues: Sequence[int], seed: int
    ) -> list[ClientPartition]:
        """See :meth:`Partitioner.split`. Clients are in the order of speakers, then devices.

        Raises:
            InputError: Fewer clients than speakers with labelled training utterances, or more than
                there are pairs of a speaker and a dialogue.
        """
        people = self.by_person(corpus, dialogues)
        pairs = sum(len(samples) for samples in people.values())
        if not len(people) <= self.clients <= pairs:
            raise InputError(
                f"clients is {self.clients}, but {len(people)} speakers have labelled training "
                f"utterances, in {pairs} pairs of a speaker and a dialogue; "
                f"ask for {len(people)} to {pairs} clients."
            )
        devices = _devices(
            {person: len(samples) for person, samples in people.items()}, self.clients
        )
        clients = []
        for person, samples in sorted(people.items()):
            order = generator(seed, "partition", person).permutation(len(samples))
            for device in range(devices[person]):
                held = [samples[i] for i in sorted(order[device :: devices[person]])]
                clients.append(ClientPartition(f"{person} {device + 1}", held))
        return clients


def _devices(dialogues: Mapping[str, int], clients: int) -> dict[str, int]:
    """Person -> devices, at least one each and ``clients`` together.

    >>> _devices({"Ann": 30, "Ben": 20, "Eve": 1}, clients=6)
    {'Ann': 3, 'Ben': 2, 'Eve': 1}
    """
    devices = dict.fromkeys(dialogues, 1)
    heap = [(-count / 1, person) for person, count in dialogues.items()]
    heapq.heapify(heap)
    for _ in range(clients - len(dialogues)):
        # A person with as many devices as dialogues has ratio 1, the least there is, so nobody
        # gets a device without a dialogue while another could still use it.
        _, person = heap[0]
        devices[person] += 1
        heapq.heapreplace(heap, (-dialogues[person] / devices[person], person))
    return devices
