"""Published checkpoints behind the seam of every generator: windows in, painted windows out.

`sources` finds weights, `stack` reads and checks them, `unet` and `flow` paint with them, `words` and `maps` say what
they are shown, `memory` keeps them within the machine.
"""
