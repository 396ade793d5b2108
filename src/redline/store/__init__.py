"""An experiment directory: lock it, append to it, read it back."""

from redline.store.directory import EXPERIMENT, Store, next_directory, open_store, reusable

__all__ = ["EXPERIMENT", "Store", "next_directory", "open_store", "reusable"]
