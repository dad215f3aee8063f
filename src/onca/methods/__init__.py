"""The methods of the literature, one paper a file. A method knows pools, never hosts."""

from onca.methods.auto import auto as auto
from onca.methods.auto import likely as likely
from onca.methods.fnc import cancel as cancel
from onca.methods.fnc import fnc as fnc
from onca.methods.hcl import anneal_down as anneal_down
from onca.methods.hcl import hcl as hcl
from onca.methods.invp import invp as invp
from onca.methods.mirror import mirror as mirror
from onca.methods.mochi import mochi as mochi
from onca.methods.npid import nce as nce
from onca.methods.own_views import own_views as own_views
from onca.methods.ring import aggregation as aggregation
from onca.methods.ring import ball as ball
from onca.methods.ring import ring as ring
from onca.methods.supcon import with_positives as with_positives
from onca.methods.triplets import margin as margin
