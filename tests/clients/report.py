"""Result of a table of cases: failures, deviations that are known, counts."""

import sys


def report(version, cases, deviations, sometimes=()):
    """Each case: section, what the peer does, outcome, whether that is allowed, what is. Fails with each that is not and no known
    deviation, and with each deviation that is none any more. Those of `sometimes` depend on what comes first."""
    known = {case: (outcome, reason) for reason, outcome, of in deviations for case in of}
    varying = {case: (outcome, reason) for reason, outcome, of in sometimes for case in of}
    failures, deviating = [], {}
    for section, what, outcome, is_allowed, allowed in cases:
        expected, reason = known.pop((section, what), (None, None))
        if not is_allowed and not expected:
            expected, reason = varying.get((section, what), (None, None))
        if outcome == expected and not is_allowed:
            deviating.setdefault((reason, outcome), []).append(f"{section} {what}")
        elif expected:
            failures.append(f"{section}: {what}: {outcome}, and DEVIATIONS says {expected}: strike it there?")
        elif not is_allowed:
            failures.append(f"{section}: {what}: {outcome}, expected {allowed}")
    failures += [f"{section}: {what}: no such case, in DEVIATIONS" for section, what in known]
    if failures:
        sys.exit("\n".join(failures))
    sections = len({section for section, *_ in cases})
    print(version)
    for (reason, outcome), of in deviating.items():
        print(f"deviation: {outcome}, {reason}: {'; '.join(of)}")
    count = sum(map(len, deviating.values()))
    print(f"{len(cases)} cases of {sections} sections, {count} of which deviate in a way that is known")
