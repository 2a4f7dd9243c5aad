import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.losses.prototype import class_sums


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
    classes=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_class_sums_are_those_of_a_loop(
    size: tuple[int, int, int], classes: int, share: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, generator=random)
    counted = torch.rand(size[:2], generator=random) < share
    labels = torch.randint(0, classes, size[:2], generator=random).masked_fill(~counted, -1)
    sums, counts = class_sums(embeddings, labels, counted, classes)
    expected, numbers = torch.zeros(classes, size[2]), [0] * classes
    for row, label in zip(embeddings.flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label != -1:
            expected[label] += row
            numbers[label] += 1
    torch.testing.assert_close(sums, expected)
    assert counts.tolist() == numbers
    assert counts.dtype == torch.int64
