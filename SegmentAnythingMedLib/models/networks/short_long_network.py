"""SLM-SAM 2 (Chen et al. 2025, arXiv 2505.01854): SAM 2 with a second memory attention for the slices just passed.

Written from the paper's description; there are no published weights. The keys are those its training code gives its
checkpoints. What the paper leaves open: a key slice just passed is timed by its distance, like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .memory_attention import MemoryAttention
from .memory_encoder import Fuser
from .sam2_network import Sam2Config, Sam2Network

_OWN = ("recent_memory_attention.", "recent_memory_fuser.", "rec_maskmem_tpos_enc")


class ShortLongNetwork(Sam2Network):
    """SAM 2 and the modules of its short-term memory.

    Parameters
    ----------
    config : of the SAM 2 it grew from
    """

    def __init__(self, config: Sam2Config) -> None:
        super().__init__(config)
        dim, memory_dim = config.dim, config.memory_dim
        self.recent_memory_attention = MemoryAttention(dim, memory_dim, config.mlp_dim, config.memory_layers)
        self.recent_memory_fuser = Fuser(dim)
        self.rec_maskmem_tpos_enc = nn.Parameter(torch.zeros(config.memory_slots, 1, 1, memory_dim))

    @classmethod
    def grown_from(cls, network: Sam2Network) -> ShortLongNetwork:
        """A network to train: the short branch starts as a copy of the long one, its time table at zero.

        Untrained it is not usable: the fuser is nearly the identity on a sum, which doubles the features.
        """
        grown = cls(network.config)
        grown.load_state_dict(network.state_dict(), strict=False)
        grown.recent_memory_attention = copy.deepcopy(grown.memory_attention)
        return grown.train(network.training)

    def own_parameters(self) -> Iterable[nn.Parameter]:
        """What SAM 2 does not have: the parameters to train where the rest stays frozen."""
        return (parameter for name, parameter in self.named_parameters() if name.startswith(_OWN))

    def condition_twice(
        self,
        long: Tensor,
        embedding: Tensor,
        memories: Sequence[tuple[Tensor, int]],
        pointers: Sequence[tuple[Tensor, float]],
        pointer_range: int | None = None,
    ) -> Tensor:
        """Fuse what `condition` gave with a second look at the slices just passed.

        Parameters
        ----------
        long : (B, C, S/16, S/16) from `condition`
        embedding, memories, pointers, pointer_range : as for `condition`, of the slices just passed

        Returns
        -------
        (B, C, S/16, S/16)
        """
        attention, times = self.recent_memory_attention, self.rec_maskmem_tpos_enc
        short = self._look_back(attention, times, embedding, memories, pointers, pointer_range)
        return self.recent_memory_fuser(long + short)


def is_short_long(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is of this network."""
    return any(key.startswith(_OWN) for key in state)
