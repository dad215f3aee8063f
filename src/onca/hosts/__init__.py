"""Hosts: what makes the pools of a batch, and what keeps memories and key encoders. A host knows no method."""

from onca.hosts.cmc import CMC
from onca.hosts.host import Batch, Host
from onca.hosts.looc import LooC
from onca.hosts.moco import MoCo
from onca.hosts.npid import NPID
from onca.hosts.simclr import SimCLR

__all__ = ["CMC", "NPID", "Batch", "Host", "LooC", "MoCo", "SimCLR"]
