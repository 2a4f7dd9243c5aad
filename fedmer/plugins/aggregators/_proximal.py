"""A pull towards the weights that a client received."""

from fedmer.contracts.aggregator import ClientRound


def pull(context: ClientRound, strength: float) -> None:
    r"""Add the gradient of :math:`\frac{s}{2} \lVert v - w^t \rVert^2`, which is exact.

    Args:
        context: The network in training is :math:`v`, what it received :math:`w^t`. Parameters
            without a gradient, or that did not travel, stay as they are.
        strength: :math:`s`, 0 or more; at 0 no gradient changes by a bit.
    """
    if strength == 0 or context.received.weights is None:
        return
    for name, parameter in context.client.network.named_parameters():
        if parameter.grad is not None and name in context.received.weights:
            start = context.received.weights[name].to(parameter.device)
            parameter.grad.add_(parameter.detach() - start, alpha=strength)
