import ctypes
import sys

# Of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

_done = False


def keep_memory() -> bool:
    """Lets the process keep the memory that a step frees, for the next step.

    On Linux processors JAX returns all temporary memory to the system after every step. The
    next step has to fetch it again, page by page. Call this function once, between the imports
    and the first layer, and training on JAX takes less time. TensorFlow, PyTorch and accelerators
    gain nothing. A `Swarm` with `remat=None` then computes nothing again to save memory.

    The process then holds its largest amount of memory until it ends. The function changes the
    settings of the C library's allocator, which NumPy and all else in the process use too.

    Returns:
        True if the allocator takes the settings. False without effect on other systems than
        Linux, and with another C library than glibc.

    Raises:
        RuntimeError: JAX has computed something before. Its threads have their settings then.

    Reference:
        [mallopt(3)](https://man7.org/linux/man-pages/man3/mallopt.3.html): one arena, no memory
        maps, no trimming.
    """
    if not sys.platform.startswith("linux"):
        return False
    if _jax_has_started():
        raise RuntimeError(
            "`keep_memory()` has no effect after JAX has computed something. Call it right after "
            "the imports"
        )
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # musl has a `mallopt` that does nothing
        return False
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
    global _done
    _done = all([libc.mallopt(name, value) for name, value in settings.items()])
    return _done


def memory_is_fetched_anew() -> bool:
    """Whether the system hands out large memory page by page in every step."""
    return sys.platform.startswith("linux") and not _done


def _jax_has_started():
    bridge = sys.modules.get("jax._src.xla_bridge")  # no public module tells
    started = getattr(bridge, "backends_are_initialized", None)
    return started is not None and started()
