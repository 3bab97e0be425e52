"""What changes with learning time, for the kernels: epsilon, eta_w and eta_b as polynomials on common pieces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import LANES, inlined
from odeflow.numerics.elementary import fma
from odeflow.schedule import Schedule, Scheduled

__all__ = ["CONSTANT", "Course", "course_at", "course_in_lanes", "course_of", "enter_piece", "leave_piece", "piece_at"]


class Course(NamedTuple):
    """The polynomials; those of no pieces say that all is constant."""

    edges: npt.NDArray[np.float64]
    """Where the pieces begin, and the end, shape (pieces + 1,); empty if nothing changes."""
    coefficients: npt.NDArray[np.float64]
    """Of epsilon, eta_w and eta_b, highest power first, shape (pieces, 3, degree + 1)."""
    changes: npt.NDArray[np.bool_]
    """Which of the three change."""


CONSTANT = Course(np.empty(0), np.empty((0, 3, 1)), np.zeros(3, np.bool_))


def course_of(epsilon: Scheduled, eta_w: Scheduled, eta_b: Scheduled) -> Course:
    """Return the course of three numbers or schedules."""
    given = (epsilon, eta_w, eta_b)
    schedules = [one for one in given if isinstance(one, Schedule)]
    if not schedules:
        return CONSTANT
    end = min(one.end for one in schedules)
    begins = sorted({edge for one in schedules for edge in one.edges[:-1] if edge < end})
    degree = max(len(one.coefficients[0]) for one in schedules)
    rows = np.zeros((len(begins), 3, degree))
    for i, one in enumerate(given):
        for k, begin in enumerate(begins):
            if isinstance(one, Schedule):
                row = one.powers_from(begin)
                rows[k, i, degree - len(row) :] = row[::-1]
            else:
                rows[k, i, -1] = one
    return Course(np.array([*begins, end]), rows, np.array([isinstance(one, Schedule) for one in given]))


@inlined
def course_at(course, piece, alpha):
    """Return epsilon, eta_w and eta_b at alpha, which is in the piece."""
    x = alpha - course.edges[piece]
    epsilon, eta_w, eta_b = course.coefficients[piece, :, 0]
    for k in range(1, course.coefficients.shape[2]):
        epsilon = epsilon * x + course.coefficients[piece, 0, k]
        eta_w = eta_w * x + course.coefficients[piece, 1, k]
        eta_b = eta_b * x + course.coefficients[piece, 2, k]
    return epsilon, eta_w, eta_b


@inlined
def enter_piece(course, piece, lane, rows):
    """Put a piece into one lane of the rows that `course_in_lanes` reads: where it begins, and its coefficients."""
    rows[lane] = course.edges[piece]
    degree = course.coefficients.shape[2]
    for i in range(3):
        for k in range(degree):
            rows[(1 + i * degree + k) * LANES + lane] = course.coefficients[piece, i, k]


@inlined
def leave_piece(lane, rows):
    """Make a lane idle: all is 0 there."""
    for k in range(rows.size // LANES):
        rows[k * LANES + lane] = 0.0


@inlined
def course_in_lanes(course, rows, t, h, fraction, values):
    """Set ``values[i * LANES + lane]`` to epsilon, eta_w and eta_b at a fraction of each lane's step."""
    degree = course.coefficients.shape[2]
    for i in range(3):
        if course.changes[i]:
            first = 1 + i * degree
            for lane in range(LANES):
                values[i * LANES + lane] = rows[first * LANES + lane]
            for k in range(1, degree):
                for lane in range(LANES):
                    x = t[lane] + fraction * h[lane] - rows[lane]
                    values[i * LANES + lane] = fma(values[i * LANES + lane], x, rows[(first + k) * LANES + lane])


@inlined
def piece_at(course, piece, alpha):
    """Return the piece that holds alpha, at or after a piece."""
    while piece + 2 < course.edges.size and alpha >= course.edges[piece + 1]:
        piece += 1
    return piece
