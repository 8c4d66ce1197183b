"""Compiled bodies of the two-hop kernel; ``nextedge.graph.two_hop`` defines the scores.

``sums`` has rows of (common neighbours, Adamic-Adar, resource allocation, unused): first one for
each middle of the running query, which it adds to a candidate; then, from ``spare_row`` on, one for
each candidate that the kernel met more than once or that the caller listed. One uint32 a candidate,
``code_N``, names its row, as an offset to ``base``:

    code ≤ base                       not met in this query
    base < code < base + spare_row    met once, through the middle with that row
    base + spare_row ≤ code           has that row of sums

``base`` grows from query to query. A wedge costs one load, one store and a compare, like a loop that
only counts. Candidates with sums are few, and their rows lie side by side. All candidates that must
not be recommended share the row ``spare_row``.

Sums are float64, added in ascending order of the middle whatever the path and the number of
threads: the same pair always has the same scores, bit for bit.

``forward`` and ``backward`` are (indptr, indices); ``workspace`` is that of ``two_hop._workspace``:
last code, ``code_N``, ``met``, ``key``, ``sums`` and ``owner``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from nextedge.graph.assemble import sort_keys

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
def _prefetch(_context: Any, array: Any, entry: Any) -> Any:
    """Ask for the cache line of ``array[entry]``; a hint, safe past the end."""

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
def _walk(forward, backward, query, settings, base, least_code, spare_row, end_row, workspace):  # type: ignore[no-untyped-def]
    """Walk the wedges of a query; candidates coded ``least_code`` or more get sums.

    Returns the end of the rows in use.
    """
    f_indptr, f_indices = forward
    b_indptr, b_indices = backward
    cap, log_shift = settings
    _, code_N, met, _, sums, owner = workspace
    first, last = f_indptr[query], f_indptr[query + 1]
    row = _ZERO
    for entry in range(first, last):
        # Prefetch the row of a later middle, so that the walk does not wait for memory.
        ahead = b_indptr[np.uint32(f_indices[min(entry + 2, last - 1)])]
        for line in range(4):
            _prefetch(b_indices, ahead + line * _LINE)
        middle = np.uint32(f_indices[entry])
        begin, end = b_indptr[middle], b_indptr[middle + 1]
        degree = end - begin
        if degree < 2 or degree > cap:
            continue  # a middle of degree one leads to the query alone
        row += _ONE
        _weigh(degree, log_shift, sums, row)
        row_code = np.uint32(base + row)
        again = _ZERO
        for wedge in range(begin, end):
            target = np.uint32(b_indices[wedge])
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
    for position in range(count):
        target = met[position]
        source = np.uint64(code_N[target]) - base
        is_new = source < spare_row
        target_row = end_row if is_new else source
        end_row += np.uint64(is_new)
        code_N[target] = np.uint32(base + target_row)
        owner[target_row] = target
        sum_0, sum_1 = sums[source, 0] + gain_0, sums[source, 1] + gain_1
        sum_2, sum_3 = sums[source, 2] + gain_2, sums[source, 3] + gain_3
        # Four values of a row at once are one vector instruction.
        sums[target_row, 0], sums[target_row, 1] = sum_0, sum_1
        sums[target_row, 2], sums[target_row, 3] = sum_2, sum_3
    return end_row


@njit(cache=True, nogil=True)
def _add_singles(  # type: ignore[no-untyped-def]
    forward, backward, query, cap, which, n, base, spare_row, end_row, workspace
):
    """Give sums to candidates met once, as far as they can be among the n best."""
    f_indptr, f_indices = forward
    b_indptr, b_indices = backward
    _, code_N, _, _, sums, owner = workspace
    first, last = f_indptr[query], f_indptr[query + 1]
    middles, degrees = np.empty(last - first, np.int64), np.empty(last - first, np.int64)
    walked = 0
    for entry in range(first, last):
        middle = np.uint32(f_indices[entry])
        degree = b_indptr[middle + 1] - b_indptr[middle]
        if 2 <= degree <= cap:
            middles[walked], degrees[walked] = middle, degree
            walked += 1
    # One middle's candidates share its weight: small degrees first, so that n better ones end it.
    order = np.argsort(degrees[:walked], kind="mergesort")
    for number in order:
        row = number + 1
        # Scores of degrees differ behind one middle, which therefore bounds none of them.
        if which < _JACCARD and _better(sums, spare_row, end_row, which, sums[row, which]) >= n:
            break
        row_code = base + np.uint64(row)
        for entry in range(b_indptr[middles[number]], b_indptr[middles[number] + 1]):
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
    """Number of candidates with sums whose float32 score is higher."""
    count = 0
    for row in range(spare_row + _ONE, end_row):
        if np.float32(sums[row, which]) > np.float32(score):
            count += 1
    return count


@njit(cache=True, nogil=True)
def _rank(  # type: ignore[no-untyped-def]
    sums, owner, spare_row, end_row, f_indptr, degree, which, least, n, key, start
):
    """Keys of the n best, best first: ~float32 bits of the score, then the id.

    Returns the position of the first in ``key`` and their number.
    """
    # The float32 of the answer decides the order, so that equal scores in it are ties.
    count = 0
    lowest, highest = _LAST_CODE, _ZERO
    for row in range(spare_row + _ONE, end_row):
        common, score = sums[row, 0], sums[row, min(which, _JACCARD - 1)]
        if common < least:
            continue
        target = np.uint64(owner[row])
        if which >= _JACCARD:
            other = float(f_indptr[target + _ONE] - f_indptr[target])
            score = common / (degree + other - common) if which == _JACCARD else degree * other
        # inverted: ascending keys put the best first
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
    """Write the n least of ``key[:count]`` in order behind it; returns their number.

    One counting pass over equal slices of the range, then a sort within each slice, without the
    slices that lie wholly behind the n-th key.
    """
    start[:] = 0
    for position in range(count):
        start[((key[position] >> _HIGH) - lowest >> shift) + _ONE] += 1
    wanted = 0
    for bucket in range(len(start) - 1):
        start[bucket + 1] += start[bucket]
        if start[bucket] < n:
            wanted = bucket + 1
    for position in range(count):
        bucket = (key[position] >> _HIGH) - lowest >> shift
        if bucket < wanted:
            key[count + start[bucket]] = key[position]
            start[bucket] += 1
    begin = 0
    for bucket in range(wanted):  # start has moved to the end of each bucket
        sort_keys(key[count + begin : count + start[bucket]])
        begin = start[bucket]
    return min(n, begin)


@njit(cache=True, nogil=True)
def _fill(sums, row, degree, other, column, pair):  # type: ignore[no-untyped-def]
    """Write the five scores of one pair."""
    common = sums[row, 0]
    column[0, pair] = common
    column[1, pair] = sums[row, 1]
    column[2, pair] = sums[row, 2]
    column[3, pair] = common / (degree + other - common) if common > 0 else 0.0
    column[4, pair] = degree * other


@njit(cache=True, nogil=True)
def top_block(  # type: ignore[no-untyped-def]
    forward, backward, exclude, query_Q, n, which, least, settings, workspace, size_Q, out
):
    """Write the top candidates of a block of queries, one after the other; returns their number.

    ``settings`` is (hub cap, shift of the degree in the logarithm); ``out`` is candidates and
    their scores by column.
    """
    f_indptr = forward[0]
    x_indptr, x_indices = exclude
    last_code, code_N, _, key, sums, owner = workspace
    candidate, column = out
    written = 0
    start = np.empty(_BUCKETS + _ONE, np.int64)
    for q in range(len(query_Q)):
        query = query_Q[q]
        if query < 0:
            continue
        degree = f_indptr[query + 1] - f_indptr[query]
        base = _open(last_code, degree, len(f_indptr), code_N)
        spare_row = np.uint64(degree) + _ONE
        code_N[query] = np.uint32(base + spare_row)
        for entry in range(x_indptr[query], x_indptr[query + 1]):
            code_N[np.uint32(x_indices[entry])] = np.uint32(base + spare_row)
        least_code = np.uint32(base + _ONE)
        end_row = spare_row + _ONE
        end_row = _walk(
            forward, backward, query, settings, base, least_code, spare_row, end_row, workspace
        )
        if least < 2:
            end_row = _add_singles(
                forward, backward, query, settings[0], which, n, base, spare_row, end_row, workspace
            )
        begin, size_Q[q] = _rank(
            sums, owner, spare_row, end_row, f_indptr, float(degree), which, least, n, key, start
        )
        for position in range(begin, begin + size_Q[q]):
            target = key[position] & _LOW
            other = f_indptr[target + _ONE] - f_indptr[target]
            candidate[written] = target
            row = np.uint64(code_N[target]) - base
            _fill(sums, row, float(degree), float(other), column, written)
            written += 1
        last_code[0] = base + end_row  # the next query's codes begin above: nothing is cleared
    return written


@njit(cache=True, nogil=True)
def _mark(forward, b_indptr, query, log_shift, base, code_N, sums):  # type: ignore[no-untyped-def]
    """Code the middles of the query by their row, for ``_scan``."""
    f_indptr, f_indices = forward
    for entry in range(f_indptr[query], f_indptr[query + 1]):
        middle = np.uint32(f_indices[entry])
        row = np.uint64(entry - f_indptr[query] + 1)
        degree = max(b_indptr[middle + 1] - b_indptr[middle], 2)  # of degree one: never met
        _weigh(degree, log_shift, sums, row)
        code_N[middle] = np.uint32(base + row)


@njit(cache=True, nogil=True)
def _scan(forward, candidate, base, code_N, sums, sum_row):  # type: ignore[no-untyped-def]
    """Sums of one pair from the row of the candidate, after ``_mark``."""
    f_indptr, f_indices = forward
    sums[sum_row, :] = 0.0
    for entry in range(f_indptr[candidate], f_indptr[candidate + 1]):
        code = np.uint64(code_N[np.uint32(f_indices[entry])])
        if code > base:
            for column in range(3):
                sums[sum_row, column] += sums[code - base, column]


@njit(cache=True, nogil=True)
def _reserve(query, candidate_R, begin, end, base, spare_row, code_N, sums):  # type: ignore[no-untyped-def]
    """Give every listed candidate a row of zeros (a repeated one shares it)."""
    end_row = spare_row + _ONE
    code_N[query] = np.uint32(base + spare_row)
    for pair in range(begin, end):
        target = candidate_R[pair]
        if target >= 0 and np.uint64(code_N[target]) < base + spare_row:
            code_N[target] = np.uint32(base + end_row)
            sums[end_row, :] = 0.0
            end_row += _ONE
    return end_row


@njit(cache=True, nogil=True)
def _scanning_is_cheaper(forward, b_indptr, query, candidate_R, begin, end):  # type: ignore[no-untyped-def]
    """Whether the rows of the candidates have fewer entries than the query has wedges."""
    f_indptr, f_indices = forward
    scan = 0
    for pair in range(begin, end):
        target = candidate_R[pair]
        if target >= 0:
            scan += f_indptr[target + 1] - f_indptr[target]
    walk = 0
    for entry in range(f_indptr[query], f_indptr[query + 1]):
        middle = np.uint32(f_indices[entry])
        walk += b_indptr[middle + 1] - b_indptr[middle]
        if walk >= scan:
            return True
    return False


@njit(cache=True, nogil=True)
def _connected(forward, row, target):  # type: ignore[no-untyped-def]
    indptr, indices = forward
    begin, end = indptr[row], indptr[row + 1]
    while begin < end:
        middle = (begin + end) // 2
        if indices[middle] < target:
            begin = middle + 1
        else:
            end = middle
    return begin < indptr[row + 1] and indices[begin] == target


@njit(cache=True, nogil=True)
def pair_block(forward, backward, query_Q, pairs, exclude_edge, log_shift, workspace, column):  # type: ignore[no-untyped-def]
    """Scores of the given pairs of a block of queries; ``pairs`` is (indptr, candidates)."""
    f_indptr = forward[0]
    pair_indptr, candidate_R = pairs
    last_code, code_N, _, _, sums, _ = workspace
    for q in range(len(query_Q)):
        query, begin, end = query_Q[q], pair_indptr[q], pair_indptr[q + 1]
        if query < 0 or begin == end:
            continue
        degree = f_indptr[query + 1] - f_indptr[query]
        base = _open(last_code, degree, len(f_indptr), code_N)
        spare_row = np.uint64(degree) + _ONE
        end_row = spare_row + _ONE
        scans = _scanning_is_cheaper(forward, backward[0], query, candidate_R, begin, end)
        if scans:
            _mark(forward, backward[0], query, log_shift, base, code_N, sums)
        else:
            end_row = _reserve(query, candidate_R, begin, end, base, spare_row, code_N, sums)
            least_code = np.uint32(base + spare_row)
            settings = _NO_CAP, log_shift
            _walk(
                forward, backward, query, settings, base, least_code, spare_row, end_row, workspace
            )
        for pair in range(begin, end):
            target, row = candidate_R[pair], spare_row
            if target < 0:
                continue
            if target == query:
                sums[row, :] = 0.0
            elif scans:
                _scan(forward, target, base, code_N, sums, row)
            else:
                row = np.uint64(code_N[target]) - base
            other = f_indptr[target + 1] - f_indptr[target]
            gone = exclude_edge and _connected(forward, query, target)
            _fill(sums, row, float(degree - gone), float(other - gone), column, pair)
        last_code[0] = base + end_row
