"""What the page says of each of its tables and figures, in plain text."""

from fedmer.report.differences import RESAMPLES
from fedmer.report.score_table import PERSONAL

SCORES = """
Scores on the test part in points: the mean over seeds, and below it the standard deviation
between them. The accuracy of an emotion is its recall. Bold is the best of a column among the
rows above the line. The baselines below it learn from all clients\u2019 turns at once and see one
turn at a time.
"""

PERSONAL_ROWS = f"""
{PERSONAL} marks rules that keep a network on every client: all clients\u2019 networks are scored
on the whole test part and their counts pooled, which is what a client drawn at random would get.
That is another question than how good one global network is.
"""

AUDIT = """
The sums agree: wherever the test turns of every emotion are known, the emotions\u2019 accuracies
and F1, weighted by these turns, give the overall ones.
"""

NO_DIFFERENCES = "There is no other row to compare."

CONVERGENCE = """
Weighted F1 after every round and the loss in it. Lines are means over seeds; bands reach one
standard deviation to both sides. The test part selected nothing.
"""

CONFUSION = """
Lines are the true emotion, columns what was said instead: percent of the true emotion\u2019s
turns, over all seeds together.
"""

CLIENTS = """
Weighted F1, in points, of the network that a client would use, on the dialogues that this client
kept back, after the last round. The table has means over seeds: of the mean over clients, of the
worst and the best client, and of the standard deviation between clients. The last three leave out
clients whose holdout has fewer than ten labelled turns, so that its score is mostly chance; the
last column counts them. In the figure a dot is a client under one seed and a bar the mean.
"""

NO_CLIENTS = "No client kept dialogues back to be scored on; --data.holdout 0.2 keeps some."

BYTES = """
What a real federation would send, without framing, over all clients and rounds (means over
seeds). In the figure a line is a row\u2019s path over the rounds, and its dot the round whose
scores are shown: up and to the left is better.
"""

WEIGHTS = """
How much each client counts in a round\u2019s mean. The effective number of clients is
1/\u03a3w\u00b2: the size of the cohort if all weigh the same, 1 if one has all the weight. Below,
one run of each row (the lowest seed): a line is a client, with the most labelled turns on top;
the darker, the heavier, and blank where it did not take part. Under a rule that averages nothing,
such as Local, nothing uses these weights.
"""

NO_WEIGHTS = "No run kept its clients.csv."

PROTOTYPES = """
The global prototype of every emotion after each round of one run (the lowest seed), on the two
principal components of all of them. Dots grow with the rounds and the name stands at the last.
Axes differ between figures. Emotions that lie together here may be apart in directions that two
dimensions do not show.
"""

NO_PROTOTYPES = "No run kept prototypes: its rule has none, or it is of an older fedmer."


def differences_to(baseline: str, seeds: int) -> str:
    """How to read the intervals.

    Args:
        baseline: Name of the row that the others are compared with.
        seeds: The most that a row has in common with it.
    """
    drawn = "whole test dialogues and of seeds" if seeds > 1 else "whole test dialogues"
    covers = (
        "and of these seeds, as far as so few can tell: with fewer than about ten it is too narrow"
        if seeds > 1
        else "and nothing of what another seed would change, since there is one"
    )
    return f"""
    Row minus {baseline}, in points, over the seeds that both have. The interval is the middle 95
    % of {RESAMPLES} resamples of {drawn}, the same for both sides. It covers the choice of these
    test dialogues {covers}. It says nothing of other corpora or other settings. A star marks an
    interval without zero; of rows that do not differ, one in twenty gets a star by chance.
    """
