"""Hosts: what makes the pools of a batch, and what keeps memories and key encoders. A host knows no method."""

from onca.hosts.host import Batch, Host
from onca.hosts.moco import MoCo
from onca.hosts.simclr import SimCLR

__all__ = ["Batch", "Host", "MoCo", "SimCLR"]
