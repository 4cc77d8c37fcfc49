"""What is published about the cores of Loihi 1 and 2, each number with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsespike.backends.lava.fixed import PROGRAMMED, STOCK, Format

_DAVIES = "Davies et al., Loihi: A Neuromorphic Manycore Processor with On-Chip Learning, IEEE Micro 38(1), 2018"
_NENGO = "nengo-loihi 1.1, nengo_loihi/block.py and nengo_loihi/hardware/validate.py"
_BRIEF = "Intel, Taking Neuromorphic Computing to the Next Level with Loihi 2 (technology brief), 2021"

_WEIGHTS = "lava-nc 0.10.0, lava/utils/weightutils.py: a mantissa of 8 bits and an exponent for all weights of a projection"
_NEURONS = "lava-nc 0.10.0, lava/proc/lif/models.py, PyLifModelBitAcc (bit-accurate to Loihi)"
_GRADED = "lava-nc 0.10.0, lava/proc/graded/models.py and lava/proc/sdn/models.py"


@dataclass(frozen=True)
class Limit:
    """One published number.

    Attributes
    ----------
    value : int
    source : str
    verified : bool
        Whether the source states it plainly; otherwise it is derived from it, or its authors had it at second hand.
    """

    value: int
    source: str
    verified: bool = True


@dataclass(frozen=True)
class Chip:
    """Limits of a chip; None where nothing is published.

    Attributes
    ----------
    cores : Limit
        Neuron cores of a chip.
    neurons : Limit
        Neurons of a core.
    in_axons, out_axons : Limit or None
        Of a core: presynaptic neurons that it hears, and pairs of one of its neurons and a core that hears it.
    synapse_bits : Limit or None
        Synaptic memory of a core.
    thresholds : Limit or None
        Different thresholds on a core.
    delay_bits : Limit or None
        Bits of a synapse's delay.
    weight_bits, threshold_bits, membrane_bits, bias_bits : Limit or None
        Of a weight's mantissa, beside its sign; of a threshold; of a membrane and of a bias's mantissa, signs included.
    synapses : Limit or None
        Synapses of a whole chip, at the narrowest weights.
    graded : bool
        Whether spikes can carry a value.
    programmable : bool
        Whether the neuron's dynamics can be chosen; otherwise it is a leaky integrate-and-fire neuron that is reset to zero.
    words : Format or None
        How weights, thresholds, membranes and biases of these bits are aligned; without it they are not looked at.
    """

    name: str
    cores: Limit
    neurons: Limit
    graded: bool
    programmable: bool
    in_axons: Limit | None = None
    out_axons: Limit | None = None
    synapse_bits: Limit | None = None
    thresholds: Limit | None = None
    delay_bits: Limit | None = None
    synapses: Limit | None = None
    weight_bits: Limit | None = None
    threshold_bits: Limit | None = None
    membrane_bits: Limit | None = None
    bias_bits: Limit | None = None
    words: Format | None = None

    @property
    def limits(self) -> Mapping[str, Limit | None]:
        """Every limit by its name."""
        of_cores = ("cores", "neurons", "in_axons", "out_axons", "synapse_bits", "thresholds", "delay_bits", "synapses")
        of_words = ("weight_bits", "threshold_bits", "membrane_bits", "bias_bits")
        return {name: getattr(self, name) for name in (*of_cores, *of_words)}

    @property
    def packs(self) -> bool:
        """Whether enough is published to assign neurons to cores; otherwise only lower bounds can be given."""
        return None not in (self.in_axons, self.out_axons, self.synapse_bits)


LOIHI_1 = Chip(
    name="Loihi 1",
    cores=Limit(128, _DAVIES),
    neurons=Limit(1024, _DAVIES),
    in_axons=Limit(4096, _NENGO),
    out_axons=Limit(4096, _NENGO),
    synapse_bits=Limit(2**20, f"{_NENGO}; 128 KB in {_DAVIES}"),
    thresholds=Limit(16, f"{_NENGO}, which marks it as unchecked", verified=False),
    delay_bits=Limit(6, f"{_DAVIES}: delays of up to 62 steps", verified=False),
    weight_bits=Limit(8, _WEIGHTS),
    threshold_bits=Limit(17, _NEURONS),
    membrane_bits=Limit(24, _NEURONS),
    bias_bits=Limit(13, _NEURONS),
    words=STOCK,
    graded=False,
    programmable=False,
)
LOIHI_2 = Chip(
    name="Loihi 2",
    cores=Limit(128, _BRIEF),
    neurons=Limit(8192, f"{_BRIEF}: up to 1 million neurons on a chip of 128 cores, so 2^20 / 128", verified=False),
    synapses=Limit(120_000_000, _BRIEF),
    weight_bits=Limit(8, _WEIGHTS),
    threshold_bits=Limit(24, _GRADED),
    membrane_bits=Limit(24, _GRADED),
    bias_bits=Limit(13, f"{_NEURONS}; taken to hold for neurons that are programmed, too", verified=False),
    words=PROGRAMMED,
    graded=True,
    programmable=True,
)
CHIPS: Mapping[str, Chip] = {"loihi1": LOIHI_1, "loihi2": LOIHI_2}
"""The chips by the name that a command takes."""
