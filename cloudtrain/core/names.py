"""Two-word names for runs: easy to read, to say and to type."""

from __future__ import annotations

import secrets
from collections.abc import Container

_FIRST = """
amber able bold brave bright brisk calm clear clever cosy crisp dapper deft dry eager early fair fine firm
fleet fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen kind lively lucky merry
mild neat nimble noble patient plain polite proud quick quiet rapid ready rustic sage sharp shy silent silver
sleek smart snug sober solid spry steady still stout sturdy sunny swift tidy true upbeat vivid warm wide wise
witty young zesty
""".split()  # noqa: SIM905 - a list literal would be a page

_SECOND = """
adder albatross badger bear beaver bison bittern boar bobcat buzzard caribou cheetah chough condor coot
cormorant crane crow curlew deer dipper dolphin dove eagle egret eider elk ermine falcon ferret finch fox
gannet gecko goose grebe grouse gull hare harrier hawk hedgehog heron ibex ibis jackdaw jay kestrel kite lark
lemur linnet lizard lynx magpie marmot marten martin mole moose newt nuthatch ocelot oriole osprey otter owl
panda pelican petrel pigeon pika pipit plover puffin quail raven redstart robin rook salmon seal shrew shrike
siskin skua skylark snipe sparrow starling stoat stork swallow swan swift tapir teal tern thrush toad trout
turtle vole wagtail walrus warbler weasel whale wren yak
""".split()  # noqa: SIM905 - a list literal would be a page


def new_name(taken: Container[str]) -> str:
    """A name that is not in `taken`; numbered in the unlikely case that many tries are."""
    for _ in range(50):
        name = f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}"
        if name not in taken:
            return name
    while (name := f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}-{secrets.randbelow(10_000)}") in taken:
        pass
    return name
