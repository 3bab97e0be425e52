"""Deep nets under attack, made to be compared with the theory in `odeflow`.

`data` has the images, `models` the nets, `training` and `attacks` what is done to them, `evaluation` what is measured.
"""
