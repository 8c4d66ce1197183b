"""Compiled bodies of the two-hop kernel; see ``nextedge.graph.two_hop`` for what they mean.

``sums`` holds rows of (common neighbours, Adamic-Adar, resource allocation, unused): first
one for each middle of the running query, what it adds to a candidate; then, from
``spare_row`` on, one for each candidate that was met more than once or asked for by name.
One uint32 a candidate, ``code_N``, names its row, as an offset to ``base``:

    code ≤ base                       not met in this query
    base < code < base + spare_row    met once, through the middle with that row
    base + spare_row ≤ code           has that row of sums

``base`` grows from query to query, so that nothing is ever cleared. A wedge costs one load,
one store and a compare, like a loop that only counts. Candidates with sums are few, and their
rows lie side by side. Row ``spare_row`` belongs to everyone who must not be recommended.

Sums are float64, added in ascending order of the middle whatever the path and the number of
threads: the same pair always has the same scores, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

_JACCARD = 3  # scores before it are sums; those from it on need degrees
_LAST_CODE = np.uint64(0xFFFF_FFFF)
_LOW = np.uint64(0xFFFF_FFFF)
_HIGH = np.uint64(32)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_NO_CAP = np.iinfo(np.int64).max
_BUCKETS = np.uint64(256)
_LINE = 16  # int32 entries of one cache line


@intrinsic
def _prefetch(_context: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line that holds ``array[place]``; a hint, safe past the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(hint, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def _float_bits(_context: Any, _value: Any) -> Any:
    """The bits of a float32, which order like the number when it is not negative."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@njit(cache=True, nogil=True)
def _open(last_code, degree, candidates, code_N):  # type: ignore[no-untyped-def]
    """Base of a query's codes, after wiping the table in the rare case that they run out."""
    if last_code[0] + np.uint64(degree + candidates + 4) > _LAST_CODE:
        code_N[:] = 0
        last_code[0] = 0
    return last_code[0]


@njit(cache=True, nogil=True)
def _weigh(degree, log_shift, sums, row):  # type: ignore[no-untyped-def]
    """Write what a middle of this degree adds to each candidate behind it."""
    sums[row, 0] = 1.0
    sums[row, 1] = 1.0 / np.log(degree + log_shift)
    sums[row, 2] = 1.0 / degree
    sums[row, 3] = 0.0


@njit(cache=True, nogil=True)
def _walk(  # type: ignore[no-untyped-def]
    f_indptr,
    f_indices,
    b_indptr,
    b_indices,
    query,
    cap,
    log_shift,
    base,
    least_code,
    spare_row,
    end_row,
    code_N,
    met,
    sums,
    owner,
):
    """Walk the wedges of a query; candidates coded ``least_code`` or more get sums.

    Returns the end of the rows in use.
    """
    first, last = f_indptr[query], f_indptr[query + 1]
    row = _ZERO
    for place in range(first, last):
        ahead = b_indptr[np.uint32(f_indices[min(place + 2, last - 1)])]
        for line in range(4):
            _prefetch(b_indices, ahead + line * _LINE)
        middle = np.uint32(f_indices[place])
        begin, end = b_indptr[middle], b_indptr[middle + 1]
        degree = end - begin
        if degree < 2 or degree > cap:
            continue  # nobody else is behind a middle of degree one
        row += _ONE
        _weigh(degree, log_shift, sums, row)
        row_code = np.uint32(base + row)
        again = _ZERO
        for entry in range(begin, end):
            target = np.uint32(b_indices[entry])
            code = code_N[target]
            known = code >= least_code
            code_N[target] = code if known else row_code
            met[again] = target
            again += np.uint64(known)  # no branch: else the next one overwrites it
        end_row = _add(met, again, row, base, spare_row, end_row, code_N, sums, owner)
    return end_row


