"""The conditions of a simulation: whom they hold for, and their order."""

from collections.abc import Sequence
from dataclasses import replace

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.missing import modalities_in, restricted
from fedmer.errors import NotFiniteError
from fedmer.messages import Broadcast, Summary, Update
from fedmer.seeds import derive
from fedmer.weights import laid_out_as, not_finite


class ClientConditions:
    """Conditions and the clients that they hold for. False if there are none.

    Args:
        conditions: None, one or several, in their order.
        clients: How many clients there are.
        classes: How many emotions there are.
        seed: The run's.
    """

    def __init__(
        self,
        conditions: Condition | Sequence[Condition] | None = None,
        clients: int = 0,
        classes: int = 0,
        seed: int = 0,
    ) -> None:
        if conditions is None:
            conditions = ()
        listed = conditions if isinstance(conditions, Sequence) else (conditions,)
        self.conditions = [(one, one.chosen(clients, seed)) for one in listed]
        """Each with the ids of the clients that it holds for."""
        self._clients, self._classes, self._seed = clients, classes, seed

    def __bool__(self) -> bool:
        return bool(self.conditions)

    def of(self, client: int) -> list[str]:
        """The names of the conditions that hold for a client."""
        return [type(one).__name__ for one, among in self.conditions if client in among]

    @property
    def at_test(self) -> list[str]:
        """The names of the conditions that change what is tested on."""
        kinds = [type(one) for one, _ in self.conditions]
        return [kind.__name__ for kind in kinds if kind.on_test is not Condition.on_test]

    def data(self, client: int, data: ClientData) -> ClientData:
        """What a client trains on; what it keeps back is as it was.

        Of that, too, it has no modality that it lacks altogether where it trains.

        Raises:
            InputError: A condition cannot hold for it.
        """
        found = replace(data, holdout=())
        for place, (condition, among) in enumerate(self.conditions):
            if client in among:
                found = condition.on_data(found, self._context(client, place, among, "data"))
        holdout, left = data.holdout, modalities_in(found.train)
        if left != modalities_in(data.train):
            holdout = restricted(holdout, left)
        return ClientData(data.name, found.train, holdout)

    def tested(self, excerpts: Sequence[Excerpt]) -> list[Excerpt]:
        """What a network is tested on.

        Args:
            excerpts: The test part.

        Raises:
            InputError: A condition cannot hold for it.
        """
        found: Sequence[Excerpt] = list(excerpts)
        for place, (condition, _) in enumerate(self.conditions):
            found = condition.on_test(found, derive(self._seed, "condition", place, "test"))
        # Nobody is scored by other labels, or on fewer utterances.
        return [
            replace(before, features=after.features, present=after.present)
            for before, after in zip(excerpts, found, strict=True)
        ]

    def sent(
        self, summary: Summary, update: Update | None, received: Broadcast
    ) -> tuple[Summary, Update | None]:
        """What a client sends.

        Raises:
            NotFiniteError: It holds NaN or infinity, which no server takes from a client.
        """
        client = summary.client
        for place, (condition, among) in enumerate(self.conditions):
            if client not in among:
                continue
            context = self._context(client, place, among, received.round)
            summary, made = condition.on_sent(summary, update, received, context)
            update = laid_out_as(update, made)
        for what, named in (("summary", summary.tensors), ("update", update and update.weights)):
            name = not_finite(named or {})
            if name:
                raise NotFiniteError(f"its {what} holds NaN or infinity, first in '{name}'")
        return summary, update

    def _context(
        self, client: int, place: int, among: Sequence[int], when: int | str
    ) -> ConditionContext:
        purpose = ("condition", place, when)
        return ConditionContext(
            client=client,
            among=among,
            clients=self._clients,
            classes=self._classes,
            seed=derive(self._seed, *purpose, client),
            common=derive(self._seed, *purpose),
        )
