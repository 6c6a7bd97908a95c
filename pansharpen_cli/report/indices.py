"""What the indices of quality mean, for who does not read them every day."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Index:
    """`ideal`: its best value. `typical`: where the middle four fifths of the products of TYPICAL_OF lie."""

    ideal: int
    typical: tuple[float, float]
    meaning: str


TYPICAL_OF = "60 products: exp, gsa, mtf-glp-fs, bdsd-pc and mtf-glp-hpm-h on twelve scenes of six sensors"

INDICES = {
    "HQNR": Index(1, (0.79, 0.93), "Both together: (1 - D_lambda_K) (1 - D_s). The one to compare methods by."),
    "D_lambda_K": Index(0, (0.02, 0.09), "Colours: how far the product, blurred to the MS again, is from the MS."),
    "D_s": Index(0, (0.03, 0.14), "Detail: how far bands and PAN relate otherwise than at the MS's own scale."),
    "RQNR": Index(1, (0.81, 0.97), "As HQNR, with D_s_R for the detail."),
    "D_s_R": Index(0, (0.00, 0.12), "Detail: the share of the PAN that the bands together do not explain."),
    "QNR": Index(1, (0.75, 0.95), "The oldest: (1 - D_lambda) (1 - D_s). It rewards products that are only blurred."),
    "D_lambda": Index(0, (0.00, 0.11), "Colours: how far relations between bands changed from MS to product."),
}
