"""`model.exits=auto model.exits.count=3` on the command line: two settings of one name, which Hydra refuses."""

import sys

from branchynet.networks.automatic import AUTO

EXITS = "model.exits"
PARTS = ("count", "at")


def join_auto_exits() -> None:
    """Make one mapping of `model.exits=auto` and of what is said of such exits beside it, in place of a model's own
    exits: Hydra puts no mapping in the place of a list, and no list in that of a mapping."""
    word, said = f"{EXITS}={AUTO}", {}
    if word in sys.argv:
        for part in PARTS:
            for argument in [each for each in sys.argv if each.startswith(f"{EXITS}.{part}=")]:
                said[part] = argument.partition("=")[2]
                sys.argv.remove(argument)
    values = "{" + ",".join(f"{part}:{value}" for part, value in said.items()) + "}"
    for place, argument in enumerate(sys.argv):
        if argument.startswith((f"{EXITS}={{", f"{EXITS}=[")) or (argument == word and said):
            mapping = argument.partition("=")[2] if argument != word else values
            sys.argv[place : place + 1] = [f"~{EXITS}", f"+{EXITS}={mapping}"]
            break
