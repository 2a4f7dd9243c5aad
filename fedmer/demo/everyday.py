"""What the first model is asked about in the end: sentences that a person wrote.

They were written after the patterns of :mod:`fedmer.demo.phrases` were settled, and these were not
changed by how the model names them.
"""

from collections.abc import Mapping, Sequence

EVERYDAY: Mapping[str, Sequence[str]] = {
    "neutral": (
        "I left the keys on the kitchen table.",
        "The lecture was moved to room twelve.",
        "Two tickets to the city centre, please.",
        "My appointment is on Thursday morning.",
        "She works for an insurance company.",
        "The second door on the right.",
        "You have to press the green button.",
        "I'll be there around half past six.",
        "We ordered the same printer as last year.",
        "Do you take milk in your tea?",
    ),
    "happy": (
        "I'm so glad you could come!",
        "She said yes, we are getting married in June!",
        "This is delicious, can I have some more?",
        "The kids had a great time at the zoo.",
        "I finally finished my thesis!",
        "It's wonderful to see you again.",
        "Best holiday of my life.",
        "You always make me laugh.",
        "They loved my idea!",
        "What a beautiful morning.",
    ),
    "sad": (
        "My father passed away last week.",
        "I feel so alone in this city.",
        "He doesn't love me any more.",
        "I wish things could be like they were before.",
        "We had to sell the house I grew up in.",
        "I haven't heard from my son in years.",
        "It was all for nothing.",
        "She was my best friend, and now she is gone.",
        "I didn't get the part, they didn't even call.",
        "I just can't stop crying.",
    ),
    "angry": (
        "Are you kidding me? I told you not to touch it!",
        "You ruined everything.",
        "I've been waiting for two hours, this is a joke!",
        "Don't tell me to calm down!",
        "He stole my idea and took all the credit.",
        "I am so fed up with this company.",
        "Shut the door and get lost!",
        "You promised, and you lied again.",
        "What is your problem?",
        "Nobody asked for your opinion!",
    ),
    "surprised": (
        "Oh my God, is this for me?",
        "You're moving to Japan? When did that happen?",
        "Wow, look at the size of that thing!",
        "I thought you were in London!",
        "No! She really said that?",
        "You finished it already?",
        "I can't believe we won the lottery.",
        "What, he is your brother?",
        "That came out of nowhere.",
        "Well, I never would have guessed.",
    ),
    "afraid": (
        "Somebody is at the window.",
        "I don't want to go in there alone.",
        "What if they find out?",
        "Please drive slower, you are scaring me.",
        "I'm so nervous about tomorrow.",
        "There is a snake in the tent!",
        "She should have been home hours ago.",
        "I can't swim, don't let go of me!",
        "The lump has grown since last month.",
        "Stay behind me and don't make a sound.",
    ),
}
"""Emotion -> sentences that were meant to be of it, in the order of the model's emotions."""