@njit(cache=True, nogil=True, inline="always")
def _add(met, count, row, base, spare_row, end_row, code_N, sums, owner):  # type: ignore[no-untyped-def]
    """Add one middle to the sums of the ``count`` candidates in ``met``.

    A candidate met for the second time starts from the row of the middle that met it first.
    """
    gain_0, gain_1, gain_2, gain_3 = sums[row, 0], sums[row, 1], sums[row, 2], sums[row, 3]
    for place in range(count):
        target = met[place]
        source = np.uint64(code_N[target]) - base
        fresh = source < spare_row
        own_row = end_row if fresh else source
        end_row += np.uint64(fresh)
        code_N[target] = np.uint32(base + own_row)
        owner[own_row] = target
        sum_0, sum_1 = sums[source, 0] + gain_0, sums[source, 1] + gain_1
        sum_2, sum_3 = sums[source, 2] + gain_2, sums[source, 3] + gain_3
        sums[own_row, 0], sums[own_row, 1] = sum_0, sum_1  # four at once: one vector
        sums[own_row, 2], sums[own_row, 3] = sum_2, sum_3
    return end_row


@njit(cache=True, nogil=True)
def _add_singles(  # type: ignore[no-untyped-def]
    f_indptr,
    f_indices,
    b_indptr,
    b_indices,
    query,
    cap,
    which,
    n,
    base,
    spare_row,
    end_row,
    code_N,
    sums,
    owner,
):
    """Give sums to candidates met once, as far as they can be among the n best.

    Those behind one middle share its weight, so middles are taken by ascending degree until
    n candidates are known to score more.
    """
    first, last = f_indptr[query], f_indptr[query + 1]
    middles, degrees = np.empty(last - first, np.int64), np.empty(last - first, np.int64)
    walked = 0
    for entry in range(first, last):
        middle = np.uint32(f_indices[entry])
        degree = b_indptr[middle + 1] - b_indptr[middle]
        if 2 <= degree <= cap:
            middles[walked], degrees[walked] = middle, degree
            walked += 1
    order = np.argsort(degrees[:walked], kind="mergesort")
    for place in order:
        row = place + 1
        if which < _JACCARD and _better(sums, spare_row, end_row, which, sums[row, which]) >= n:
            break
        row_code = base + np.uint64(row)
        for entry in range(b_indptr[middles[place]], b_indptr[middles[place] + 1]):
            target = np.uint32(b_indices[entry])
            if code_N[target] == row_code:
                code_N[target] = np.uint32(base + end_row)
                owner[end_row] = target
                for column in range(4):
                    sums[end_row, column] = sums[row, column]
                end_row += _ONE
    return end_row


@njit(cache=True, nogil=True)
def _better(sums, spare_row, end_row, which, score):  # type: ignore[no-untyped-def]
    """How many candidates with sums are shown a higher score."""
    count = 0
    for row in range(spare_row + _ONE, end_row):
        if np.float32(sums[row, which]) > np.float32(score):
            count += 1
    return count


@njit(cache=True, nogil=True)
def _rank(  # type: ignore[no-untyped-def]
    sums, owner, spare_row, end_row, f_indptr, own, which, least, n, key, start
):
    """Keys of the n best, best first: ~float32 bits of the score, then the id.

    Returns where in ``key`` they begin and how many they are. The float32 that is given out
    is what ranks, so that equal shown scores are ties.
    """
    count = 0
    lowest, highest = _LAST_CODE, _ZERO
    for row in range(spare_row + _ONE, end_row):
        common, score = sums[row, 0], sums[row, min(which, _JACCARD - 1)]
        if common < least:
            continue
        target = np.uint64(owner[row])
        if which >= _JACCARD:
            other = float(f_indptr[target + _ONE] - f_indptr[target])
            score = common / (own + other - common) if which == _JACCARD else own * other
        bits = np.uint64(~_float_bits(np.float32(score)))
        lowest, highest = min(lowest, bits), max(highest, bits)
        key[count] = (bits << _HIGH) | target
        count += 1
    if count < 2:
        return 0, min(count, n)
    shift = _ZERO
    while (highest - lowest) >> shift >= _BUCKETS:
        shift += _ONE
    return count, _sort_buckets(key, count, n, lowest, shift, start)


