"""Rows of memories: cold, stale, more than there are images, lost on the way in, or not there after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onca.audit.check import between, graded, percent, report
from onca.audit.finding import Finding
from onca.audit.interval import wilson
from onca.audit.rows import Memory

HALF = 0.5  # of the rows that should hold a key by now
QUEUE = "onca.Queue(size, dim): rows are absent until a key is there, and all of it is in state_dict()"


def memory_findings(memories: Sequence[Memory]) -> Iterator[Finding]:
    """What was followed, over all memories of a run."""
    memories = [memory for memory in memories if memory.rows]
    if not memories:
        yield Finding("memory", "fine", "there is no memory: all negatives are of the batch")
        return
    for look in (_cold, _unrestored, _stale, _long, _lost):
        yield look(memories)


def _cold(memories: Sequence[Memory]) -> Finding:
    known = [memory for memory in memories if memory.old is not None]
    if not known:
        return Finding("cold rows", "unknown", "rows have no age, and no image: nobody knows which are keys")
    cold, rows = sum(memory.cold for memory in known), sum(memory.rows for memory in known)
    late = any(memory.cold > HALF * memory.rows and memory.old and memory.old[2] > 0 for memory in known)
    said = f"{percent(cold / rows)} of the memory's {rows} rows hold no key{' after an epoch' if late else ' yet'}"
    why = "a memory fills in its first steps; until then there are fewer negatives, or random ones, which are easy"
    return report("cold rows", graded(late, cold > 0), said, cold / rows, rows, "rows", why=why, remedy=QUEUE)


def _unrestored(memories: Sequence[Memory]) -> Finding:
    known = [memory.missing for memory in memories if memory.missing is not None]
    if not known:
        return Finding("unrestored memory", "unknown", "too few steps are over to expect keys in the memory")
    warm, due, step = min(known, key=lambda missing: missing[0] / missing[1])
    said = f"before step {step} the memory held {warm} keys, and {due} or more had come in"
    why = "a run that goes on without its memory starts it anew: its loss falls and rises again, and no message says so"
    remedy = "save and load the whole of host.state_dict(); onca train --resume does"
    outcome = graded(warm < HALF * due, False)
    return report("unrestored memory", outcome, said, warm / due, due, "rows", why=why, remedy=remedy)


def _stale(memories: Sequence[Memory]) -> Finding:
    ages = [memory.old for memory in memories if memory.old is not None]
    if not ages:
        return Finding("stale rows", "unknown", "rows have no age")
    median, oldest, share = max(ages, key=lambda age: age[1])
    said = f"the memory's oldest row came in {oldest:.0f} steps ago, the one in the middle {median:.0f}"
    said += f"; {percent(share)} are older than an epoch" if share else ""
    why = "an old key was made by another encoder than today's: it is easier, or hard for no reason"
    remedy = "a shorter --queue; a --momentum nearer to 1"
    outcome = graded(False, share > 0)
    return report("stale rows", outcome, said, oldest, len(ages), "memories", why=why, remedy=remedy)


def _long(memories: Sequence[Memory]) -> Finding:
    sizes = [
        (memory.rows / memory.population, memory.rows, memory.population) for memory in memories if memory.population
    ]
    if not sizes:
        return Finding("long queue", "unknown", "nobody knows how many images there are")
    share, rows, images = max(sizes)
    said = f"a memory has {rows} rows for {images} images"
    why = "every image stands there, some several times, and the query's own too: what is masked is missing"
    remedy = f"--queue {max(1, images // 2)} or less"
    return report("long queue", graded(share > 1, False), said, share, images, "images", why=why, remedy=remedy)


def _lost(memories: Sequence[Memory]) -> Finding:
    came, lost = sum(memory.came for memory in memories), sum(memory.lost for memory in memories)
    if not came:
        return Finding("lost keys", "unknown", "needs two steps, one after the other: onca train --audit")
    if not any(memory.found or memory.old for memory in memories):
        said = "the memory does not change from call to call: in training, keys should come in"
        if any(memory.moved for memory in memories):
            said = "the memory's rows are none of the keys of the call before"
        return Finding("lost keys", "unknown", said)
    found = wilson(lost, came)
    said = f"all {came} keys that went into the memory were there at the next step"
    if lost:
        leaps = sum(memory.leaps for memory in memories)
        said = f"{between(found)} of the keys that went into the memory were not there at the next step ({leaps} steps)"
    why = "keys that do not fit the end of a memory are dropped: some images are never negatives of that lap"
    remedy = "onca.Queue(size, dim) takes any batch size; or make the memory a multiple of the batch"
    return report("lost keys", graded(lost > 0, False), said, found, came, "rows", why=why, remedy=remedy)
