"""Names of the values in TotalSegmentator's label maps (class maps ``total`` and ``total_mr``, version 2)."""

from __future__ import annotations


def _both(*names: str) -> list[str]:
    return [f"{name}_{side}" for name in names for side in ("left", "right")]


_LUNGS = ["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right"]
_LEVELS = ["S1", *(f"{part}{n}" for part, count in (("L", 5), ("T", 12), ("C", 7)) for n in range(count, 0, -1))]
_VERTEBRAE = [f"vertebrae_{level}" for level in _LEVELS]
_LIMBS = _both("iliac_artery", "iliac_vena", "humerus", "scapula", "clavicula", "femur", "hip")
_MUSCLES = _both("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")
_UPPER = ["spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas"]
_UPPER += ["adrenal_gland_right", "adrenal_gland_left"]
_NECK_VESSELS = ["brachiocephalic_trunk", "subclavian_artery_right", "subclavian_artery_left"]
_NECK_VESSELS += ["common_carotid_artery_right", "common_carotid_artery_left", "brachiocephalic_vein_left"]
_NECK_VESSELS += ["brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava"]

_CT = [
    *_UPPER,
    *_LUNGS,
    "lung_lower_lobe_right",
    "esophagus",
    "trachea",
    "thyroid_gland",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "kidney_cyst_left",
    "kidney_cyst_right",
    "sacrum",
    *_VERTEBRAE,
    "heart",
    "aorta",
    "pulmonary_vein",
    *_NECK_VESSELS,
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    *_LIMBS,
    "spinal_cord",
    *_MUSCLES,
    "brain",
    "skull",
    *[f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)],
    "sternum",
    "costal_cartilages",
]
_MR = [
    *_UPPER,
    "lung_left",
    "lung_right",
    "esophagus",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "sacrum",
    "vertebrae",
    "intervertebral_discs",
    "spinal_cord",
    "heart",
    "aorta",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    *_LIMBS,
    *_MUSCLES,
    "brain",
]

CT_NAMES = dict(enumerate(_CT, start=1))
MR_NAMES = dict(enumerate(_MR, start=1))
