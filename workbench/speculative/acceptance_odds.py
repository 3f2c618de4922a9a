"""How likely each draft position is to be proposed, and to be right: running rates that follow the text."""

from __future__ import annotations

MEMORY = 0.97  # what a step's observations count for after the next one: a window of about 33 steps
FADING = 0.98  # what they count for after a step that had nothing to say about the position
FADED = 2.0  # so few observations are never forgotten


class RunningRate:
    """Per position, the share of trials that succeeded: recent steps count most.

    Where nothing is observed the rate stays, but it comes to rest on fewer and fewer observations, so that the next ones can turn it.
    """

    def __init__(self, num_positions: int, start: float) -> None:
        self._rates = [start] * num_positions
        self._weights = [0.0] * num_positions

    def copy(self) -> RunningRate:
        """An independent copy."""
        twin = RunningRate(0, 0.0)
        twin._rates, twin._weights = list(self._rates), list(self._weights)
        return twin

    def learn(self, position: int, successes: int, trials: int) -> None:
        """Note one step's trials at a position, counted from 0."""
        weight = self._weights[position]
        if not trials:
            self._weights[position] = max(FADING * weight, min(weight, FADED))
            return
        weight *= MEMORY
        self._weights[position] = weight + trials
        self._rates[position] = (self._rates[position] * weight + successes) / (weight + trials)

    def rates(self, prior: float) -> list[tuple[float, float]]:
        """Per position the rate, and the rate to be hoped for: as if one more trial succeeded.

        ``prior`` counts as one observation of the first position, and each position's rate as one of the next's.

        >>> rate = RunningRate(2, 0.0)
        >>> rate.learn(0, 3, 3)
        >>> rate.rates(0.5)
        [(0.875, 0.9), (0.875, 0.9375)]
        """
        found = []
        for rate, weight in zip(self._rates, self._weights, strict=True):
            prior = (rate * weight + prior) / (weight + 1.0)
            found.append((prior, (prior * (weight + 1.0) + 1.0) / (weight + 2.0)))
        return found


class AcceptanceOdds:
    """What asking for K drafts brings: how many will be proposed, and how many of those will be right.

    Two rates per position: of being proposed when it was asked for (a look-up often finds nothing), and of being right when all drafts
    before it were (the conditional acceptance rate).
    """

    def __init__(self, max_drafts: int) -> None:
        self._offered = RunningRate(max_drafts, 1.0)
        self._accepted = RunningRate(max_drafts, 0.5)
        self._max_drafts = max_drafts

    def copy(self) -> AcceptanceOdds:
        """An independent copy."""
        twin = AcceptanceOdds(0)
        twin._offered, twin._accepted, twin._max_drafts = self._offered.copy(), self._accepted.copy(), self._max_drafts
        return twin

    def learn_offers(self, asked: int, num_requests: int, lengths: list[int]) -> None:
        """Note a proposer's answer: of ``num_requests`` requests asked for ``asked`` drafts, these got drafts of these lengths."""
        for position in range(self._max_drafts):
            trials = num_requests if position < asked else 0
            lengths = [length for length in lengths if length > position]
            self._offered.learn(position, min(trials, len(lengths)), trials)

    def learn_rounds(self, rounds: list[tuple[int, int]]) -> None:
        """Note a step's verifications, as pairs of proposed and accepted drafts; without any, what is known fades."""
        for position in range(self._max_drafts):
            reached = sum(proposed > position for proposed, _ in rounds) if rounds else 0
            rounds = [one for one in rounds if one[1] > position]
            self._accepted.learn(position, len(rounds), reached)

    def expect(self) -> list[tuple[float, float, float]]:
        """For 0, 1, 2, … drafts asked for: the drafts to be verified, the tokens to come out, and the tokens at best, per request."""
        expected = [(0.0, 1.0, 1.0)]
        drafts, tokens, hoped = expected[0]
        offered = right = hoped_right = 1.0
        for (offer, hoped_offer), (accept, hoped_accept) in zip(self._offered.rates(1.0), self._accepted.rates(0.5), strict=True):
            offered, right, hoped_right = min(offered, offer), right * accept, hoped_right * hoped_accept
            drafts += offered
            tokens += offered * right
            hoped += hoped_offer * hoped_right
            expected.append((drafts, tokens, hoped))
        return expected
