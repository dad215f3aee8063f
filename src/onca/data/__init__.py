"""Images to train and judge on, and what is known of them: sources by name, packs, sheets, descriptors, duplicates."""

from onca.data.descriptors import external_table
from onca.data.duplicates import Pairs, duplicate_pairs, near_duplicates
from onca.data.groups import show_duplicates
from onca.data.imageset import ImageSet, Splits
from onca.data.levels import depth_table
from onca.data.packs import pack
from onca.data.sheet import sheet
from onca.data.sources import SourceRow, list_sources, load
from onca.data.time import neighbour_frames

__all__ = [
    "ImageSet",
    "Pairs",
    "SourceRow",
    "Splits",
    "depth_table",
    "duplicate_pairs",
    "external_table",
    "list_sources",
    "load",
    "near_duplicates",
    "neighbour_frames",
    "pack",
    "sheet",
    "show_duplicates",
]
