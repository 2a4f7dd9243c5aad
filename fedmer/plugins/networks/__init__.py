"""Networks that read a batch of dialogues and name the emotion of every utterance."""
