"""A store that may be created anew by another process while it is in use."""

import threading
from collections.abc import Callable
from typing import TypeVar

from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError

Result = TypeVar("Result")

_TRIES = 3


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

    def _opened(self) -> MomentStore:
        with self._lock:
            if self._store is None:
                self._store = MomentStore.open(self.location)
            return self._store

    def _forget(self, store: MomentStore) -> None:
        with self._lock:
            if self._store is store:
                self._store = None
