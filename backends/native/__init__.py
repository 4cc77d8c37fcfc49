"""The native engine: event-driven, exact, images in parallel."""

from sparsespike.backends.native.engine import NativeBackend

__all__ = ["NativeBackend"]
