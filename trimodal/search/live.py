"""A store that may be created anew by another process while it is in use."""

import threading
from collections.abc import Callable
from typing import TypeVar

from trimodal.core.errors import UserError
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError

Result = TypeVar("Result")

_TRIES = 3


class ReplacedError(UserError, LookupError):
    """Another store is where the one asked for was."""


class LiveStore:
    """Opens a store when it is first used, and again when its location holds another one."""

    def __init__(self, location: str, store: MomentStore | None = None) -> None:
        self.location, self._store = location, store
        self._lock = threading.Lock()

    def use(self, work: Callable[[MomentStore], Result]) -> Result:
        """The result of ``work`` on the store, which was not replaced meanwhile. Raises the errors
        of ``MomentStore.open`` and of ``work``.
        """
        for _ in range(_TRIES):
            store = self._opened()
            try:
                result = work(store)
            except (StoreError, OSError):
                if store.is_current():
                    raise
            else:
                if store.is_current():
                    return result
            self._forget(store)
        raise StoreError(f"{self.location}: is being created anew again and again; try later")

    def use_only(self, identity: str, work: Callable[[MomentStore], Result]) -> Result:
        """:meth:`use` of the store that numbers and seconds are of; raises ReplacedError if its
        location holds another one.
        """

        def checked(store: MomentStore) -> Result:
            if store.identity != identity:
                raise ReplacedError("the folder has been indexed anew: search again")
            return work(store)

        return self.use(checked)

    def _opened(self) -> MomentStore:
        with self._lock:
            if self._store is None:
                self._store = MomentStore.open(self.location)
            return self._store

    def _forget(self, store: MomentStore) -> None:
        with self._lock:
            if self._store is store:
                self._store = None