@njit(cache=True, nogil=True)
def _sort_buckets(key, count, n, lowest, shift, start):  # type: ignore[no-untyped-def]
    """Write the n least of ``key[:count]`` in order behind it; returns how many they are.

    One counting pass over equal slices of the range, then a sort within each slice; slices
    that lie wholly behind the n-th key are left out.
    """
    start[:] = 0
    for place in range(count):
        start[((key[place] >> _HIGH) - lowest >> shift) + _ONE] += 1
    wanted = 0
    for bucket in range(len(start) - 1):
        start[bucket + 1] += start[bucket]
        if start[bucket] < n:
            wanted = bucket + 1
    for place in range(count):
        bucket = (key[place] >> _HIGH) - lowest >> shift
        if bucket < wanted:
            key[count + start[bucket]] = key[place]
            start[bucket] += 1
    begin = 0
    for bucket in range(wanted):  # start has moved to the end of each bucket
        _sort(key[count + begin : count + start[bucket]])
        begin = start[bucket]
    return min(n, begin)


@njit(cache=True, nogil=True)
def _sort(key):  # type: ignore[no-untyped-def]
    if len(key) > 24:
        key.sort()
        return
    for place in range(1, len(key)):
        moved, hole = key[place], place
        while hole > 0 and key[hole - 1] > moved:
            key[hole] = key[hole - 1]
            hole -= 1
        key[hole] = moved


@njit(cache=True, nogil=True)
def _fill(sums, row, own, other, column, place):  # type: ignore[no-untyped-def]
    """Write the five scores of one pair."""
    common = sums[row, 0]
    column[0, place] = common
    column[1, place] = sums[row, 1]
    column[2, place] = sums[row, 2]
    column[3, place] = common / (own + other - common) if common > 0 else 0.0
    column[4, place] = own * other


@njit(cache=True, nogil=True)
def top_block(  # type: ignore[no-untyped-def]
    f_indptr,
    f_indices,
    b_indptr,
    b_indices,
    x_indptr,
    x_indices,
    query_Q,
    n,
    which,
    least,
    cap,
    log_shift,
    last_code,
    code_N,
    met,
    key,
    sums,
    owner,
    size_Q,
    candidate,
    column,
):
    """Top candidates of a block of queries, one after the other; returns how many in all."""
    written = 0
    start = np.empty(_BUCKETS + _ONE, np.int64)
    for q in range(len(query_Q)):
        query = query_Q[q]
        if query < 0:
            continue
        own = f_indptr[query + 1] - f_indptr[query]
        base = _open(last_code, own, len(f_indptr), code_N)
        spare_row = np.uint64(own) + _ONE
        code_N[query] = np.uint32(base + spare_row)
        for place in range(x_indptr[query], x_indptr[query + 1]):
            code_N[np.uint32(x_indices[place])] = np.uint32(base + spare_row)
        end_row = _walk(
            f_indptr,
            f_indices,
            b_indptr,
            b_indices,
            query,
            cap,
            log_shift,
            base,
            np.uint32(base + _ONE),
            spare_row,
            spare_row + _ONE,
            code_N,
            met,
            sums,
            owner,
        )
        if least < 2:
            end_row = _add_singles(
                f_indptr,
                f_indices,
                b_indptr,
                b_indices,
                query,
                cap,
                which,
                n,
                base,
                spare_row,
                end_row,
                code_N,
                sums,
                owner,
            )
        begin, size_Q[q] = _rank(
            sums, owner, spare_row, end_row, f_indptr, float(own), which, least, n, key, start
        )
        for place in range(begin, begin + size_Q[q]):
            target = key[place] & _LOW
            other = f_indptr[target + _ONE] - f_indptr[target]
            candidate[written] = target
            row = np.uint64(code_N[target]) - base
            _fill(sums, row, float(own), float(other), column, written)
            written += 1
        last_code[0] = base + end_row
    return written


@njit(cache=True, nogil=True)
def _mark(f_indptr, f_indices, b_indptr, query, log_shift, base, code_N, sums):  # type: ignore[no-untyped-def]
    """Code the query's middles by their row, for ``_scan``."""
    for place in range(f_indptr[query], f_indptr[query + 1]):
        middle = np.uint32(f_indices[place])
        row = np.uint64(place - f_indptr[query] + 1)
        degree = max(b_indptr[middle + 1] - b_indptr[middle], 2)  # of degree one: never met
        _weigh(degree, log_shift, sums, row)
        code_N[middle] = np.uint32(base + row)


