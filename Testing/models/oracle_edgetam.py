"""The reference of EdgeTAM for tests; the memory rule over our network is `oracle_sam2.track`."""

from SegmentAnythingMedLib.benchmark.reference_edgetam import as_published as as_published
from SegmentAnythingMedLib.benchmark.reference_edgetam import random_network as random_network
from SegmentAnythingMedLib.benchmark.reference_edgetam import to_transformers_keys as to_transformers_keys
from SegmentAnythingMedLib.benchmark.reference_edgetam import transformers_model as transformers_model
from SegmentAnythingMedLib.benchmark.reference_edgetam import transformers_track as transformers_track
