"""Images to train and judge on: `load` a source by name, list the sources, draw a contact sheet, pack a folder."""

from onca.data.imageset import ImageSet, Splits
from onca.data.packs import pack
from onca.data.sheet import sheet
from onca.data.sources import SourceRow, list_sources, load

__all__ = ["ImageSet", "SourceRow", "Splits", "list_sources", "load", "pack", "sheet"]
