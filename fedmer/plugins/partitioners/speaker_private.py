"""A client for every person, who keeps nothing of the others."""

from fedmer.data.corpus import UNLABELLED, Conversation
from fedmer.data.partition import Sample
from fedmer.plugins.partitioners.speaker import Speaker


class SpeakerPrivate(Speaker):
    """Each speaker is a client that holds its own utterances only, as if alone.

    Beside :class:`Speaker` it measures what the partners' utterances are worth.

    Args:
        min_utterances: Speakers with fewer labelled training utterances get no client.
        keep_gaps: Do utterances keep their places in the dialogue, with gaps where a partner spoke,
            or close up?

    Raises:
        InputError: ``min_utterances`` is below 1.
    """

    def __init__(self, min_utterances: int = 1, keep_gaps: bool = False) -> None:
        super().__init__(min_utterances)
        self.keep_gaps = keep_gaps

    def sample(self, conversation: Conversation, dialogue: int, person: str) -> Sample:
        """What ``person`` holds of a dialogue: own utterances as context, own labels."""
        own = conversation.speakers == person
        labelled = own & (conversation.labels != UNLABELLED)
        return Sample(dialogue, own, labelled, listener=person, keep_gaps=self.keep_gaps)
