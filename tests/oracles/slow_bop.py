"""Bop by loops over plain numbers, from its definition: no latent weights, flips by a threshold."""


def slow_bop(weights, gradients, gamma, tau, average=None):
    """Give the weights after each step, and the gradient averages.

    Args:
        weights: Numbers +1 or -1.
        gradients: For every step a number per weight: the derivative of the loss.
        gamma: Share of the newest gradient in the average.
        tau: A weight flips if the average is larger than this, and pushes against the weight.
        average: Where the averages start; by default at 0.

    Returns:
        Two lists with an entry per step: all weights, all averages.

    Source:
        Helwegen et al., NeurIPS 2019, Algorithm 1.
    """
    w, m = list(weights), [0.0] * len(weights) if average is None else list(average)
    all_weights, all_averages = [], []
    for gradient in gradients:
        for i in range(len(w)):
            m[i] = (1 - gamma) * m[i] + gamma * gradient[i]
            is_same_sign = (m[i] > 0 and w[i] > 0) or (m[i] < 0 and w[i] < 0)
            if abs(m[i]) > tau and is_same_sign:
                w[i] = -w[i]
        all_weights.append(list(w))
        all_averages.append(list(m))
    return all_weights, all_averages
