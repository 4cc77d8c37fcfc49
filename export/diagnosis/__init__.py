"""Why a conversion changed the accuracy: layer by layer and stage by stage; see :func:`diagnose`."""

from sparsespike.export.diagnosis.diagnose import diagnose
from sparsespike.export.diagnosis.layers import LayerDiagnosis
from sparsespike.export.diagnosis.report import Diagnosis
from sparsespike.export.diagnosis.stages import Stage

__all__ = ["Diagnosis", "LayerDiagnosis", "Stage", "diagnose"]
