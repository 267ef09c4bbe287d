"""Raw images: reading files of all kinds, checking the declared facts, and developing to linear RGB."""

from adaptiveisp.utils.old_paths import moved_names

__getattr__ = moved_names(__name__, {"BayerHeader": "adaptiveisp.raw.headerless", "read_raw": "adaptiveisp.raw.reader"})
