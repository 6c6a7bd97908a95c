"""The field's classical methods, after the definitions of its toolbox (Vivone et al. 2015, 2021; Deng et al. 2022)."""

from pansharpen_cli.classical.method import Exp, Method
from pansharpen_cli.classical.multiresolution import MtfGlpFs
from pansharpen_cli.classical.substitution import Brovey, Gsa

METHODS: dict[str, type[Method]] = {
    "exp": Exp,
    "brovey": Brovey,
    "gsa": Gsa,
    "mtf-glp-fs": MtfGlpFs,
}
"""By the name a user gives; title and citation are attributes of the class."""