@njit(cache=True, nogil=True)
def _scan(f_indptr, f_indices, candidate, base, code_N, sums, own_row):  # type: ignore[no-untyped-def]
    """Sums of one pair from the candidate's own row, the query's middles being coded."""
    sums[own_row, :] = 0.0
    for place in range(f_indptr[candidate], f_indptr[candidate + 1]):
        code = np.uint64(code_N[np.uint32(f_indices[place])])
        if code > base:
            for column in range(3):
                sums[own_row, column] += sums[code - base, column]


@njit(cache=True, nogil=True)
def _reserve(query, candidate_R, begin, end, base, spare_row, code_N, sums):  # type: ignore[no-untyped-def]
    """Give every asked candidate a row of zeros (a repeated one shares it)."""
    end_row = spare_row + _ONE
    code_N[query] = np.uint32(base + spare_row)
    for place in range(begin, end):
        target = candidate_R[place]
        if target >= 0 and np.uint64(code_N[target]) < base + spare_row:
            code_N[target] = np.uint32(base + end_row)
            sums[end_row, :] = 0.0
            end_row += _ONE
    return end_row


@njit(cache=True, nogil=True)
def _scanning_is_cheaper(f_indptr, b_indptr, f_indices, query, candidate_R, begin, end):  # type: ignore[no-untyped-def]
    """Whether the candidates' rows are shorter than the query's wedges are many."""
    scan = 0
    for row in range(begin, end):
        target = candidate_R[row]
        if target >= 0:
            scan += f_indptr[target + 1] - f_indptr[target]
    walk = 0
    for place in range(f_indptr[query], f_indptr[query + 1]):
        middle = np.uint32(f_indices[place])
        walk += b_indptr[middle + 1] - b_indptr[middle]
        if walk >= scan:
            return True
    return False


@njit(cache=True, nogil=True)
def _connected(indptr, indices, row, target):  # type: ignore[no-untyped-def]
    begin, end = indptr[row], indptr[row + 1]
    while begin < end:
        middle = (begin + end) // 2
        if indices[middle] < target:
            begin = middle + 1
        else:
            end = middle
    return begin < indptr[row + 1] and indices[begin] == target


@njit(cache=True, nogil=True)
def pair_block(  # type: ignore[no-untyped-def]
    f_indptr,
    f_indices,
    b_indptr,
    b_indices,
    query_Q,
    pair_indptr,
    candidate_R,
    exclude_edge,
    log_shift,
    last_code,
    code_N,
    met,
    _key,
    sums,
    owner,
    column,
):
    """Scores of the given pairs of a block of queries; ``pair_indptr`` has one entry more."""
    for q in range(len(query_Q)):
        query, begin, end = query_Q[q], pair_indptr[q], pair_indptr[q + 1]
        if query < 0 or begin == end:
            continue
        own = f_indptr[query + 1] - f_indptr[query]
        base = _open(last_code, own, len(f_indptr), code_N)
        spare_row = np.uint64(own) + _ONE
        end_row = spare_row + _ONE
        scans = _scanning_is_cheaper(f_indptr, b_indptr, f_indices, query, candidate_R, begin, end)
        if scans:
            _mark(f_indptr, f_indices, b_indptr, query, log_shift, base, code_N, sums)
        else:
            end_row = _reserve(query, candidate_R, begin, end, base, spare_row, code_N, sums)
            _walk(
                f_indptr,
                f_indices,
                b_indptr,
                b_indices,
                query,
                _NO_CAP,
                log_shift,
                base,
                np.uint32(base + spare_row),
                spare_row,
                end_row,
                code_N,
                met,
                sums,
                owner,
            )
        for place in range(begin, end):
            target, row = candidate_R[place], spare_row
            if target < 0:
                continue
            if target == query:
                sums[row, :] = 0.0
            elif scans:
                _scan(f_indptr, f_indices, target, base, code_N, sums, row)
            else:
                row = np.uint64(code_N[target]) - base
            other = f_indptr[target + 1] - f_indptr[target]
            gone = exclude_edge and _connected(f_indptr, f_indices, query, target)
            _fill(sums, row, float(own - gone), float(other - gone), column, place)
        last_code[0] = base + end_row
