"""An experiment directory: lock it, append to it, read it back."""

from redline.store.directory import EXPERIMENT, Store, next_directory, open_store, reusable
from redline.store.holding import Held, hold

__all__ = ["EXPERIMENT", "Held", "Store", "hold", "next_directory", "open_store", "reusable"]
