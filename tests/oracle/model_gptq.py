"""A model of GPTQ in f64, for tests: Algorithm 1 of arXiv:2210.17323 column by column, with the
published code's way of choosing scales. Slow and plain, it shares nothing with the C code."""
import numpy as np


class Grid:
    """Scale and zero point of each row for the columns of one group."""

    def __init__(self, columns, bits, symmetric, search):
        self.top = 2 ** bits - 1
        self.symmetric = symmetric
        low = np.minimum(columns.min(axis=1), 0)
        high = np.maximum(columns.max(axis=1), 0)
        if symmetric:  # a row without negative weights keeps low = 0
            high = np.maximum(-low, high)
            low = np.where(low < 0, -high, low)
        empty = (low == 0) & (high == 0)
        low, high = np.where(empty, -1, low), np.where(empty, 1, high)
        self.scale, self.zero = self.span(low, high)
        if search:
            self.search(columns, low, high)

    def span(self, low, high):
        scale = (high - low) / self.top
        middle = (self.top + 1) / 2
        return scale, np.full_like(scale, middle) if self.symmetric else np.round(-low / scale)

    def search(self, columns, low, high):
        least = np.full(len(columns), np.inf)
        best_scale, best_zero = self.scale.copy(), self.zero.copy()
        for step in range(80):
            shrink = 1 - step / 100
            self.scale, self.zero = self.span(shrink * low, shrink * high)
            rounded = np.stack([self.value(self.code(c)) for c in columns.T], axis=1)
            error = (np.abs(rounded - columns) ** 2.4).sum(axis=1)
            better = error < least
            least = np.where(better, error, least)
            best_scale = np.where(better, self.scale, best_scale)
            best_zero = np.where(better, self.zero, best_zero)
        self.scale, self.zero = best_scale, best_zero

    def code(self, column):
        return np.clip(np.round(column / self.scale) + self.zero, 0, self.top)

    def value(self, code):
        return self.scale * (code - self.zero)


def inverse_factor(h):
    """U, upper triangular, with inv(h) = U^T U."""
    return np.linalg.cholesky(np.linalg.inv(h)).T


def solve(weight, hessian, bits, group_size, symmetric=False, order="none", static=False,
          search=False, damping=0.01, block=128, stale=True):
    """The published code's result as a dict of codes, scale, gidx, loss and output (dequantised).
    With stale=False groups inside a block are fitted to weights that have all updates so far."""
    w, h = weight.astype(np.float64), hessian.astype(np.float64)
    rows, cols = w.shape
    size = cols if group_size == -1 else group_size
    whole = Grid(w, bits, symmetric, search) if group_size == -1 and stale else None

    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    if whole is None and (static or group_size == -1):
        fixed = [Grid(w[:, j:j + size], bits, symmetric, search) for j in range(0, cols, size)]
    else:
        fixed = [whole] if whole else None

    perm = np.argsort(-np.diag(h), kind="stable") if order == "full" else np.arange(cols)
    w, h = w[:, perm], h[np.ix_(perm, perm)]
    u = inverse_factor(h + damping * np.mean(np.diag(h)) * np.eye(cols))

    codes, gidx = np.zeros((rows, cols)), np.zeros(cols, int)
    out, loss, grids = np.zeros((rows, cols)), 0.0, {}
    for start in range(0, cols, block):
        before = w.copy()
        for j in range(start, min(start + block, cols)):
            by_place = order == "full" and not static and group_size != -1
            group = j // size if by_place else perm[j] // size
            if fixed:
                grids[group] = fixed[group]
            elif j % size == 0:
                source = before if stale else w
                grids[group] = Grid(source[:, j:j + size], bits, symmetric, search)
            grid = grids[group]
            code = grid.code(w[:, j])
            error = (w[:, j] - grid.value(code)) / u[j, j]
            out[:, j] = grid.value(code)
            codes[:, j], gidx[j] = code, group
            loss += np.sum(error ** 2) / 2
            w[:, j:] -= np.outer(error, u[j, j:])
    back = np.argsort(perm)
    return {"codes": codes[:, back], "gidx": gidx[back], "output": out[:, back], "loss": loss,
            "scale": np.stack([grids[g].scale for g in sorted(grids)], axis=1)}
