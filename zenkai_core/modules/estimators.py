"""scikit-learn estimators as a layer: any regressor or classifier, of all outputs at once or one per output."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zenkai_core.modules import saved
from zenkai_core.modules.fitted import EnsembleVoter, Kind
from zenkai_core.modules.voters import Voter

Fitting = Callable[[Any, int], Any]  # (the fitted estimator of an output, or None; the output) -> its next one


class Estimators(EnsembleVoter):
    """At most n fitted estimators, first in first out, whose votes are averaged; a linear surrogate until the first.

    A regressor predicts all outputs at once; one that cannot is wrapped in `PerOutput`. A classifier votes with its
    shares of the classes (`predict_proba`, or all on the class that it predicts), so that the output is real votes
    `[n, classes]`. Predictions run on the CPU; for trees `Trees` is the faster module, and one that moves.

    Fitted estimators are part of the `state_dict`, written by skops, which is the extra "sklearn" of this project.

    Args:
        inputs, outputs, members, kind, voter, out_of_bag: as for `EnsembleVoter`.
        trusted: whether a `state_dict` with estimators is loaded: False, never; True, if all its types are among those
            of scikit-learn, numpy and scipy that skops holds safe; a sequence of full names of types, those too.
            Say so only of files whose maker you know.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size below 1, or an unknown kind.

    >>> from sklearn.linear_model import Ridge
    >>> layer = Estimators(2, 1)
    >>> layer.add_member(Ridge(alpha=0).fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0], [1.0], [2.0]]))
    >>> layer(torch.tensor([[1.0, 1.0]])).round(decimals=4).tolist()
    [[3.0]]
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        members: int = 1,
        kind: Kind = "regression",
        voter: Voter | None = None,
        out_of_bag: bool = False,
        trusted: bool | Sequence[str] = False,
    ) -> None:
        super().__init__(inputs, outputs, members=members, kind=kind, voter=voter, out_of_bag=out_of_bag)
        self.trusted = trusted if isinstance(trusted, bool) else tuple(trusted)
        self._fitted: list[Any] = []

    def __len__(self) -> int:
        """The number of fitted members."""
        return len(self._fitted)

    @property
    def newest(self) -> Any:
        """The member that joined last, None where there is none yet."""
        return self._fitted[-1] if self._fitted else None

    def votes(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[v, n, outputs]`, each member's own."""
        if not len(x):  # scikit-learn refuses to predict nothing
            return self.surrogate.new_zeros(len(self), 0, self.outputs)
        rows = as_array(x)
        votes = [torch.as_tensor(self._vote(m, rows)) for m in self._fitted]
        return torch.stack(votes).to(self.surrogate)

    def add_member(self, estimator: Any, weight: float = 1.0) -> None:
        """Takes a fitted estimator; the oldest member leaves when there are more than `members`.

        Args:
            estimator: fitted on `[n, inputs]` rows: a regressor of all outputs, a `PerOutput`, or a classifier.
            weight: > 0, how much its vote counts.

        Raises:
            TypeError: it is not fitted, cannot predict, or is of the other kind.
            ValueError: its features, outputs or classes are not the module's; a weight that is not positive.
        """
        self._check(estimator)
        self._join(weight)
        self._fitted = [*self._fitted, estimator][-self.members :]

    def replace_newest(self, estimator: Any) -> None:
        """Takes a fitted estimator in place of the newest member, with its weight; as the first if there is none.

        Raises:
            TypeError, ValueError: as `add_member`.
        """
        self._check(estimator)
        if self._fitted:
            self._fitted = [*self._fitted[:-1], estimator]
        else:
            self.add_member(estimator)

    def _check(self, estimator: Any) -> None:
        name = type(estimator).__name__
        features = getattr(estimator, "n_features_in_", None)
        if features is None or not callable(getattr(estimator, "predict", None)):
            raise TypeError(
                f"{type(self).__name__} expected a fitted scikit-learn estimator, got {name}: fit one that predicts, "
                "and knows n_features_in_, first"
            )
        classes = getattr(estimator, "classes_", None)
        if classes is not None and self.kind == "classification":
            self.labels(classes)
        if features != self.inputs or classes is not None:
            self.expect(name, classes is not None, features, self.outputs)
        answer = np.asarray(estimator.predict(np.zeros((1, features), dtype=np.float32)))
        self.expect(name, classes is not None, features, answer.size)

    def _vote(self, estimator: Any, rows: NDArray[Any]) -> NDArray[Any]:
        """`[n, outputs]` of one member."""
        if self.kind == "regression":
            return np.asarray(estimator.predict(rows)).reshape(len(rows), self.outputs)
        columns = self.labels(estimator.classes_).numpy()
        shares = np.zeros((len(rows), self.outputs))
        if callable(getattr(estimator, "predict_proba", None)):
            shares[:, columns] = estimator.predict_proba(rows)
        else:
            shares[np.arange(len(rows)), np.asarray(estimator.predict(rows)).astype(np.int64)] = 1
        return shares

    def get_extra_state(self) -> Tensor | None:
        """The fitted members as bytes.

        Raises:
            RuntimeError: there are some, and skops is not installed.
        """
        return saved.dumps(self._fitted) if self._fitted else None

    def set_extra_state(self, state: Tensor | None) -> None:
        """Takes fitted members back.

        Raises:
            RuntimeError: there are some, and the module was made without `trusted`, or with too little of it.
            TypeError: one is not fitted, cannot predict, or is of the other kind.
            ValueError: more than `members`; features, outputs or classes that are not the module's.
        """
        if state is None:
            self._fitted = []
            return
        if not isinstance(state, Tensor) or state.dtype != torch.uint8:
            raise TypeError(
                f"{type(self).__name__} expected its members as bytes, a uint8 tensor, got {type(state).__name__}: "
                "load the state_dict of a module of this class"
            )
        loaded = saved.loads(state, self.trusted)
        if not isinstance(loaded, list) or not 0 < len(loaded) <= self.members:
            got = len(loaded) if isinstance(loaded, list) else type(loaded).__name__
            raise ValueError(
                f"{type(self).__name__} expected 1 to {self.members} fitted members, got {got}: make it with members= "
                "as it was when it was saved"
            )
        for estimator in loaded:
            self._check(estimator)
        self._fitted = loaded


class PerOutput:
    """One estimator per output, for those that predict only one; each sees all the inputs.

    With classifiers inside, every output is a choice of its own (for example -1 or 1), predicted as a number.

    Args:
        estimator: an unfitted one, of which each output gets a clone.
        random_state: an integer from which each clone's own is made, where it has one that is unset.

    Attributes:
        estimators_: the fitted ones, in the order of the outputs.

    >>> from sklearn.svm import SVR
    >>> x = np.arange(6.0).reshape(6, 1)
    >>> both = PerOutput(SVR()).fit(x, np.hstack([x, -x]))
    >>> both.predict(x).shape
    (6, 2)
    """

    def __init__(self, estimator: Any, *, random_state: int | None = None) -> None:
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, x: NDArray[Any], t: NDArray[Any], limit: Sequence[int] | None = None) -> PerOutput:
        """Fits on rows x `[n, inputs]` and t `[n, outputs]`; with `limit` only these outputs, the others stay.

        Raises:
            RuntimeError: a limit before all outputs were fitted once.
            ValueError: t is not two-dimensional, or the limit names no output.
        """
        return self._each(x, t, limit, lambda held, j: self._clone(j).fit(x, t[:, j]))

    @property
    def partial_fit(self) -> Callable[..., PerOutput]:
        """Called as `fit`, it continues the fit of every output, or of these, by the estimators' own `partial_fit`.

        Raises:
            AttributeError: the estimator has none.
            RuntimeError, ValueError: as for `fit`.
        """
        if not hasattr(self.estimator, "partial_fit"):
            raise AttributeError(
                f"PerOutput expected an estimator with partial_fit, got {type(self.estimator).__name__}: use fit"
            )
        return self._continue

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """x: `[n, inputs]` -> `[n, outputs]`."""
        return np.stack([each.predict(x) for each in self.estimators_], 1)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the constructor was given."""
        return {"estimator": self.estimator, "random_state": self.random_state}

    def set_params(self, **params: Any) -> PerOutput:
        """Changes what the constructor was given."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"PerOutput expected estimator or random_state, got {name!r}: set one of those")
            setattr(self, name, value)
        return self

    def _continue(self, x: NDArray[Any], t: NDArray[Any], limit: Sequence[int] | None = None) -> PerOutput:
        return self._each(
            x, t, limit, lambda held, j: (self._clone(j) if held is None else held).partial_fit(x, t[:, j])
        )

    def _each(self, x: NDArray[Any], t: NDArray[Any], limit: Sequence[int] | None, fit: Fitting) -> PerOutput:
        held = self.__dict__.get("estimators_")
        if t.ndim != 2:
            raise ValueError(
                f"PerOutput expected targets [n, outputs], got {list(t.shape)}: give one column per output"
            )
        if limit is not None and held is None:
            raise RuntimeError(
                f"PerOutput expected all outputs fitted once before a limit, got limit={list(limit)} at first: fit "
                "without one"
            )
        chosen = range(t.shape[1]) if limit is None else sorted(set(limit))
        if (held is not None and len(held) != t.shape[1]) or any(not 0 <= j < t.shape[1] for j in chosen):
            raise ValueError(
                f"PerOutput expected {t.shape[1] if held is None else len(held)} outputs and a limit within them, got "
                f"{t.shape[1]} and {list(chosen)}: give targets for every output, and the limit as their indices"
            )
        fitted: list[Any] = [None] * t.shape[1] if held is None else list(held)
        for j in chosen:
            fitted[j] = fit(fitted[j], j)
        self.estimators_ = fitted
        self.n_features_in_ = x.shape[1]
        return self

    def _clone(self, output: int) -> Any:
        each = copy.deepcopy(self.estimator)
        if self.random_state is not None and each.get_params().get("random_state", 0) is None:
            each.set_params(random_state=(self.random_state + output) % 2**32)
        return each


def as_array(x: Tensor) -> NDArray[Any]:
    """Rows for scikit-learn: float64 where they are, else float32."""
    return x.detach().cpu().to(torch.float64 if x.dtype == torch.float64 else torch.float32).numpy()
