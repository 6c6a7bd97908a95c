"""The field's classical methods, after the definitions of its toolbox (Vivone et al. 2015, 2021; Deng et al. 2022)."""

from pansharpen_cli.classical.bdsd import Bdsd, BdsdPc
from pansharpen_cli.classical.clusters import CBdsd
from pansharpen_cli.classical.cnmf import Cnmf
from pansharpen_cli.classical.haze import BtH, MtfGlpHpmH
from pansharpen_cli.classical.method import Exp, Method
from pansharpen_cli.classical.modulation import Awlp, Mf, MtfGlpHpm, MtfGlpHpmR, Sfim
from pansharpen_cli.classical.multiresolution import MtfGlp, MtfGlpCbd, MtfGlpFs
from pansharpen_cli.classical.pracs import Pracs
from pansharpen_cli.classical.substitution import Brovey, Gs, Gsa, Ihs, Pca

METHODS: dict[str, type[Method]] = {
    "exp": Exp,
    # component substitution
    "brovey": Brovey,
    "ihs": Ihs,
    "pca": Pca,
    "gs": Gs,
    "gsa": Gsa,
    "bt-h": BtH,
    "pracs": Pracs,
    # regression, one scale down
    "bdsd": Bdsd,
    "bdsd-pc": BdsdPc,
    "c-bdsd": CBdsd,
    # multiresolution analysis
    "sfim": Sfim,
    "mtf-glp": MtfGlp,
    "mtf-glp-fs": MtfGlpFs,
    "mtf-glp-cbd": MtfGlpCbd,
    "mtf-glp-hpm": MtfGlpHpm,
    "mtf-glp-hpm-r": MtfGlpHpmR,
    "mtf-glp-hpm-h": MtfGlpHpmH,
    "awlp": Awlp,
    "mf": Mf,
    # unmixing
    "cnmf": Cnmf,
}
"""By the name a user gives; title and citation are attributes of the class."""
