"""What `--model=help` and `--dropout=help` print."""

from dropjax import models
from dropjax.core import arguments
from dropjax.core.scheme import SCHEMES

_EXAMPLES = {"scheme": "'dropblock(rate=0.1,block_size=5)'", "model": "'mlp(widths=(800,800))'"}


def help_on(dropout: str, model: str) -> str:
    """The lists of arguments that two flags ask for by the word help; "" if they ask for none.

    Args:
      dropout: the value of --dropout.
      model: the value of --model.
    """
    asked = [
        registry
        for registry, value in ((SCHEMES, dropout), (models.MODELS, model))
        if value.strip() == "help"
    ]
    return "\n\n".join(
        f"{registry.flag} takes a name, or a name with arguments such as "
        f"{_EXAMPLES[registry.noun]}:\n\n{arguments.text(registry)}"
        for registry in asked
    )
